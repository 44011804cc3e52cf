"""Step 2: the user encoder and the item vectors, trained together on "which item comes next".

By default softmax with cross-entropy over the catalogue, or over sampled items when it is large: the number of
negatives matters more than the architecture (Petrov & Macdonald, 2023). The language model is frozen here; its
projection is not.

Axes: B windows, L history length, D vector length, N items, S items in the softmax, M positions with a target.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.model.item_tower import ItemProjection, ItemTable
from services.model.user_tower import UserTower
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, Histories, histories_at, query_histories
from services.training.distributed import device, in_shares, place
from services.training.loop import Plan, train
from services.training.losses import binary_cross_entropy, gbce_exponent, sampled_softmax, squared_error
from services.training.metrics import ndcg_at_10
from services.training.progress import Reporter
from services.training.split import Queries
from services.training.start import load_start

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Batch = tuple[IntArray, IntArray]
"""Windows of a step, and the items that its loss is over."""
_MAX_SCALE = 50.0
_BATCH = 512


class Towers(nn.Module):
    """User encoder and item vectors, and the scale of their dot product."""

    def __init__(self, settings: TrainingSettings, projection: ItemProjection, pooled: Tensor, warm: Tensor) -> None:
        """pooled [N, W]: the catalogue's language-model states; warm [N]: 1.0 for items that get an id embedding."""
        super().__init__()
        tower = settings.user_tower
        self.items = ItemTable(projection, warm, settings.vector_dimension, tower.id_dropout)
        self.users = UserTower(
            settings.vector_dimension, settings.history_length, tower.layers, tower.heads, tower.dropout
        )
        self.log_scale = nn.Parameter(torch.tensor(2.65))
        self.register_buffer("pooled", pooled, persistent=False)

    def scale(self) -> Tensor:
        """Factor of the cosine between user and item in the softmax."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)

    @torch.inference_mode()
    def item_vectors(self) -> Tensor:
        """[N, D]: what a bundle keeps."""
        self.eval()
        pooled = self.get_buffer("pooled")
        vectors: Tensor = self.items(pooled, torch.arange(len(pooled), device=pooled.device))
        return vectors.clone()

    @torch.inference_mode()
    def user_vectors(self, histories: Histories, item_vectors: Tensor) -> Tensor:
        """[Q, D]; rows without history are 0."""
        self.eval()
        return encode_users(self.users, histories, item_vectors)


@torch.inference_mode()
def encode_users(users: UserTower, histories: Histories, item_vectors: Tensor) -> Tensor:
    """[Q, D] by a user encoder in eval mode; rows without history are 0. item_vectors [N, D]."""
    found = [item_vectors[:0]]
    for start in range(0, len(histories.items), _BATCH):
        items, kinds, gaps, mask = histories.tensors(slice(start, start + _BATCH), item_vectors.device)
        vectors = item_vectors[items.clamp(min=0)] * mask.unsqueeze(-1)
        found.append(users(vectors, kinds, gaps, mask) * (mask[:, -1:] > 0))
    return torch.cat(found).clone()


def make_towers(dataset: Dataset, settings: TrainingSettings, adapted: State) -> Towers:
    """Towers whose projection, and whose user encoder if another scenario's is given, start as step 1 (`adapted`) left
    them; the rest is fresh."""
    torch.manual_seed(settings.seed)
    pooled = adapted["pooled"]
    projection = ItemProjection(pooled.shape[1], settings.vector_dimension)
    prefix = "projection."
    start = {name.removeprefix(prefix): value for name, value in adapted["trained"].items() if name.startswith(prefix)}
    if start:
        projection.load_state_dict(start)
    # Always dropped, an embedding would stay as it began: noise.
    least = settings.warm_events if settings.user_tower.id_dropout < 1 else np.inf
    warm = torch.from_numpy(train_item_counts(dataset) >= least)
    towers = Towers(settings, projection, pooled, warm)
    load_start(towers.users, adapted["users"], settings.transfer_from, "user_tower or history_length")
    return towers


def train_item_counts(dataset: Dataset, among: npt.NDArray[np.bool_] | None = None) -> IntArray:
    """[N]: events of each item in train; only those of `among` [E] when it is given."""
    train = dataset.split.period("train")
    items = dataset.interactions.items[train]
    return np.bincount(items if among is None else items[among[train]], minlength=dataset.item_count)


def train_users(
    dataset: Dataset, clicks: npt.NDArray[np.bool_], interest: FloatArray, validation: Queries,
    settings: TrainingSettings, adapted: State, partial: Partial, reporter: Reporter,
) -> State:  # fmt: skip
    """The towers' trained state.

    clicks [E]: events that count as targets; those on what a user has had already should not, since nobody is
    recommended that. interest [E]: ratings brought to 0 to 1, NaN where there is none; squared_error alone reads it.
    """
    towers = make_towers(dataset, settings, adapted)
    tower = settings.user_tower
    lessons = NextItems(dataset, train_windows(dataset, settings.history_length), clicks, interest, settings)

    def vectors_of(items: IntArray) -> Tensor:
        return towers.items(towers.get_buffer("pooled"), place(items))

    def loss_of(batch: Batch) -> Tensor:
        return lessons.loss(batch, towers.users, towers.scale(), vectors_of)

    histories = query_histories(dataset, validation, settings.history_length)

    def validate() -> float:
        return _validation_loss(towers, histories, validation)

    rounds, rate = tower.epochs, tower.learning_rate
    plan = Plan("user tower", rounds, lessons.steps, rate, tower.weight_decay, tower.patience_epochs)
    return train(towers, plan, lessons.batches, loss_of, partial, reporter, validate)


class NextItems:
    """What windows of events teach a user encoder: which item came next."""

    def __init__(
        self,
        dataset: Dataset,
        windows: IntArray,
        clicks: npt.NDArray[np.bool_],
        interest: FloatArray,
        settings: TrainingSettings,
        earliest: IntArray | None = None,
    ) -> None:
        """windows [B, L + 1] as train_windows gives them, clicks [E] and interest [E] as train_users takes them;
        earliest [B]: the first event of each window that counts as a target, if not all do."""
        tower = settings.user_tower
        self._tower, self._seed, self._interest = tower, settings.seed, interest
        counts = (windows[:, :-1] >= 0) & clicks[windows[:, 1:]]
        if earliest is not None:
            counts &= windows[:, 1:] >= earliest[:, None]
        # Without a target after another event a window teaches nothing, and a batch of such would have no mean loss.
        told = counts.any(axis=1)
        windows, counts = windows[told], counts[told]
        self._inputs = histories_at(dataset, windows[:, :-1])
        self._coming = windows[:, 1:]
        if tower.loss == "squared_error":
            counts &= np.isfinite(interest[self._coming])
        self._targets = np.where(counts, dataset.interactions.items[self._coming], -1)
        # A view that counts for no task makes an item no positive, so it must not make it a negative either.
        counted = train_item_counts(dataset, clicks)
        self._sampler = SoftmaxItems(counted, tower.negatives, tower.unseen_negative_rate)
        self.steps = -(-len(windows) // tower.batch_windows)
        """Batches of a round."""

    def batches(self, number: int) -> Iterator[Batch]:
        """Those of round `number`."""
        generator = np.random.default_rng([self._seed, number])
        for rows in np.array_split(generator.permutation(len(self._targets)), self.steps):
            yield rows, self._sampler.draw(self._targets[rows], generator)

    def loss(self, batch: Batch, users: UserTower, scale: Tensor, vectors_of: Callable[[IntArray], Tensor]) -> Tensor:
        """The loss of a batch. `vectors_of` gives the vectors [n, D] of items [n]."""
        rows, chosen = batch
        tower, inputs = self._tower, self._inputs
        # Only items that the step meets: a projection of the whole catalogue would take most of its time.
        met = np.union1d(chosen, inputs.items[rows][inputs.items[rows] >= 0])
        vectors = vectors_of(met)

        def states_of(rows: IntArray) -> Tensor:
            _, kinds, gaps, mask = inputs.tensors(rows, device())
            places = place(np.searchsorted(met, np.maximum(inputs.items[rows], met[0])))
            return users.states(vectors[places] * mask.unsqueeze(-1), kinds, gaps, mask)

        wanted = self._targets[rows] >= 0
        states = in_shares(states_of, rows)[place(wanted)]
        logits = scale * states @ vectors[place(np.searchsorted(met, chosen))].T
        places = place(np.searchsorted(chosen, self._targets[rows][wanted]))
        if tower.loss == "sampled_softmax":
            return sampled_softmax(logits, places, place(self._sampler.log_inclusion(chosen, int(wanted.sum()))))
        if tower.loss == "squared_error":
            came = logits.gather(1, places.unsqueeze(1)).squeeze(1)
            return squared_error(came, place(self._interest[self._coming[rows][wanted]]))
        exponent = 1.0
        if tower.loss == "gbce":
            exponent = gbce_exponent(len(chosen) - 1, self._sampler.item_count, tower.gbce_calibration)
        return binary_cross_entropy(logits, places, exponent)


def train_windows(dataset: Dataset, length: int) -> IntArray:
    """[B, L + 1] event positions: each user's training events cut into windows that overlap by half, -1 for padding."""
    interactions, end = dataset.interactions, dataset.split.train_end
    windows = []
    for user in range(len(interactions.user_ids)):
        events = interactions.user_events(user)
        events = events[events < end]
        stop = len(events)
        while stop > 1:
            window = events[max(0, stop - length - 1) : stop]
            windows.append(np.concatenate([np.full(length + 1 - len(window), -1), window]))
            if stop <= length + 1:
                break
            stop -= max(1, length // 2)
    return np.stack(windows)


class SoftmaxItems:
    """Which items a step's softmax runs over."""

    def __init__(self, counts: IntArray, negatives: int, unseen_rate: float) -> None:
        """counts [N]: events of each item in train that count as targets."""
        self._seen = np.flatnonzero(counts > 0)
        self._shares = counts / max(1, counts.sum())
        self._unseen = np.flatnonzero(counts == 0)
        self._negatives = negatives
        self._unseen_rate = unseen_rate

    def draw(self, targets: IntArray, generator: np.random.Generator) -> IntArray:
        """[S] ascending: all targets (-1 is ignored) and the step's negatives."""
        seen = self._seen
        if len(seen) > self._negatives:
            seen = generator.choice(seen, self._negatives, replace=False)
        unseen = self._unseen[generator.random(len(self._unseen)) < self._unseen_rate]
        return np.unique(np.concatenate([seen, unseen, targets[targets >= 0]]))

    @property
    def item_count(self) -> int:
        """How many items can be a positive."""
        return len(self._seen)

    def log_inclusion(self, items: IntArray, targets: int) -> FloatArray:
        """[S] logarithm of the probability that a draw beside `targets` targets holds each of `items`: as a negative
        drawn evenly, or as one of the targets."""
        drawn = min(1.0, self._negatives / max(1, len(self._seen)))
        if drawn == 1.0:
            return np.zeros(len(items), dtype=np.float32)
        missed = (1.0 - drawn) * (1.0 - self._shares[items]) ** targets
        return np.log1p(-np.minimum(missed, 1.0 - 1e-9)).astype(np.float32)


def _validation_loss(towers: Towers, histories: Histories, queries: Queries) -> float:
    """Minus NDCG@10 of the user tower over the queries."""
    item_vectors = towers.item_vectors()
    scores = (towers.user_vectors(histories, item_vectors) @ item_vectors.T).cpu().numpy()
    return -float(ndcg_at_10(scores, queries.targets, queries.unseen()).mean())
