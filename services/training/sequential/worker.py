"""Trains one sequential model and embeds histories with it. Runs in .venv-sequential; imports nothing of this project.

Usage: worker.py EXCHANGE RESULT (both .npz; services/training/sequential/exchange.py says what is in them).

Axes: E train events, H history events of all queries, Q queries, N items, D factors.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, HSTUModel, SASRecModel
from rectools.models.nn.transformers.base import TransformerModelBase
from rectools.models.rank import Distance

MODELS = {"sasrec": SASRecModel, "bert4rec": BERT4RecModel, "hstu": HSTUModel}
_QUERIES_AT_ONCE = 2000


def last_events(interactions: pd.DataFrame) -> np.ndarray:
    """[E]: each user's last event, on which training is stopped early."""
    return ~interactions.duplicated(Columns.User, keep="last").to_numpy()


def fit(arrays: Any, settings: dict[str, Any]) -> TransformerModelBase:
    """The model at the epoch of lowest loss on the users' last train events."""
    train = pd.DataFrame(
        {
            Columns.User: arrays["train_users"],
            Columns.Item: arrays["train_items"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(arrays["train_times_ms"], unit="ms"),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val_loss", save_weights_only=True)

        def trainer() -> Trainer:
            return Trainer(
                max_epochs=settings["epochs"],
                callbacks=[best, EarlyStopping("val_loss", patience=settings["patience"])],
                deterministic=True,
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )

        negatives = settings["gbce_negatives"]
        loss = {"loss": "softmax"} if negatives is None else {"loss": "gBCE", "n_negatives": negatives, "gbce_t": 0.75}
        model = MODELS[settings["model"]](
            n_blocks=settings["blocks"],
            n_heads=settings["heads"],
            n_factors=settings["factors"],
            dropout_rate=settings["dropout"],
            session_max_len=settings["history_events"],
            lr=settings["learning_rate"],
            batch_size=settings["batch_size"],
            get_val_mask_func=last_events,
            get_trainer_func=trainer,
            **loss,
        )
        model.fit(Dataset.construct(train))
        # RecTools copies the trainer, and its callbacks with it.
        kept = model.fit_trainer.checkpoint_callback.best_model_path
        model.lightning_model.load_state_dict(torch.load(kept, weights_only=False)["state_dict"])
        epochs, stopped = model.fit_trainer.current_epoch, Path(kept).name
    print(f"{settings['model']}: {epochs} epochs, best {stopped}", file=sys.stderr)
    return model


@torch.inference_mode()
def item_vectors(model: TransformerModelBase, count: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, D], and [N] whether the model knows the item."""
    network = model.torch_model.eval()
    vectors = network.similarity_module.item_tower_forward(network.item_model.get_all_embeddings())
    if network.similarity_module.distance == Distance.COSINE:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    items = model.data_preparator.get_known_item_ids().astype(np.int64)
    found = np.zeros((count, vectors.shape[1]), dtype=np.float32)
    found[items] = vectors[model.data_preparator.get_known_items_sorted_internal_ids()].numpy()
    return found, np.isin(np.arange(count), items)


@torch.inference_mode()
def query_vectors(model: TransformerModelBase, arrays: Any) -> np.ndarray:
    """[Q, D]; 0 where the history holds no item that the model knows."""
    network, data = model.torch_model.eval(), model.data_preparator
    embeddings = network.item_model.get_all_embeddings()
    times = arrays["query_times_ms"]
    found = np.zeros((len(times), embeddings.shape[1]), dtype=np.float32)
    history = pd.DataFrame(
        {
            Columns.User: arrays["history_queries"],
            Columns.Item: arrays["history_items"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(arrays["history_times_ms"], unit="ms"),
        }
    )
    history = history[history[Columns.Item].isin(data.get_known_item_ids())]
    for start in range(0, len(times), _QUERIES_AT_ONCE):
        part = history[history[Columns.User].between(start, min(start + _QUERIES_AT_ONCE, len(times)) - 1)]
        queries = part[Columns.User].unique()
        if len(queries) == 0:
            continue
        context = None
        if model.require_recommend_context:
            asked = pd.to_datetime(times[queries], unit="ms")
            context = pd.DataFrame({Columns.User: queries, Columns.Weight: 1.0, Columns.Datetime: asked})
        dataset = data.transform_dataset_u2i(Dataset.construct(part), queries, context)
        batches = data.get_dataloader_recommend(dataset, batch_size=256)
        states = torch.cat([network.encode_sessions(batch, embeddings)[:, -1, :] for batch in batches])
        rows = dataset.user_id_map.external_ids.astype(np.int64)
        found[rows] = network.similarity_module.session_tower_forward(states).numpy()
    return found


def main(exchange: Path, result: Path) -> None:
    """Read the exchange file, write the result."""
    arrays = np.load(exchange, allow_pickle=False)
    settings = json.loads(str(arrays["settings"]))
    warnings.simplefilter("ignore")
    torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"], workers=True)
    model = fit(arrays, settings)
    vectors, known = item_vectors(model, int(arrays["item_count"]))
    np.savez(result, query_vectors=query_vectors(model, arrays), item_vectors=vectors, known=known)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
