"""The shim outside Triton: only what the real server's tests cannot reach."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

MODEL = Path(__file__).parents[3] / "deploy" / "triton" / "backends" / "onnxruntime" / "model.py"


class TritonModelException(Exception):  # noqa: N818  Triton's name
    pass


@pytest.fixture
def shim(monkeypatch):
    utilities = types.SimpleNamespace(TritonModelException=TritonModelException)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utilities)
    spec = importlib.util.spec_from_file_location("shim", MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numpy_2_is_refused_with_the_fix(shim):
    assert np.__version__.startswith("2.")
    with pytest.raises(TritonModelException, match=r"corrupts tensors.*deploy/triton/install.sh \(numpy < 2\)"):
        shim.TritonPythonModel().initialize({"model_config": json.dumps({})})
