"""What of the language model learns in step 1, and how fast: `item_adaptation.method`."""

import re
from collections.abc import Callable
from typing import Any

import torch

from services.model.item_tower import ItemEncoder, ItemProjection
from services.training.base_model import load_language_model, pooling_of
from services.training.checkpoints import State
from services.training.config import TrainingSettings
from services.training.settings.item_adaptation import ItemAdaptationSettings
from services.training.start import Start, load_start

_LORA_DROPOUT = 0.05
_ALL_LINEAR = "all-linear"
"""peft's word for every linear layer, for architectures of which it names none, e.g. MPNet."""
_LANGUAGE_MODEL = "language_model."
# A transformer layer's number in a parameter's name: "encoder.layer.3." (BERT, MPNet), "layers.3." (Llama and its kin).
_LAYER = re.compile(r"\blayers?\.(\d+)\.")


def make_item_encoder(settings: TrainingSettings) -> ItemEncoder:
    """The base model as it comes, with a fresh projection: ready to be made learnable, or to take an adapted state."""
    torch.manual_seed(settings.seed)
    language_model = load_language_model(settings.base_model)
    projection = ItemProjection(language_model.config.hidden_size, settings.vector_dimension)
    return ItemEncoder(language_model, projection, pooling_of(settings.base_model))


def start_item_encoder(settings: TrainingSettings, start: Start) -> ItemEncoder:
    """The encoder that step 1 begins with."""
    encoder = make_item_encoder(settings)
    load_start(encoder.language_model, start.language_model, settings.transfer_from, "base_model")
    load_start(encoder.projection, start.projection, settings.transfer_from, "vector_dimension")
    return encoder


def load_item_encoder(settings: TrainingSettings, adapted: State) -> ItemEncoder:
    """The encoder as step 1 (`adapted`) left it, in eval mode."""
    encoder = make_item_encoder(settings)
    encoder.load_state_dict(adapted["trained"])
    return encoder.eval()


def make_learnable(language_model: Any, adaptation: ItemAdaptationSettings, seed: int) -> Any:
    """`language_model` with the weights that the method trains set to learn, all others frozen."""
    language_model.requires_grad_(adaptation.method == "full")
    if adaptation.method == "lora":
        return add_lora(language_model, adaptation.lora_rank, adaptation.lora_alpha, adaptation.lora_targets, seed)
    for name, parameter in language_model.named_parameters():
        # BERT's pooler reads the first token's state, which nothing here does.
        if name.startswith("pooler."):
            parameter.requires_grad_(False)
    return language_model


def add_lora(language_model: Any, rank: int, alpha: int, targets: list[str] | None, seed: int) -> Any:
    """`language_model` with LoRA matrices (Hu et al., 2021), everything else frozen."""
    # It takes seconds to import, and much that reads a model trains none.
    import peft

    torch.manual_seed(seed)
    named = language_model.config.model_type in peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=_LORA_DROPOUT, bias="none",
        target_modules=targets if targets is not None or named else _ALL_LINEAR,
    )  # fmt: skip
    return peft.get_peft_model(language_model, config)


def merged(language_model: Any) -> Any:
    """A plain language model again: LoRA matrices, where there are any, added to the weights beside them."""
    import peft

    return language_model.merge_and_unload() if isinstance(language_model, peft.PeftModel) else language_model


def rate_factor(encoder: ItemEncoder, adaptation: ItemAdaptationSettings) -> Callable[[str], float]:
    """A parameter's share of the language model's learning rate, by its name in `encoder`.

    The projection has a rate of its own. With layer_decay below 1 every layer of the language model learns slower than
    the one above it, the embeddings slowest (discriminative fine-tuning; Howard and Ruder, 2018).
    """
    projection = adaptation.projection_learning_rate / adaptation.language_model_rate
    layers: int = encoder.language_model.config.num_hidden_layers

    def factor(name: str) -> float:
        if not name.startswith(_LANGUAGE_MODEL):
            return projection
        layer = _LAYER.search(name)
        if layer is not None:
            return adaptation.layer_decay ** (layers - 1 - int(layer.group(1)))
        return adaptation.layer_decay**layers if "embed" in name else 1.0

    return factor
