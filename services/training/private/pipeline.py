"""An adaptation that is differentially private for users: what learns, learns by DP-SGD; what cannot, is not there.

texts → the base model, as it came → principal components of the catalogue → item vectors      (public)
users' events → user tower (DP-SGD), item counts (Gaussian mechanism)                          (within ε)
weights of the scorer's parts, calibration                                                      (set beforehand)
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.model.collaborative import HistoryWeighting, ItemColumns, ItemWeights, newness
from services.model.scorer import Scorer
from services.runtime.bundle import PrivacyInfo
from services.runtime.errors import SetupError
from services.training.checkpoints import State, state_key
from services.training.distributed import process_count
from services.training.features import FeatureTables, HistoryTable, truncate_weights
from services.training.item_to_item import text_weights
from services.training.language_model import start_item_encoder
from services.training.pipeline import Adaptation
from services.training.private.accounting import ACCOUNTANT, Spending, plan_spending
from services.training.private.popularity import noisy_counts, user_counts
from services.training.private.scorer import fixed_scorer
from services.training.private.train_users import make_private_towers, train_private_users
from services.training.settings.privacy import PrivacySettings
from services.training.split import first_clicks
from services.training.start import Start
from services.training.train_users import Towers

_VERSION = 1
_DECAY = 0.9
"""Of the nearness by text over a history."""

COVERED = [
    "triton/", "trainable.safetensors", "items.parquet", "item_vectors.npy", "text_vectors.npy", "index.faiss",
    "history_*.npz", "calibration", "method.scorer_part_weights",
]  # fmt: skip
"""Of the bundle: private under ε, or not computed from users' events."""
NOT_COVERED = [
    "metrics", "split", "columns_time_ms", "data_fingerprint", "model_version", "method.baseline_settings",
    "method.differences", "method.evaluation_queries",
]  # fmt: skip
"""Of the manifest: computed from users' events without noise. Nothing that is served reads them but the time."""
PUBLIC = ["items table", "number of users", "time at which train ends (split.valid_time_ms)"]
"""What ε takes for known."""


class PrivateAdaptation(Adaptation):
    """Attributes are steps, as in Adaptation."""

    @property
    def _privacy(self) -> PrivacySettings:
        assert self.settings.privacy is not None
        return self.settings.privacy

    def key(self, *sections: str) -> str:
        """As in Adaptation; everything depends on the budget."""
        return state_key([super().key(*sections), self._privacy.model_dump(mode="json"), _VERSION])

    @cached_property
    def spending(self) -> Spending:
        """What is read, and with how much noise. SetupError when the settings do not allow it."""
        if process_count() > 1:
            raise SetupError("training.privacy: it learns in one process; start `recmesh adapt` without torchrun")
        return plan_spending(self._privacy, len(self.dataset.interactions.user_ids))

    @cached_property
    def adapted(self) -> State:
        """The base model as it came, under a projection to the catalogue's principal components."""
        _ = self.spending

        def work(_: Any) -> State:
            encoder = start_item_encoder(self.settings, Start())
            pooled = self.frozen_states
            encoder.projection.start_from(pooled)
            return {"trained": encoder.eval().state_dict(), "pooled": pooled, "users": {}}

        return self.checkpoints.run("language-model", self.key("item_adaptation"), work)

    @cached_property
    def towers(self) -> Towers:
        """The user tower by DP-SGD, over vectors that stand still."""

        def work(partial: Any) -> State:
            clicks = first_clicks(self.dataset.interactions, self.tasks)
            return train_private_users(
                self.dataset, clicks, self.settings, self.adapted, self.spending, partial, self.reporter
            )

        state = self.checkpoints.run("user-tower", self.key("item_adaptation", "user_tower"), work)
        towers = make_private_towers(self.dataset, self.settings, self.adapted)
        towers.users.load_state_dict(state["users"])
        towers.log_scale.data.copy_(state["log_scale"])
        return towers.eval()

    @cached_property
    def event_tables(self) -> dict[str, HistoryTable]:
        """Without a weight: who had what together is not told."""
        count = self.dataset.item_count
        nothing = ItemWeights(np.zeros(count + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        return {name: HistoryTable(nothing, HistoryWeighting(_DECAY)) for name in ("cf", "knn")}

    @cached_property
    def popularity(self) -> Tensor:
        """[N]: the noisy counts; zeros when there are none."""
        noise = self.spending.popularity_noise_multiplier

        def work(_: Any) -> State:
            if noise is None:
                return {"counts": torch.zeros(self.dataset.item_count)}
            counts = user_counts(self.dataset, first_clicks(self.dataset.interactions, self.tasks))
            return {"counts": torch.from_numpy(noisy_counts(counts, noise))}

        counts: Tensor = self.checkpoints.run("features", self.key("collaborative"), work)["counts"]
        return counts

    @cached_property
    def tables(self) -> FeatureTables:
        """What texts tell, and the noisy counts."""
        chosen, dataset = self.settings.collaborative, self.dataset
        texts = text_weights(self.frozen_vectors, chosen.neighbours)
        text = HistoryTable(truncate_weights(texts, chosen.weights_per_item), HistoryWeighting(_DECAY))
        nothing = np.zeros(dataset.item_count, np.float32)
        columns = ItemColumns(
            self.popularity.numpy(), nothing, nothing, newness(dataset.published_ms, dataset.split.valid_time_ms)
        )
        return FeatureTables({**self.event_tables, "text": text}, columns, chosen.history_events)

    @cached_property
    def scorer(self) -> Scorer:
        """Its weights are set, not learned."""
        return fixed_scorer(self.settings, self.tasks, self.towers.scale().item(), self.popularity.numpy())

    @property
    def privacy_info(self) -> PrivacyInfo:
        """What a bundle may say of its privacy."""
        spending, chosen = self.spending, self._privacy
        return PrivacyInfo(
            epsilon=spending.epsilon(chosen.delta),
            delta=chosen.delta,
            accountant=ACCOUNTANT,
            noise_multiplier=spending.noise_multiplier,
            clip_norm=chosen.clip_norm,
            sample_rate=spending.sample_rate,
            steps=spending.steps,
            popularity_noise_multiplier=spending.popularity_noise_multiplier,
            users=spending.users,
            covered=COVERED,
            not_covered=NOT_COVERED,
            public=PUBLIC,
        )
