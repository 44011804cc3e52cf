"""What executes the parts of one model version."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class ModelPool(Protocol):
    """Executes parts; docs/architecture.md has their inputs and outputs."""

    async def infer(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of `part` by name.

        Raises NotReadyError when the pool is away or the part is not loaded, OverloadedError when the part's queue is
        full, DeadlineError when the caller's time is up before or during the execution.
        """
