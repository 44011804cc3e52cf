"""Step 0: the language model reads the catalogue (domain-adaptive pre-training; Gururangan et al., 2020).

Encoders guess masked tokens (BERT's objective; Devlin et al., 2019) through a head tied to the input embeddings, fresh
where the base model comes without one, as sentence encoders do. Decoders guess the next token. All weights learn.

Axes: B texts, T tokens, V vocabulary.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from services.runtime.errors import SetupError
from services.training.base_model import (
    autocast,
    is_causal,
    load_full_tokenizer,
    load_language_model,
    load_with_head,
)
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, tokenise
from services.training.distributed import device, in_shares
from services.training.loop import Plan, train
from services.training.progress import Reporter
from services.training.start import Start, load_start

_STEPS_PER_ROUND = 50
_HELD_OUT_SHARE = 0.1
_VALIDATION_SEED = 0
# What cross-entropy and the collator leave out.
_IGNORED = -100
Batch = dict[str, Tensor]


def pretrain(
    dataset: Dataset, tokenizer: Tokenizer, settings: TrainingSettings, start: Start, partial: Partial,
    reporter: Reporter,
) -> State:  # fmt: skip
    """The language model's state after it has read the texts that train may know."""
    chosen = settings.pretraining
    language_model = load_language_model(settings.base_model)
    load_start(language_model, start.language_model, settings.transfer_from, "base_model")
    torch.manual_seed(settings.seed)
    model = load_with_head(settings.base_model)
    model.base_model.load_state_dict(language_model.state_dict(), strict=False)
    texts = [dataset.texts[item] for item in known_items(dataset)]
    learned, held_out = _split(tokenise(tokenizer, texts, settings.item_tokens), settings.seed)
    task = _Task(settings)
    steps = min(_STEPS_PER_ROUND, chosen.steps)

    def batches(number: int) -> Iterator[Batch]:
        generator = np.random.default_rng([settings.seed, number])
        for _ in range(steps):
            rows = generator.integers(len(learned), size=chosen.batch_items)
            yield task.batch([learned[row] for row in rows], int(generator.integers(2**31)))

    def loss_of(batch: Batch) -> Tensor:
        ids, mask, labels = (batch[name].to(device()) for name in ("input_ids", "attention_mask", "labels"))

        def losses_of(rows: npt.NDArray[np.int64]) -> Tensor:
            with autocast(settings.precision):
                logits = model(input_ids=ids[rows], attention_mask=mask[rows]).logits.float()
            losses = F.cross_entropy(logits.transpose(1, 2), labels[rows], ignore_index=_IGNORED, reduction="none")
            return losses.sum(dim=1)

        total = in_shares(losses_of, np.arange(len(ids)), settings.accumulation_steps).sum()
        # A batch of short texts may happen to have nothing masked.
        return total / (labels != _IGNORED).sum().clamp(min=1)

    @torch.inference_mode()
    def validate() -> float:
        parts = [held_out[row : row + chosen.batch_items] for row in range(0, len(held_out), chosen.batch_items)]
        losses = [loss_of(task.batch(part, _VALIDATION_SEED)).item() * len(part) for part in parts]
        return sum(losses) / len(held_out)

    plan = Plan("Read the catalogue", -(-chosen.steps // steps), steps, chosen.learning_rate)
    train(model, plan, batches, loss_of, partial, reporter, validate if held_out else None)
    language_model.load_state_dict(model.base_model.state_dict(), strict=False)
    return dict(language_model.state_dict())


def known_items(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Items whose text may be read: all but those that first occur after train, which were not there yet."""
    interactions, end = dataset.interactions, dataset.split.train_end
    later = np.setdiff1d(interactions.items[end:], interactions.items[:end])
    return np.setdiff1d(np.arange(dataset.item_count), later)


def _split(token_ids: list[list[int]], seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Texts to learn from, and those on which the state to keep is chosen."""
    order = np.random.default_rng(seed).permutation(len(token_ids))
    held_out = int(len(order) * _HELD_OUT_SHARE)
    return [token_ids[row] for row in order[held_out:]], [token_ids[row] for row in order[:held_out]]


class _Task:
    """What of a text is to be guessed."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._masked = not is_causal(settings.base_model)
        self._mask_share = settings.pretraining.mask_share
        if not self._masked and "mask_share" in settings.pretraining.model_fields_set:
            raise SetupError(
                f"training.pretraining.mask_share has no effect with {settings.base_model}, which predicts the next "
                "token; remove it"
            )
        self._tokenizer = load_full_tokenizer(settings.base_model)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def batch(self, token_ids: list[list[int]], seed: int) -> Batch:
        """input_ids, attention_mask and labels [B, T], labels being what the state of each place has to guess."""
        collate = DataCollatorForLanguageModeling(
            self._tokenizer, mlm=self._masked, mlm_probability=self._mask_share, seed=seed
        )
        batch: Batch = dict(collate([{"input_ids": ids} for ids in token_ids]))
        if not self._masked:
            # Each place guesses the token after it; none comes after the last.
            batch["labels"] = F.pad(batch["labels"][:, 1:], (0, 1), value=_IGNORED)
        return batch
