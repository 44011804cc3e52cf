"""A small training through the project's loop, as a program, so that a test can run it in processes and kill it.

    python -m tests.support.small_training FOLDER [--dropout P] [--parts N] [--wait-in ROUND]

It learns item vectors with in-batch negatives and leaves FOLDER/result.pt: {"state", "rounds"}. With --wait-in it makes
FOLDER/waits in the middle of that round and goes no further.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from services.training.checkpoints import Partial
from services.training.distributed import in_shares, is_main, leave, place
from services.training.loop import Plan, train
from services.training.progress import Reporter

ROUNDS, STEPS, BATCH = 5, 4, 11


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--wait-in", type=int)
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 16), nn.Dropout(chosen.dropout), nn.Linear(16, 8))

    def batches(number: int) -> Iterator[np.ndarray]:
        generator = np.random.default_rng(number)
        for step in range(STEPS):
            if number == chosen.wait_in and step == STEPS // 2:
                (chosen.folder / "waits").touch()
                time.sleep(600)
            yield generator.integers(50, size=(BATCH, 2))

    def loss_of(batch: np.ndarray) -> Tensor:
        vectors = in_shares(lambda items: module(place(items)), batch.ravel(), chosen.parts)
        vectors = F.normalize(vectors, dim=-1).view(BATCH, 2, -1)
        return F.cross_entropy(vectors[:, 0] @ vectors[:, 1].T / 0.1, torch.arange(BATCH))

    def validate() -> float:
        with torch.no_grad():
            return loss_of(np.arange(2 * BATCH).reshape(BATCH, 2)).item()

    partial = Partial(chosen.folder / "small.partial.pt", "key")
    plan = Plan("small", ROUNDS, STEPS, learning_rate=0.01)
    state = train(module, plan, batches, loss_of, partial, Reporter(Console(quiet=True)), validate)
    if is_main():
        torch.save({"state": state, "rounds": partial.rounds}, chosen.folder / "result.pt")
    leave()


if __name__ == "__main__":
    main()
