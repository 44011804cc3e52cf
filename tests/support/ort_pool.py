"""A ModelPool in this process: the same ONNX files without Triton."""

from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from services.scoring.pool import Array


class OrtPool:
    """Executes the parts of one Triton model repository; `calls` lists the parts in the order of their calls."""

    def __init__(self, repository: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            file.parents[1].name: onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            for file in repository.glob("*/1/model.onnx")
        }
        self.calls: list[str] = []
        self.error: Exception | None = None
        """Raised by every call while set."""

    async def infer(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.calls.append(part)
        if self.error is not None:
            raise self.error
        session = self._sessions[part]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
