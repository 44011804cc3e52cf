"""One process or many, one device or many: the same training code, through accelerate.

Under `torchrun` every process has the same batches. A step computes what is dear in shares (`in_shares`) and its loss
over the whole batch, so that losses which compare the rows of a batch see all of them however many processes share it.
What a step does not compute in shares every process computes alike: right too, only no faster.

Axes: n rows of a batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IntArray = npt.NDArray[np.int64]


def _state() -> PartialState:
    """Which of the processes this is, and its device. The first call joins the processes that torchrun started."""
    return PartialState(cpu=_on_processor())


def _on_processor() -> bool:
    # Without being told, accelerate joins processes only where there is a GPU.
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def device() -> torch.device:
    """Where this process trains: its GPU, or the processor where there is none (or ACCELERATE_USE_CPU is set)."""
    return _state().device


def process_count() -> int:
    """How many processes train together."""
    return _state().num_processes


def is_main() -> bool:
    """Whether this process writes what all of them make."""
    return _state().is_main_process


def main_first() -> AbstractContextManager[None]:
    """The main process goes through the block before the others do."""
    return _state().main_process_first()


def leave() -> None:
    """End what connects the processes, where there are several."""
    _state().destroy_process_group()


def make_accelerator() -> Accelerator:
    """Places, wraps and steps what is trained. Precision is the steps' own (base_model.autocast): it is the language
    model that gains from bfloat16, not the small parts."""
    # A step may leave parameters out, e.g. the weights that a later step fits.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision="no", cpu=_on_processor(), kwargs_handlers=[unused])


def place(array: npt.NDArray[Any]) -> Tensor:
    """`array` as a tensor on this process's device."""
    return torch.from_numpy(array).to(device())


def from_main(value: float) -> float:
    """The main process's `value`, so that all decide alike."""
    return float(broadcast_object_list([value])[0])


def from_all(value: Any) -> list[Any]:
    """Every process's `value`, in the order of their ranks."""
    return list(gather_object([value]))


def in_shares(compute: Callable[[IntArray], Tensor], rows: IntArray, parts: int = 1) -> Tensor:
    """`compute(rows)` [n, …], each process computing its share of the rows [n] and all getting the whole.

    With `parts` above 1 a share is computed in that many parts whose activations are not kept but computed again when
    their gradient is due: the memory of one part, the gradient of the whole batch, also for losses that compare rows
    (gradient caching; Gao et al., 2021). `compute` must treat rows independently.
    """
    count = process_count()
    if count == 1:
        return _in_parts(compute, rows, parts)
    shares, index = np.array_split(rows, count), _state().process_index
    start = sum(len(share) for share in shares[:index])
    # More processes than rows: a row that is computed and not used, so that every process takes part.
    own = _in_parts(compute, shares[index] if len(shares[index]) else rows[:1], parts)[: len(shares[index])]
    whole: Tensor = _Gather.apply(own, start, len(rows))
    return whole


def _in_parts(compute: Callable[[IntArray], Tensor], rows: IntArray, parts: int) -> Tensor:
    if parts == 1:
        return compute(rows)
    chunks = [chunk for chunk in np.array_split(rows, parts) if len(chunk)]
    return torch.cat([checkpoint(compute, chunk, use_reentrant=False) for chunk in chunks])


class _Gather(torch.autograd.Function):
    """Shares of the rows to all rows; the gradient of a share is the sum of what all processes' losses say of it."""

    @staticmethod
    def forward(context: Any, share: Tensor, start: int, count: int) -> Tensor:
        context.rows = slice(start, start + len(share))
        whole = share.new_zeros(count, *share.shape[1:])
        whole[context.rows] = share
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient[context.rows], None, None
