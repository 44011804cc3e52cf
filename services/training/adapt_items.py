"""Step 1: the language model learns from co-consumption which items go together.

First the projection alone, over the whole catalogue at once; then, with batches of items that some user had close to
each other, the language model under it.

Axes: N items, W the language model's width, D vector length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from services.model.item_tower import ItemEncoder, ItemProjection
from services.training.adversarial import Adversary
from services.training.anchor import Anchor
from services.training.base_model import autocast
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, pad_tokens, tokenise
from services.training.distributed import device, in_shares, place
from services.training.language_model import make_learnable, merged, rate_factor, start_item_encoder
from services.training.loop import Plan, train
from services.training.progress import Reporter
from services.training.relations import Relations
from services.training.start import Start

IntArray = npt.NDArray[np.int64]
_STEPS_PER_ROUND = 10
_ENCODE_BATCH = 32
_PROJECTION_ITEMS = 512
_PROJECTION_RATE = 2e-3


def adapt_items(
    dataset: Dataset, tokenizer: Tokenizer, settings: TrainingSettings, start: Start, pooled: Tensor, partial: Partial,
    reporter: Reporter, replayed: Dataset | None = None,
) -> State:  # fmt: skip
    """The adapted encoder's state, LoRA merged, and `pooled` [N, W], its language-model states of the catalogue.

    pooled [N, W]: the states of the language model that the step begins with. `replayed`: the scenario of
    `transfer_from`, whose pairs make up `replay_share` of each batch.
    """
    encoder = start_item_encoder(settings, start)
    adaptation = settings.item_adaptation
    token_ids = tokenise(tokenizer, dataset.texts, settings.item_tokens)
    frozen = adaptation.method == "frozen"
    if not frozen or adaptation.projection_steps > 0:
        own = Learned(Relations(dataset, adaptation, settings.seed), token_ids)
        if not start.projection:
            encoder.projection.start_from(pooled)
        _train_projection(encoder.projection, own.relations, pooled, settings, reporter)
        if not frozen:
            learned = [own]
            if replayed is not None:
                replayed_ids = tokenise(tokenizer, replayed.texts, settings.item_tokens)
                learned.append(Learned(Relations(replayed, adaptation, settings.seed), replayed_ids))
            _train(encoder, learned, settings, partial, reporter)
            pooled = encode_catalogue(encoder, token_ids, settings, reporter)
    encoder.eval()
    return {"trained": encoder.state_dict(), "pooled": pooled}


@dataclass(frozen=True)
class Learned:
    """A scenario that the language model learns from."""

    relations: Relations
    token_ids: list[list[int]]  # [N]


def _train_projection(
    projection: ItemProjection, relations: Relations, pooled: Tensor, settings: TrainingSettings, reporter: Reporter
) -> None:
    """Fit the projection before the language model moves, so that what it learns comes through a projection that
    already says something (linear probing before fine-tuning; Kumar et al., 2022). It takes seconds."""
    adaptation = settings.item_adaptation
    torch.manual_seed(settings.seed)
    generator = np.random.default_rng(settings.seed)
    projection.to(device())
    pooled = pooled.to(device())
    optimiser = torch.optim.AdamW(projection.parameters(), lr=_PROJECTION_RATE)
    projection.train()
    with reporter.track("Projection", adaptation.projection_steps) as advance:
        for _ in range(adaptation.projection_steps):
            items = relations.draw_items(_PROJECTION_ITEMS, generator)
            loss = relations.loss(projection(pooled[torch.from_numpy(items)]), items)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            advance(f"loss {loss.item():.3f}")
    projection.cpu().eval()


def _train(
    encoder: ItemEncoder, learned: list[Learned], settings: TrainingSettings, partial: Partial, reporter: Reporter
) -> None:
    """Adapt `encoder` to the relations of `learned`, those of the scenario itself first."""
    encoder.language_model = make_learnable(encoder.language_model, settings.item_adaptation, settings.seed)
    plan, batches, loss_of = relation_training(encoder, learned, settings)
    own, held_out = learned[0], learned[0].relations.held_out
    validate = (lambda: held_out.loss(_vectors(encoder, own, settings))) if len(held_out.pairs) else None
    train(encoder, plan, batches, loss_of, partial, reporter, validate)
    encoder.language_model = merged(encoder.language_model)


def _vectors(encoder: ItemEncoder, part: Learned, settings: TrainingSettings) -> Callable[[IntArray], Tensor]:
    """What makes vectors [B, D] of items [B], in the precision of training."""

    def vectors(items: IntArray) -> Tensor:
        with autocast(settings.precision):
            states = _encode(encoder, [part.token_ids[item] for item in items], lambda: None)
            return encoder.projection(states).float()

    return vectors


def relation_training(
    encoder: ItemEncoder, learned: list[Learned], settings: TrainingSettings
) -> tuple[Plan, Callable[[int], Iterator[list[IntArray]]], Callable[[list[IntArray]], Tensor]]:
    """Plan, batches and loss for `loop.train`. A batch is the different items [B] of each of `learned`."""
    adaptation = settings.item_adaptation
    anchor = Anchor(encoder.language_model, adaptation.anchor) if adaptation.anchor > 0 else None
    adversary = Adversary(encoder.language_model, adaptation) if adaptation.adversarial != "none" else None
    shares = [1 - adaptation.replay_share, adaptation.replay_share][: len(learned)]
    counts = [adaptation.batch_pairs - adaptation.replayed_pairs, adaptation.replayed_pairs][: len(learned)]

    def batches(number: int) -> Iterator[list[IntArray]]:
        generator = np.random.default_rng([settings.seed, number])
        for _ in range(_STEPS_PER_ROUND):
            yield [part.relations.draw_pairs(count, generator) for part, count in zip(learned, counts, strict=True)]

    vectors_of = [_vectors(encoder, part, settings) for part in learned]

    def relation_loss(batch: list[IntArray]) -> Tensor:
        losses = [
            share * part.relations.loss(in_shares(vectors, items, settings.accumulation_steps), items)
            for share, part, vectors, items in zip(shares, learned, vectors_of, batch, strict=True)
        ]
        return torch.stack(losses).sum()

    def loss_of(batch: list[IntArray]) -> Tensor:
        loss = relation_loss(batch) if adversary is None else adversary.loss(lambda: relation_loss(batch))
        return loss if anchor is None else loss + anchor.penalty()

    plan = Plan(
        "Language model", -(-adaptation.steps // _STEPS_PER_ROUND), _STEPS_PER_ROUND, adaptation.language_model_rate,
        patience_rounds=adaptation.patience_rounds, rate_factor=rate_factor(encoder, adaptation),
    )  # fmt: skip
    return plan, batches, loss_of


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
