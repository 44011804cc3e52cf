"""All dashboards."""

from deploy.grafana.boards.experiments import EXPERIMENTS
from deploy.grafana.boards.overview import OVERVIEW
from deploy.grafana.boards.pools import POOLS
from deploy.grafana.boards.quality import QUALITY
from deploy.grafana.boards.services import SERVICES

BOARDS = (OVERVIEW, QUALITY, POOLS, EXPERIMENTS, *SERVICES)
"""In the order in which a reader would open them."""

__all__ = ["BOARDS"]
