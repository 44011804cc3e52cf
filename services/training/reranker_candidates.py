"""What the re-ranker learns to tell from the item that came: the scorer's best other items, and popular ones.

An item that its user had at any time in train is never a negative. The scorer has seen train, so that at a training
position its best items are full of what the user took next; told that those are wrong, a re-ranker learns nothing.

Axes: M positions, N items, P candidates kept per position, K candidates of a step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.training.metrics import top_items
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NegativePool:
    """Negatives to draw from, by position; -1 where there are fewer. Every position has at least one."""

    queries: Queries  # M
    hard: IntArray  # [M, P]: the scorer's best
    easy: IntArray  # [M, P]: drawn by popularity, none of them hard

    def draw(self, rows: IntArray, count: int, hard_share: float, generator: np.random.Generator) -> IntArray:
        """[B, K]: the target of each of the `rows`, then `count` − 1 negatives, `hard_share` of them hard."""
        wanted = round((count - 1) * hard_share)
        drawn = []
        for row in rows:
            hard, easy = (items[items >= 0] for items in (self.hard[row], self.easy[row]))
            some = generator.permutation(hard)[: wanted if len(easy) else None]
            rest = generator.permutation(easy)
            items = np.concatenate([some, rest])[: count - 1]
            # A small catalogue has too few; then some stand twice.
            drawn.append(np.resize(items, count - 1))
        return np.concatenate([self.queries.targets[rows][:, None], np.stack(drawn)], axis=1)


def make_pool(
    queries: Queries, train_end: int, score: Callable[[Queries], FloatArray], size: int, batch: int, seed: int,
    step: Callable[[], None],
) -> NegativePool:  # fmt: skip
    """Negatives of `queries`, `size` of each kind. `score` gives click logits [B, N]; `step` is called once per batch.

    Positions whose users had every item in train are left out.
    """
    interactions = queries.interactions
    item_count = len(interactions.item_ids)
    had = interactions.items[:train_end]
    popularity = np.bincount(had, minlength=item_count).astype(np.float64)
    generator = np.random.default_rng(seed)
    hard, easy = [], []
    for part in queries.batches(batch):
        allowed = np.ones((len(part), item_count), dtype=np.bool_)
        for row, user in enumerate(part.users):
            events = interactions.user_events(user)
            allowed[row, interactions.items[events[events < train_end]]] = False
        best = top_items(score(part), allowed, size)
        rows, places = np.nonzero(best >= 0)
        allowed[rows, best[rows, places]] = False
        # The largest of log popularity + Gumbel noise are a draw by popularity without replacement.
        keys = np.log(np.maximum(popularity, 1e-9)) + generator.gumbel(size=allowed.shape)
        hard.append(best)
        easy.append(top_items(keys.astype(np.float32), allowed & (popularity > 0), size))
        step()
    found = NegativePool(queries, np.concatenate(hard), np.concatenate(easy))
    usable = np.flatnonzero((found.hard >= 0).any(axis=1))
    return NegativePool(queries.take(usable), found.hard[usable], found.easy[usable])
