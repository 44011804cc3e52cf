"""Asks Prometheus' HTTP API how a scenario's versions do."""

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from services.rollout.config import PrometheusSettings
from services.rollout.measure import Figures

# A series that ended within the range counts with its last value: pods come and go.
_SINCE = "max_over_time"
_MARGIN_S = 60


class PrometheusError(Exception):
    """It does not answer, or not as it should."""


class Prometheus:
    """One server."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings

    def loaded(self, scenario: str, version: str) -> bool:
        """Whether every scoring pod that is scraped serves the version. PrometheusError."""
        pods = self._number(f"count(recmesh_scoring_missing_versions{self._where(scenario)})")
        missing = self._number(f"max(recmesh_scoring_missing_versions{self._where(scenario)})")
        having = self._number(f"count(recmesh_scoring_bundle_info{self._where(scenario, model_version=version)})")
        return bool(pods) and not missing and having >= pods

    def dealing(self, scenario: str, experiment: str) -> bool:
        """Whether a ranking pod that is scraped still deals users by the experiment. PrometheusError."""
        where = self._where(scenario, experiment=experiment)
        return self._number(f"count(recmesh_ranking_variant_share_ratio{where})") > 0

    def figures(self, scenario: str, experiment: str, age_s: float) -> Figures:
        """All that is counted of an experiment that began so many seconds ago. PrometheusError."""
        where = self._where(scenario, experiment=experiment)
        share = f"clamp_min(sum(recmesh_feedback_user_share_ratio{self._where(scenario)}), 1)"
        window = f"[{int(max(age_s, 0)) + _MARGIN_S}s]"

        def feedback(name: str) -> dict[str, float]:
            # Counted since the experiment began, over restarts, too. Copies count all users each.
            metric = f"recmesh_feedback_variant_{name}_total{where}"
            return _by_variant(self._ask(f"sum by (variant) ({metric}) / scalar({share})"))

        def ranking(name: str, by: str = "variant") -> list[Any]:
            # Counted by each process since it began.
            return self._ask(f"sum by ({by}) ({_SINCE}(recmesh_ranking_variant_{name}{where}{window}))")

        return Figures(
            users=feedback("users"),
            impressions=feedback("impressions"),
            clicks=feedback("clicks"),
            click_squares=feedback("click_squares"),
            products=feedback("click_impression_products"),
            impression_squares=feedback("impression_squares"),
            errors=_by_variant(ranking("errors_total")),
            degraded=_by_variant(ranking("degraded_total")),
            buckets={
                (series["metric"].get("variant", ""), series["metric"].get("le", "")): float(series["value"][1])
                for series in ranking("seconds_bucket", "variant, le")
            },
        )

    def _where(self, scenario: str, **labels: str) -> str:
        wanted = {**self._settings.labels, "scenario": scenario, **labels}
        return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in wanted.items()) + "}"

    def _number(self, expression: str) -> float:
        """The value of the one series; 0 without one."""
        series = self._ask(expression)
        return float(series[0]["value"][1]) if series else 0.0

    def _ask(self, expression: str) -> list[Any]:
        url = f"{self._settings.address.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        request = urllib.request.Request(url)
        try:
            if self._settings.token_file is not None:
                request.add_header("Authorization", f"Bearer {self._settings.token_file.read_text().strip()}")
            with urllib.request.urlopen(request, timeout=self._settings.timeout_s) as response:
                answer: Mapping[str, Any] = json.load(response)
            return list(answer["data"]["result"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PrometheusError(f"Prometheus at {self._settings.address} does not tell: {error}") from error


def _by_variant(series: list[Any]) -> dict[str, float]:
    found = {entry["metric"].get("variant", ""): float(entry["value"][1]) for entry in series}
    # Not a number: no feedback process tells its share of the users.
    return {variant: value for variant, value in found.items() if math.isfinite(value)}
