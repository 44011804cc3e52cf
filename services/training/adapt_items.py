"""Step 1: the language model learns from co-consumption which items go together.

Two items that one user had close to each other are a pair; a softmax over the batch must find an item's partner among
the partners of all others. Popular items are partners too often, which the sampled-softmax correction (− log of how
often they are drawn; Yi et al., 2019) takes out. Only LoRA matrices and the projection learn.

Axes: M pairs, N items, W the language model's width, D vector length.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from services.model.item_tower import ItemEncoder
from services.runtime.errors import SetupError
from services.training.adversarial import Adversary
from services.training.anchor import Anchor
from services.training.base_model import autocast
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, pad_tokens, tokenise
from services.training.distributed import device, in_shares, place
from services.training.language_model import make_learnable, merged, rate_factor, start_item_encoder
from services.training.loop import Plan, train
from services.training.metrics import target_ranks
from services.training.progress import Reporter
from services.training.start import Start

IntArray = npt.NDArray[np.int64]
_STEPS_PER_ROUND = 10
_PAIRS_PER_HELD_OUT = 10
_ENCODE_BATCH = 32
Encode = Callable[[list[list[int]]], Tensor]
"""Token ids of n texts to vectors [n, D]."""


def adapt_items(
    dataset: Dataset, tokenizer: Tokenizer, settings: TrainingSettings, start: Start, partial: Partial,
    reporter: Reporter, replayed: Dataset | None = None,
) -> State:  # fmt: skip
    """The adapted encoder's state, LoRA merged, and `pooled` [N, W], its language-model states of the catalogue.

    `replayed`: the scenario of `transfer_from`, whose pairs make up `replay_share` of each batch.
    """
    encoder = start_item_encoder(settings, start)
    token_ids = tokenise(tokenizer, dataset.texts, settings.item_tokens)
    if settings.item_adaptation.method != "frozen":
        learned = [_ItemPairs(dataset, token_ids, settings)]
        if replayed is not None:
            learned.append(_ItemPairs(replayed, tokenise(tokenizer, replayed.texts, settings.item_tokens), settings))
        _train(encoder, learned, settings, partial, reporter)
    encoder.eval()
    return {"trained": encoder.state_dict(), "pooled": encode_catalogue(encoder, token_ids, settings, reporter)}


def _train(
    encoder: ItemEncoder, learned: "list[_ItemPairs]", settings: TrainingSettings, partial: Partial, reporter: Reporter
) -> None:
    """Adapt `encoder` to the pairs `learned`, those of the scenario itself first."""
    adaptation = settings.item_adaptation
    encoder.language_model = make_learnable(encoder.language_model, adaptation, settings.seed)
    anchor = Anchor(encoder.language_model, adaptation.anchor) if adaptation.anchor > 0 else None
    adversary = Adversary(encoder.language_model, adaptation) if adaptation.adversarial != "none" else None
    shares = [1 - adaptation.replay_share, adaptation.replay_share][: len(learned)]
    counts = [adaptation.batch_pairs - adaptation.replayed_pairs, adaptation.replayed_pairs][: len(learned)]

    def batches(number: int) -> Iterator[list[IntArray]]:
        generator = np.random.default_rng([settings.seed, number])
        for _ in range(_STEPS_PER_ROUND):
            yield [pairs.draw(count, generator) for pairs, count in zip(learned, counts, strict=True)]

    def encode(token_ids: list[list[int]]) -> Tensor:
        with autocast(settings.precision):
            return encoder.projection(_encode(encoder, token_ids, lambda: None))

    def encode_in_shares(token_ids: list[list[int]]) -> Tensor:
        rows = np.arange(len(token_ids))
        return in_shares(lambda rows: encode([token_ids[row] for row in rows]), rows, settings.accumulation_steps)

    def pair_loss(batch: list[IntArray]) -> Tensor:
        losses = [pairs.loss(encode_in_shares, part) for pairs, part in zip(learned, batch, strict=True)]
        return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum()

    def loss_of(batch: list[IntArray]) -> Tensor:
        loss = pair_loss(batch) if adversary is None else adversary.loss(lambda: pair_loss(batch))
        return loss if anchor is None else loss + anchor.penalty()

    plan = Plan(
        "Language model", -(-adaptation.steps // _STEPS_PER_ROUND), _STEPS_PER_ROUND, adaptation.language_model_rate,
        patience_rounds=adaptation.patience_rounds, rate_factor=rate_factor(encoder, adaptation),
    )  # fmt: skip
    own = learned[0]
    validate = (lambda: own.held_out_loss(encode)) if len(own.held_out.pairs) else None
    train(encoder, plan, batches, loss_of, partial, reporter, validate)
    encoder.language_model = merged(encoder.language_model)


class _ItemPairs:
    """One scenario's pairs of items that belong together, and how well an encoder finds them."""

    def __init__(self, dataset: Dataset, token_ids: list[list[int]], settings: TrainingSettings) -> None:
        adaptation = settings.item_adaptation
        pairs = _co_consumed_pairs(dataset, adaptation.window_events)
        self.held_out = _HeldOut(pairs, adaptation.held_out_share, settings.seed)
        self._pairs = pairs[~self.held_out.chosen[pairs].any(axis=1)]
        if len(self._pairs) == 0:
            raise SetupError(
                "training.item_adaptation: no user had two different items within window_events in train; set method "
                "to frozen"
            )
        frequency = np.bincount(self._pairs[:, 1], minlength=dataset.item_count) / len(self._pairs)
        self._log_frequency = place(np.log(np.maximum(frequency, 1e-9)).astype(np.float32))
        self._token_ids = token_ids
        self._temperature = adaptation.temperature

    def draw(self, count: int, generator: np.random.Generator) -> IntArray:
        """[count, 2] pairs."""
        return self._pairs[generator.integers(len(self._pairs), size=count)]

    def loss(self, encode: Encode, batch: IntArray) -> Tensor:
        """Of the pairs `batch` [M, 2], a scalar."""
        unique, places = np.unique(batch, return_inverse=True)
        vectors = encode([self._token_ids[item] for item in unique])[place(places.reshape(-1, 2))]
        return _pair_loss(vectors, place(batch), self._log_frequency, self._temperature)

    def held_out_loss(self, encode: Encode) -> float:
        """Of the items that are not learned from."""
        return self.held_out.loss(lambda items: encode([self._token_ids[item] for item in items]))


