"""Serves `backend: "onnxruntime"` with the onnxruntime package, as a Python-based backend of Triton on a CPU.

NVIDIA's container has a native backend of the same name that reads the same repository. This one is copied beside the
Python backend by deploy/triton/launcher.py and runs in Triton's own environment, so it imports nothing of the project.
Inputs and outputs are those that config.pbtxt declares; nothing is completed from the model file.
"""

import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

THREADS_PARAMETER = "intra_op_thread_count"  # the native backend's name for it


class TritonPythonModel:
    """One instance of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load `<model_repository>/<model_version>/model.onnx`. Raises TritonModelException when it cannot serve."""
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} corrupts tensors in this Python backend; make Triton's environment anew with "
                "deploy/triton/install.sh (numpy < 2)"
            )
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._types = {
            tensor["name"]: pb_utils.triton_string_to_numpy(tensor["data_type"]) for tensor in config["output"]
        }
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"].get(THREADS_PARAMETER, {}).get("string_value", "1"))
        options.inter_op_num_threads = 1
        # Idle threads sleep: instances share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: {error}") from error
        self._check("inputs", self._inputs, [value.name for value in self._session.get_inputs()], exact=True)
        self._check("outputs", self._outputs, [value.name for value in self._session.get_outputs()], exact=False)

    @staticmethod
    def _check(side: str, declared: list[str], present: list[str], exact: bool) -> None:
        wrong = set(declared) ^ set(present) if exact else set(declared) - set(present)
        if wrong:
            raise pb_utils.TritonModelException(
                f"config.pbtxt declares the {side} {declared}, model.onnx has {present}; make them agree"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests with one execution; where that fails, each alone, so that one cannot fail the others."""
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        sizes = [len(feed[self._inputs[0]]) for feed in feeds]
        if len(feeds) > 1:
            try:
                merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
                outputs = self._session.run(self._outputs, merged)
            except Exception as error:
                pb_utils.Logger.log_warn(f"a batch of {len(feeds)} requests failed, running each alone: {error}")
            else:
                ends = np.cumsum(sizes)[:-1]
                parts = zip(*(np.split(output, ends) for output in outputs), strict=True)
                return [self._response(request, part) for request, part in zip(requests, parts, strict=True)]
        return [self._answer(request, feed) for request, feed in zip(requests, feeds, strict=True)]

    def _answer(self, request: Any, feed: dict[str, np.ndarray[Any, Any]]) -> Any:
        try:
            return self._response(request, self._session.run(self._outputs, feed))
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _response(self, request: Any, outputs: Iterable[np.ndarray[Any, Any]]) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.ascontiguousarray(output, dtype=self._types[name]))
                for name, output in zip(self._outputs, outputs, strict=True)
                if name in wanted
            ]
        )
