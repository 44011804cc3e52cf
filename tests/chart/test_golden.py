"""What the four value sets render to, compared as parsed YAML. `RECMESH_GOLDEN=write` writes the files anew."""

import os
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import SETS, needs_helm, read_documents

pytestmark = needs_helm

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", SETS)
def test_a_value_set_renders_as_before(name, rendered):
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("RECMESH_GOLDEN") == "write":
        file.write_text(yaml.safe_dump_all(rendered[name], sort_keys=True, width=120))
    expected = read_documents(file.read_text())

    def named(documents):
        return {(document["kind"], document["metadata"]["name"]): document for document in documents}

    now, before = named(rendered[name]), named(expected)
    assert sorted(now) == sorted(before)
    for key, document in before.items():
        assert now[key] == document, f"{' '.join(key)} differs; RECMESH_GOLDEN=write accepts it"
