"""Item vectors of the language model as it comes, before any adaptation: the baseline `frozen_text`.

Axes: N items, W the language model's width.
"""

import numpy as np
import numpy.typing as npt
from torch.nn.functional import normalize

from services.model.item_tower import ItemEncoder, ItemProjection
from services.training.adapt_items import encode_catalogue
from services.training.base_model import load_language_model, load_tokenizer
from services.training.config import TrainingSettings
from services.training.dataset import tokenise
from services.training.progress import Reporter


def frozen_text_vectors(texts: list[str], settings: TrainingSettings, reporter: Reporter) -> npt.NDArray[np.float32]:
    """Mean-pooled states of `settings.base_model` over the texts [N], unit length: [N, W]."""
    language_model = load_language_model(settings.base_model)
    # The projection is part of the encoder but not of its pooled states.
    projection = ItemProjection(language_model.config.hidden_size, settings.vector_dimension)
    token_ids = tokenise(load_tokenizer(settings.base_model), texts, settings.item_tokens)
    pooled = encode_catalogue(ItemEncoder(language_model, projection), token_ids, settings, reporter)
    vectors: npt.NDArray[np.float32] = normalize(pooled, dim=-1).numpy()
    return vectors
