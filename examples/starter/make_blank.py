"""Make the starter model's folder before it has learned anything: tokenizer and configuration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from values import COMMON_CHARACTERS

VOCABULARY = 8192
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen splits text before byte pairs are merged, so that every converter knows it."""
TRAINED_ON = 150_000
"""Rows the tokenizer is trained on."""
CHARACTER_WEIGHT = 400
"""Times each common Chinese character is shown alone, so that each becomes a token."""
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 544,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}


def main() -> None:
    """Train the tokenizer on the corpus and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(_texts(options.corpus)).save(str(options.folder / "tokenizer.json"))
    template = Path(__file__).with_name("chat_template.jinja").read_text("utf-8")
    (options.folder / "chat_template.jinja").write_text(template, "utf-8")
    _write(options.folder / "tokenizer_config.json", _tokenizer_config(template))
    _write(options.folder / "config.json", CONFIG)
    _write(options.folder / "generation_config.json", {"eos_token_id": [2, 0], "pad_token_id": 0})


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Train a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(corpus: Path) -> Iterator[str]:
    for character in COMMON_CHARACTERS:
        yield from [character] * CHARACTER_WEIGHT
    for name in ("texts.jsonl", "chats.jsonl"):
        with (corpus / name).open(encoding="utf-8") as file:
            for _, line in zip(range(TRAINED_ON), file, strict=False):
                row = json.loads(line)
                yield row["text"] if "text" in row else _join(row["messages"])


def _join(messages: list[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


def _tokenizer_config(template: str) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
