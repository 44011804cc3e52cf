"""Rendered once per value set."""

import pytest

from tests.chart.helm import SETS, Document, render_set


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Document]]:
    return {name: render_set(name) for name in SETS}
