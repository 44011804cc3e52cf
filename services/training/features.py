"""What the dense features are computed from: item-to-item weights and popularity columns, fitted on train.

Axes: N items, Q queries, F features, W the language model's width, D vector length.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix

from services.model.collaborative import (
    FEATURES,
    HistoryWeighting,
    ItemColumns,
    ItemWeights,
    compress,
    decayed_event_counts,
    dense_features,
    event_counts,
    newness,
)
from services.runtime.scenario import TasksSettings
from services.training.baselines import DenseRows, train_matrix
from services.training.checkpoints import State
from services.training.dataset import Dataset
from services.training.item_to_item import (
    Chosen,
    choose_weights,
    decayed_history,
    event_weights,
    families_of_events,
    families_of_texts,
    less_popular,
)
from services.training.progress import Reporter
from services.training.sessions import Cut, session_matrices, session_matrix
from services.training.settings.collaborative import CollaborativeSettings
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_RIDGE = 1.0


@dataclass(frozen=True)
class Fit:
    """How item-to-item weights of events were fitted, so that they can be again on other events."""

    cut: Cut
    value: float
    popularity_exponent: float
    dropout: float = 0.0


@dataclass(frozen=True)
class HistoryTable:
    """What a feature sums over a history: item-to-item weights, and what each event counts."""

    weights: ItemWeights
    weighting: HistoryWeighting
    fit: Fit | None = None
    """None: its weights come from texts."""

    def state(self) -> State:
        """As tensors, to be kept."""
        arrays = {field.name: getattr(self.weights, field.name) for field in fields(ItemWeights)}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return {"weighting": asdict(self.weighting), "fit": asdict(self.fit) if self.fit else None, **tensors}

    @classmethod
    def from_state(cls, state: State) -> "HistoryTable":
        """What `state` returned."""
        weights = ItemWeights(*(state[field.name].numpy() for field in fields(ItemWeights)))
        kept = state.get("fit")
        fit = None if kept is None else Fit(**{**kept, "cut": Cut(**kept["cut"])})
        return cls(weights, HistoryWeighting(**state["weighting"]), fit)


def states_of(tables: Mapping[str, HistoryTable]) -> State:
    """What `tables_of` makes tables of."""
    return {name: table.state() for name, table in tables.items()}


def tables_of(state: State) -> dict[str, HistoryTable]:
    """The tables, by feature."""
    return {name: HistoryTable.from_state(kept) for name, kept in state.items()}


@dataclass(frozen=True)
class FeatureTables:
    """What the dense features are computed from."""

    histories: Mapping[str, HistoryTable]  # by HISTORY_FEATURES
    columns: ItemColumns
    history_events: int
    names: tuple[str, ...] = FEATURES
    """What the scorer reads, in its order; a bundle from before there was a feature does not read it."""

    def compute(self, queries: Queries) -> FloatArray:
        """Features of every item for each query: [Q, N, F], in the order of `names`."""
        item_count = len(self.columns.train_event_count)
        histories = {name: compress(self._sums(queries, table)) for name, table in self.histories.items()}
        everything = np.broadcast_to(np.arange(item_count), (len(queries), item_count))
        return dense_features(self.names, histories, self.columns, everything)

    def _sums(self, queries: Queries, table: HistoryTable) -> FloatArray:
        """[Q, N]."""
        weights, size = table.weights, table.weights.item_count
        matrix = csr_matrix((weights.weights, weights.indices, weights.indptr), shape=(size, size))
        sums: FloatArray = (decayed_history(queries, table.weighting, self.history_events) @ matrix).toarray()
        return sums


def fit_event_tables(
    dataset: Dataset, tasks: TasksSettings, validation: Queries, settings: CollaborativeSettings, reporter: Reporter
) -> dict[str, HistoryTable]:
    """By feature, what train's events tell; what it depends on beside is chosen by NDCG@10 on validation."""
    sessions = session_matrices(dataset.interactions, dataset.split, tasks, settings)
    families = families_of_events(list(sessions.values()), settings)
    chosen = choose_weights(families, _user_counts(dataset, tasks), validation, settings, reporter)
    cuts = list(sessions)
    fits = {
        name: Fit(cuts[each.source], each.value, each.popularity_exponent, each.dropout)
        for name, each in chosen.items()
    }
    return {name: replace(table, fit=fits[name]) for name, table in _tables(chosen, settings).items()}


