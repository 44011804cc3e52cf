"""How much of a bundle's quality is lost when the texts of its items are attacked.

Attacked texts go through the exported item encoder to new item vectors, which take the place of the bundle's in
histories and candidates alike. So every item, warm ones too, has its text vector only; what that alone costs is shown
beside, and the attacks' losses are counted from there. Weights between items, popularity and the rest stay as they are.

Axes: Q queries, N items, D vector length.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from services.runtime.bundle import Bundle
from services.runtime.config import Settings
from services.runtime.scenario import BlendSettings
from services.training.bootstrap import UserBootstrap
from services.training.dataset import Dataset, tokenise
from services.training.export import part_path
from services.training.exported import FullModel, encode_texts
from services.training.full_model import bundle_texts, open_full_model
from services.training.metrics import ndcg_at_10
from services.training.progress import Reporter
from services.training.split import Queries
from services.training.text_attacks import Attack, keyword_stuffing, paraphrase, typos
from services.training.train_users import train_item_counts

FloatArray = npt.NDArray[np.float32]
AS_SERVED = "as served"
CLEAN = "text vectors"
_BATCH = 64
_SEED = 0
_TYPO_SHARE = 0.3
_STUFFED_WORDS = 10
_STUFFED_SHARE = 0.5


class RobustnessRow(Settings):
    """One attack on one slice of the queries."""

    attack: str
    """What was done to the texts; "as served": nothing, with the bundle's own item vectors; "text vectors": nothing."""
    slice: str
    """"all" or "cold_items"."""
    queries: int
    """How many."""
    ndcg: float
    """NDCG@10."""
    loss: float
    """NDCG@10 lost against the same vectors from clean texts."""
    low: float
    """Lower end of the loss's 95 % bootstrap interval over users."""
    high: float
    """Upper end."""

    @property
    def loss_share(self) -> float:
        """The loss as a share of what clean texts reach."""
        clean = self.ndcg + self.loss
        return self.loss / clean if clean > 0 else 0.0


def attacks_on(dataset: Dataset) -> dict[str, Attack]:
    """By name."""
    popularity = train_item_counts(dataset)
    return {
        "typos": typos(_TYPO_SHARE, _SEED),
        "paraphrase": paraphrase,
        "keyword stuffing": keyword_stuffing(popularity.tolist(), _STUFFED_WORDS, _STUFFED_SHARE, _SEED),
    }


def measure_robustness(
    bundle: Bundle, dataset: Dataset, queries: Queries, weights: BlendSettings, threads: int, reporter: Reporter
) -> list[RobustnessRow]:
    """Rows of each attack, over all of `queries` and over those whose item is cold."""
    texts = bundle_texts(bundle)
    found: dict[str, FloatArray] = {}
    versions: dict[str, list[str] | None] = {AS_SERVED: None, CLEAN: texts}
    versions |= {name: attack(texts) for name, attack in attacks_on(dataset).items()}
    with reporter.track("Robustness", len(versions) * -(-len(queries) // _BATCH)) as advance:
        for name, version in versions.items():
            vectors = None if version is None else _vectors(bundle, version, threads)
            model = open_full_model(bundle, dataset, weights, threads, item_vectors=vectors)
            parts = []
            for batch in queries.batches(_BATCH):
                parts.append(_ndcg(model, batch))
                advance(name)
            found[name] = np.concatenate(parts)
    return _rows(found, queries, dataset.split.cold_items[queries.targets])


def _vectors(bundle: Bundle, texts: list[str], threads: int) -> FloatArray:
    """[N, D]: what the bundle's item encoder makes of `texts`, as of new items'."""
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    token_ids = tokenise(tokenizer, texts, bundle.manifest.item_tokens)
    return encode_texts(part_path(bundle.triton_path, "item_encoder"), token_ids, threads)


def _ndcg(model: FullModel, queries: Queries) -> FloatArray:
    """[Q]: NDCG@10."""
    return ndcg_at_10(model.scores(queries), queries.targets, queries.unseen()).astype(np.float32)


def _rows(found: Mapping[str, FloatArray], queries: Queries, cold: npt.NDArray[np.bool_]) -> list[RobustnessRow]:
    rows = []
    for name, chosen in (("all", np.ones_like(cold)), ("cold_items", cold)):
        if not chosen.any():
            continue
        bootstrap = UserBootstrap(queries.users[chosen])
        for attack, ndcg in found.items():
            loss = bootstrap.mean(found[CLEAN][chosen] - ndcg[chosen])
            rows.append(
                RobustnessRow(
                    attack=attack,
                    slice=name,
                    queries=int(chosen.sum()),
                    ndcg=float(ndcg[chosen].mean()),
                    loss=loss.value,
                    low=loss.low,
                    high=loss.high,
                )
            )
    return rows
