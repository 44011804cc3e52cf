"""The light parts learn on: the user encoder and the scorer, from the window's events and from older ones replayed.

Item vectors stand still, so that everything that was made of them stays true: the index, the caches, the candidates of
other versions.

Axes: N items, D vector length, B windows.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.model.scorer import Scorer
from services.model.user_tower import UserTower
from services.runtime.scenario import TasksSettings
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import query_histories
from services.training.distributed import place
from services.training.loop import Plan, train
from services.training.online.impressions import ShownPages
from services.training.online.trainable import Trainable, make_users
from services.training.online.window import Window
from services.training.progress import Reporter
from services.training.settings.online import OnlineSettings
from services.training.split import Queries, build_queries, first_clicks
from services.training.train_scorer import Vectors, make_labels, make_scorer, train_scorer
from services.training.train_users import Batch, NextItems, encode_users, train_windows

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_MAX_SCALE = 50.0


class Users(nn.Module):
    """The user encoder and the scale of its dot product with items."""

    def __init__(self, users: UserTower, log_scale: Tensor) -> None:
        super().__init__()
        self.users = users
        self.log_scale = nn.Parameter(log_scale.clone())

    def scale(self) -> Tensor:
        """Factor of the cosine between user and item."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)


def update_users(
    window: Window, trainable: Trainable, item_vectors: FloatArray, tasks: TasksSettings, training: TrainingSettings,
    replay_share: float, settings: OnlineSettings, folder: Path, reporter: Reporter,
) -> Users:  # fmt: skip
    """The user encoder after `settings.passes` over the window. item_vectors [N, D]; `folder` keeps its checkpoints."""
    module = Users(make_users(training, trainable), trainable.log_scale)
    learned, generator = window.learned, np.random.default_rng(training.seed)
    first_new = int(np.searchsorted(learned.interactions.times_ms, window.start_ms))
    windows = train_windows(learned, training.history_length)
    clicks = first_clicks(learned.interactions, tasks)
    is_new = windows[:, -1] >= first_new
    # In a window that reaches into the new events only those count: what is older is replayed as far as it should be.
    new_targets = int(clicks[first_new : learned.split.train_end].sum())
    old = np.flatnonzero(~is_new)
    per_window = (clicks[windows[old, 1:]] & (windows[old, :-1] >= 0)).sum() / max(1, len(old))
    wanted = new_targets * replay_share / (1.0 - replay_share)
    count = min(len(old), int(np.ceil(wanted / max(per_window, 1.0))))
    chosen = np.concatenate([np.flatnonzero(is_new), generator.choice(old, count, replace=False)])
    earliest = np.where(is_new[chosen], first_new, 0)
    interest = make_labels(learned, tasks).rating
    lessons = NextItems(learned, windows[chosen], clicks, interest, training, earliest)
    if lessons.steps == 0:
        return module.eval()
    vectors = place(item_vectors)

    def loss_of(batch: Batch) -> Tensor:
        return lessons.loss(batch, module.users, module.scale(), lambda items: vectors[place(items)])

    tower = training.user_tower
    rate = tower.learning_rate * settings.learning_rate_factor
    plan = Plan("user tower", settings.passes, lessons.steps, rate, tower.weight_decay)
    train(module, plan, lessons.batches, loss_of, Partial(folder / "users.partial.pt", "update"), reporter)
    return module.eval()


def update_scorer(
    window: Window, trainable: Trainable, users: Users, item_vectors: FloatArray, tasks: TasksSettings,
    training: TrainingSettings, replay_share: float, settings: OnlineSettings, pages: ShownPages | None, folder: Path,
    reporter: Reporter,
) -> Scorer:  # fmt: skip
    """The scorer's parts after `settings.passes` over the window, joined as before. `pages`: what was shown."""
    learned, scale = window.learned, users.scale().item()
    queries = scorer_positions(window, tasks, replay_share, training)
    state: State = trainable.scorer
    if len(queries):
        vectors = torch.from_numpy(item_vectors)
        user_vectors = encode_users(users.users, query_histories(learned, queries, training.history_length), vectors)
        rate = training.scorer.learning_rate * settings.learning_rate_factor
        batch = min(training.scorer.batch_events, len(queries))
        slower = {"epochs": settings.passes, "learning_rate": rate, "batch_events": batch}
        chosen = training.model_copy(update={"scorer": training.scorer.model_copy(update=slower)})
        partial = Partial(folder / "scorer.partial.pt", "update")
        state = train_scorer(
            learned, queries, make_labels(learned, tasks), Vectors(vectors, scale), chosen, tasks, user_vectors,
            partial, reporter, start=state, pages=pages if pages is not None and len(pages) else None,
        )  # fmt: skip
    scorer = make_scorer(training, tasks)
    scorer.load_state_dict(state)
    scorer.get_buffer("dot_scale").fill_(scale)
    return scorer.eval()


def scorer_positions(window: Window, tasks: TasksSettings, replay_share: float, training: TrainingSettings) -> Queries:
    """The window's positions and, among as many others as `replay_share` of all takes, older ones; together at most
    `scorer.train_events`."""
    learned = window.learned
    queries = build_queries(learned.interactions, learned.split, tasks, "train").with_history()
    is_new = learned.interactions.times_ms[queries.events] >= window.start_ms
    most = training.scorer.train_events
    new = queries.take(is_new).sample(max(1, int(most * (1.0 - replay_share))), training.seed)
    count = int(len(new) * replay_share / (1.0 - replay_share))
    old = queries.take(~is_new).sample(count, training.seed)
    return Queries(learned.interactions, np.sort(np.concatenate([new.events, old.events])))