def refit_event_table(
    name: str, fit: Fit, weighting: HistoryWeighting, dataset: Dataset, tasks: TasksSettings, weights_per_item: int
) -> HistoryTable:
    """The table of feature `name` ("cf" or "knn") on train of `dataset`, as it was fitted before, nothing chosen."""
    sessions = session_matrix(dataset.interactions, dataset.split, tasks, fit.cut)
    fitted = event_weights(name)(sessions, fit.value, fit.dropout)
    weights = less_popular(fitted, _user_counts(dataset, tasks), fit.popularity_exponent)
    return HistoryTable(truncate_weights(weights, weights_per_item), weighting, fit)


def fit_text_tables(
    dataset: Dataset, tasks: TasksSettings, text_vectors: FloatArray, states: FloatArray, validation: Queries,
    settings: CollaborativeSettings, reporter: Reporter,
) -> dict[str, HistoryTable]:  # fmt: skip
    """By feature, what texts tell: text_vectors [N, D], unit length, or the language model's states [N, W], whichever
    ranks validation better."""
    # The projection knows what goes together, the states what is alike: which counts for more depends on the texts.
    families = families_of_texts((text_vectors, _unit(states)), settings)
    return _tables(choose_weights(families, _user_counts(dataset, tasks), validation, settings, reporter), settings)


def _tables(chosen: Mapping[str, Chosen], settings: CollaborativeSettings) -> dict[str, HistoryTable]:
    return {
        name: HistoryTable(truncate_weights(each.sums.weights, settings.weights_per_item), each.sums.weighting)
        for name, each in chosen.items()
    }


def _user_counts(dataset: Dataset, tasks: TasksSettings) -> IntArray:
    """[N]: how many users had each item in train."""
    return np.diff(train_matrix(dataset.interactions, dataset.split, tasks).tocsc().indptr)


def truncate_weights(weights: csr_matrix | DenseRows, per_row: int) -> ItemWeights:
    """The `per_row` weights of greatest size of each row, without zeros."""
    lengths: list[int] = []
    indices, values = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.float32)]
    for places, row in _rows(weights):
        best = np.arange(len(row))
        if len(row) > per_row:
            best = np.sort(np.argpartition(-np.abs(row), per_row - 1)[:per_row])
        best = best[row[best] != 0]
        lengths.append(len(best))
        indices.append(places[best].astype(np.int32))
        values.append(row[best].astype(np.float32))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ItemWeights(starts, np.concatenate(indices), np.concatenate(values))


def _rows(weights: csr_matrix | DenseRows) -> Iterator[tuple[npt.NDArray[np.integer], FloatArray]]:
    """Each row's items, ascending, and their weights."""
    if isinstance(weights, DenseRows):
        everything = np.arange(weights.values.shape[1])
        known = dict(zip(weights.items.tolist(), weights.values, strict=True))
        for item in everything.tolist():
            yield (everything, known[item]) if item in known else (everything[:0], weights.values[0, :0])
        return
    weights.sort_indices()
    for start, end in zip(weights.indptr[:-1], weights.indptr[1:], strict=True):
        yield weights.indices[start:end], weights.data[start:end]


def fit_columns(dataset: Dataset, tasks: TasksSettings, states: FloatArray, half_life_days: float) -> ItemColumns:
    """Columns of every item; the language model's states [N, W] tell what to expect of cold ones."""
    interactions, split = dataset.interactions, dataset.split
    train = split.period("train")
    clicks = interactions.positives(tasks.click)[train]
    items, times = interactions.items[train][clicks], interactions.times_ms[train][clicks]
    counts = event_counts(items, dataset.item_count)
    recent = decayed_event_counts(items, times, dataset.item_count, split.valid_time_ms, half_life_days)
    return ItemColumns(
        counts,
        recent,
        expected_popularity(states, counts, split.cold_items),
        newness(dataset.published_ms, split.valid_time_ms),
    )


def _unit(vectors: FloatArray) -> FloatArray:
    """Each row with length 1; rows of zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def expected_popularity(states: FloatArray, counts: FloatArray, cold: npt.NDArray[np.bool_]) -> FloatArray:
    """[N] what a cold item's text says of log1p of its events, beyond the mean of all cold items; 0 for warm items.

    Ridge regression from the language model's states [N, W] (unit length) to log1p of the counts [N] of the items that
    have any: of the rest nobody knows whether they were there to be chosen.
    """
    known = counts > 0
    result = np.zeros(len(counts), dtype=np.float32)
    if not known.any() or not cold.any():
        return result
    states = _unit(states)
    inputs, labels = states[known].astype(np.float64), np.log1p(counts[known].astype(np.float64))
    mean = inputs.mean(axis=0)
    centred = inputs - mean
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += _RIDGE
    slope = np.linalg.solve(gram, centred.T @ (labels - labels.mean()))
    expected = (states[cold] - mean) @ slope
    result[cold] = expected - expected.mean()
    return result
