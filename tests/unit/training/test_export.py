"""Export: the logs of others are as they were when it is done."""

import logging
from pathlib import Path

import pytest

from services.training import export


def test_only_the_quantisers_own_warnings_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def quantise(source: str, target: str, **_: object) -> None:
        logging.warning("a node stays as it is")
        Path(target).write_bytes(b"small")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"large one")
    monkeypatch.setattr(export, "quantize_dynamic", quantise)
    level = logging.getLogger().level
    export.quantise_where_free(path, 0.0, lambda _: 1.0)
    logging.getLogger("services.training.export").warning("heard again")
    assert logging.getLogger().level == level
    assert [record.message for record in caplog.records] == ["heard again"]
