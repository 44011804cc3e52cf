"""Beginning from what another scenario has learned, and what that scenario would lose by it."""

import torch
from torch import Tensor

from services.training.checkpoints import State
from services.training.dataset import Dataset, query_histories
from services.training.metrics import ndcg_at_10
from services.training.split import Queries
from services.training.start import Start
from services.training.train_users import Towers


def start_from(adapted: State, towers: Towers) -> Start:
    """What a scenario has learned: its language model (step 1), projection and user encoder (step 2)."""
    prefix = "language_model."
    language_model = {
        name.removeprefix(prefix): value for name, value in adapted["trained"].items() if name.startswith(prefix)
    }
    return Start(language_model, dict(towers.items.projection.state_dict()), dict(towers.users.state_dict()))


@torch.inference_mode()
def text_quality(dataset: Dataset, validation: Queries, towers: Towers, pooled: Tensor, history_length: int) -> float:
    """NDCG@10 of a scenario's towers on validation when every item has only its text vector, as new items have.

    pooled [N, W]: some language model's states of the scenario's catalogue.
    """
    towers.eval()
    histories = query_histories(dataset, validation, history_length)
    users = towers.user_vectors(histories, towers.item_vectors())
    scores = (users @ towers.items.projection(pooled).T).numpy()
    return float(ndcg_at_10(scores, validation.targets, validation.unseen()).mean())