class _HeldOut:
    """Items that are kept out of the pairs: how well are their partners found from their texts alone?

    That is what a new item will need, and what fine-tuning loses first when it learns titles by heart.
    """

    def __init__(self, pairs: IntArray, share: float, seed: int) -> None:
        """pairs [M, 2]; `share` of the items is held out."""
        generator = np.random.default_rng(seed)
        self.chosen = np.zeros(pairs.max() + 1 if len(pairs) else 0, dtype=np.bool_)
        self.chosen[np.flatnonzero(generator.random(len(self.chosen)) < share)] = True
        usable = pairs[~self.chosen[pairs[:, 0]] & self.chosen[pairs[:, 1]]]
        order = generator.permutation(len(usable))
        # The same number of pairs for each item, however popular it is.
        ranks = _rank_within(usable[order, 1])
        self.pairs = usable[order[ranks < _PAIRS_PER_HELD_OUT]]

    @torch.inference_mode()
    def loss(self, encode: Callable[[IntArray], Tensor]) -> float:
        """Minus the mean reciprocal rank of the held-out partner among all held-out items."""
        items, places = np.unique(self.pairs, return_inverse=True)
        vectors = encode(items).float().cpu().numpy()
        anchors, partners = places.reshape(-1, 2).T
        scores = vectors[anchors] @ vectors.T
        answers = np.broadcast_to(self.chosen[items], scores.shape)
        return -float((1.0 / target_ranks(scores, partners, answers)).mean())


def _rank_within(groups: IntArray) -> IntArray:
    """[n]: how many entries of the same group stand before each entry."""
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, counts)
    return ranks


def _co_consumed_pairs(dataset: Dataset, window: int) -> IntArray:
    """[M, 2] pairs of different items, at most `window` training events apart in one user's history, both ways."""
    interactions, end = dataset.interactions, dataset.split.train_end
    order = interactions.by_user[interactions.by_user < end]
    users, items = interactions.users[order], interactions.items[order]
    found = []
    for distance in range(1, window + 1):
        same = (users[:-distance] == users[distance:]) & (items[:-distance] != items[distance:])
        pairs = np.stack([items[:-distance][same], items[distance:][same]], axis=1)
        found += [pairs, pairs[:, ::-1]]
    return np.concatenate(found)


def _pair_loss(vectors: Tensor, items: Tensor, log_frequency: Tensor, temperature: float) -> Tensor:
    """Softmax of each anchor over the batch's partners. vectors [M, 2, D], items [M, 2], log_frequency [N] → scalar."""
    anchors, partners = items.unbind(1)
    logits = vectors[:, 0] @ vectors[:, 1].T / temperature - log_frequency[partners]
    own = torch.eye(len(items), dtype=torch.bool, device=items.device)
    # The anchor itself and further copies of the right partner are no negatives.
    wrong = ((partners[None, :] == partners[:, None]) | (partners[None, :] == anchors[:, None])) & ~own
    return F.cross_entropy(logits.masked_fill(wrong, float("-inf")), torch.arange(len(items), device=items.device))


@torch.inference_mode()
def encode_catalogue(
    encoder: ItemEncoder, token_ids: list[list[int]], settings: TrainingSettings, reporter: Reporter
) -> Tensor:
    """Language-model states of all items: [N, W], on the processor, as is `encoder` before and after."""
    encoder.eval().to(device())
    with reporter.track("Item texts", -(-len(token_ids) // _ENCODE_BATCH)) as advance:
        pooled = _encode(encoder, token_ids, lambda: advance("")).cpu().clone()
    encoder.cpu()
    return pooled


def _encode(encoder: ItemEncoder, token_ids: list[list[int]], advance: Callable[[], None]) -> Tensor:
    """Language-model states of texts, those of like length together, since padding costs as much as text: [n, W]."""
    order = np.argsort([len(ids) for ids in token_ids], kind="stable")
    pooled: list[Tensor] = []
    for start in range(0, len(order), _ENCODE_BATCH):
        ids, mask = pad_tokens([token_ids[item] for item in order[start : start + _ENCODE_BATCH]])
        pooled.append(encoder.pooled(place(ids), place(mask)))
        advance()
    return torch.cat(pooled)[place(np.argsort(order))]
