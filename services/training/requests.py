"""The scorer's inputs for evaluation queries, exactly as the services build them for a request.

Axes: Q queries, N items, C candidates, D vector length, F features.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.training.dataset import Dataset, Histories, query_histories
from services.training.features import FeatureTables
from services.training.metrics import top_items
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Requests:
    """Builds requests over the whole catalogue, or over given candidates."""

    def __init__(
        self,
        dataset: Dataset,
        item_vectors: FloatArray,
        tables: FeatureTables,
        encode_users: Callable[[Histories], FloatArray],
        history_length: int,
    ) -> None:
        """item_vectors [N, D]; encode_users gives [Q, D] for histories, 0 where there is none."""
        self._dataset = dataset
        self.item_vectors = item_vectors
        self._tables = tables
        self._encode_users = encode_users
        self._history_length = history_length

    def user_vectors(self, queries: Queries) -> FloatArray:
        """[Q, D]."""
        return self._encode_users(query_histories(self._dataset, queries, self._history_length))

    def retrieve(self, queries: Queries, count: int) -> IntArray:
        """[Q, count]: the items nearest to each user that they have not had, nearest first; -1 where there are none."""
        best = top_items(self.user_vectors(queries) @ self.item_vectors.T, queries.unseen(), count)
        return best.astype(np.int64)

    def features(self, queries: Queries) -> FloatArray:
        """[Q, N, F]."""
        return self._tables.compute(queries)

    def arrays(self, queries: Queries, candidates: IntArray | None = None) -> dict[str, npt.NDArray[np.generic]]:
        """The scorer's inputs by name. candidates [Q, C]; None: every item."""
        histories = query_histories(self._dataset, queries, self._history_length)
        features = self.features(queries)
        if candidates is None:
            vectors = np.broadcast_to(self.item_vectors, (len(queries), *self.item_vectors.shape))
        else:
            vectors = self.item_vectors[candidates]
            features = np.take_along_axis(features, candidates[..., None], axis=1)
        return {
            "user_vector": self._encode_users(histories),
            **histories.inputs(self.item_vectors),
            "candidate_vectors": np.ascontiguousarray(vectors),
            "features": features,
        }

    def tensors(self, queries: Queries, candidates: IntArray | None = None) -> dict[str, Tensor]:
        """The same as tensors."""
        return {name: torch.from_numpy(array) for name, array in self.arrays(queries, candidates).items()}
