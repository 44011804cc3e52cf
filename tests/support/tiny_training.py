"""A tiny scenario to train on: tables with a plain taste in them, randomly initialised language models that know their
words, and settings with which every step takes a second or less."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
)

from services.training.tables import EVENTS, ITEMS, USERS, Tables, write_tables

ITEMS_COUNT, USERS_COUNT, EVENTS_PER_USER = 40, 60, 14
HOUR_MS = 3_600_000
WORDS = ("red", "blue", "film", "book", *(f"number{n}" for n in range(ITEMS_COUNT)))


HEAD = {
    "description": "Tiny things.",
    "events": ["rating"],
    "tasks": {
        "click": {"events": ["rating"]},
        "conversion": {"events": ["rating"], "min_value": 4},
        "rating": {"events": ["rating"], "min": 1, "max": 5},
    },
}
"""The head of a scenario file for the tables."""


def small_training(base_model: Path, **changes: Any) -> dict[str, Any]:
    """A section `training` in which `changes` replace settings and whole sections. What the size of the catalogue
    limits (negatives, candidates, neighbours) has its default."""
    return {
        "base_model": str(base_model),
        "threads": 1,
        "vector_dimension": 16,
        "history_length": 8,
        "item_tokens": 16,
        "validation_queries": 40,
        "item_adaptation": {"steps": 10, "batch_pairs": 16, "lora_rank": 2},
        "user_tower": {"epochs": 2, "layers": 1},
        "scorer": {"width": 8, "train_events": 200, "epochs": 1, "batch_events": 64, "fusion_queries": 40},
        "reranker": {
            "steps": 10, "batch_histories": 2, "lora_rank": 2, "history_events": 3, "history_tokens": 24,
            "item_tokens": 12, "fusion_queries": 20, "evaluation_queries": 20,
        },
        **changes,
    }  # fmt: skip


def write_scenarios(path: Path, **training: dict[str, Any]) -> Path:
    """Write a scenario file of HEAD with each scenario's section `training`. Returns `path`."""
    scenarios = {name: {**HEAD, "training": section} for name, section in training.items()}
    path.write_text(yaml.safe_dump({"scenarios": scenarios}))
    return path


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_base_model(folder: Path) -> None:
    """A BERT of 2 layers that knows WORDS."""
    tokenizer = _tokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    _save_tokenizer(tokenizer, dict(zip(names, SPECIAL, strict=True)), folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    _draw(BertModel, config).save_pretrained(folder)


def make_mpnet(folder: Path) -> None:
    """An MPNet of 2 layers that knows WORDS; peft names no linear layers of it."""
    make_base_model(folder)
    config = MPNetConfig(
        vocab_size=_tokenizer().get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    _draw(MPNetModel, config).save_pretrained(folder)


def make_decoder(folder: Path) -> None:
    """A Llama of 2 layers that knows WORDS. Like its kin its tokenizer adds no special token of its own."""
    tokenizer = _tokenizer()
    _save_tokenizer(tokenizer, {"unk_token": "[UNK]", "eos_token": "[SEP]"}, folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=128, tie_word_embeddings=True,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    _draw(LlamaForCausalLM, config).save_pretrained(folder)


def _draw(kind: Any, config: Any) -> Any:
    """A model of random weights, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config)


def _tokenizer() -> Tokenizer:
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _save_tokenizer(tokenizer: Tokenizer, special: dict[str, str], folder: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def make_tables(folder: Path) -> None:
    """Half the users like red things, half blue ones; two items never occur in train."""
    generator = np.random.default_rng(0)
    colours = ["red", "blue"]
    items = pa.table(
        {
            "item_id": [f"i{item}" for item in range(ITEMS_COUNT)],
            "title": [f"number{item}" for item in range(ITEMS_COUNT)],
            "categories": [[colours[item % 2], "film" if item % 4 < 2 else "book"] for item in range(ITEMS_COUNT)],
        }
    )
    rows = []
    for user in range(USERS_COUNT):
        for event, item in enumerate(generator.choice(ITEMS_COUNT // 2 - 1, EVENTS_PER_USER, replace=False)):
            time = (user * 20 + event * 3) * HOUR_MS
            rows.append(
                (f"e{user}-{event}", f"u{user}", f"i{2 * item + user % 2}", float(1 + (item + event) % 5), time)
            )
    columns = list(zip(*rows, strict=True))
    events = {
        "event_id": columns[0], "user_id": columns[1], "item_id": columns[2], "event": ["rating"] * len(rows),
        "value": columns[3], "event_time": pa.array(columns[4], pa.timestamp("ms", "UTC")),
    }  # fmt: skip
    users = {"user_id": [f"u{user}" for user in range(USERS_COUNT)]}

    def complete(values: pa.Table, schema: pa.Schema) -> pa.Table:
        have = set(values.column_names)
        columns = [values[f.name] if f.name in have else pa.nulls(values.num_rows, f.type) for f in schema]
        return pa.table(columns, names=schema.names).cast(schema)

    write_tables(
        folder,
        Tables(
            items=complete(items, ITEMS),
            users=complete(pa.table(users), USERS),
            events=complete(pa.table(events), EVENTS),
        ),
    )
