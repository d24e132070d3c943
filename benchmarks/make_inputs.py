"""Make what every contender trains on: models A, B and C with random weights, and the rows.

    python benchmarks/make_inputs.py SHARED_FOLDER OUTPUT_FOLDER

A is 256 wide, 4 layers, vocabulary 8,192 (5 million weights); B 512 wide, 8 layers, vocabulary
151,936 (109 million); C has the shape of Qwen3-0.6B (596 million); D, the shape of Qwen3-4B, is
made where there is a GPU. Rows are the Chinese and English sets alpaca_zh_demo and alpaca_en_demo,
shuffled with a fixed seed; preferences are dpo_zh_demo and dpo_en_demo.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SETS = ("alpaca_zh_demo", "alpaca_en_demo")
PAIRS = ("dpo_zh_demo", "dpo_en_demo")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPES: dict[str, dict[str, int]] = {
    "A": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 768,
    },
    "B": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 1536,
    },
    "C": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
    },
    "D": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 9728,
    },
}
VOCABULARY = {"A": (8_192, 8_192), "B": (30_000, 151_936), "C": (30_000, 151_936)}
"""Tokens learned from the rows, and tokens of the model; the rest are made up."""


def main() -> None:
    """Write models/A, B and C, rows.json in alpaca's form, pairs.json in sharegpt's."""
    shared, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for name in SETS for row in _read(shared, name)]
    Random(0).shuffle(rows)
    rows = [
        {
            "instruction": "\n".join(filter(None, (row["instruction"], row.get("input", "")))),
            "input": "",
            "output": row["output"],
        }
        for row in rows
        if row["instruction"] and row["output"]
    ]
    pairs = [row for name in PAIRS for row in _read(shared, name)]
    Random(0).shuffle(pairs)
    for name, value in (("rows", rows), ("pairs", pairs)):
        _write(folder / f"{name}.json", value)
    texts = [text for row in rows for text in (row["instruction"], row["output"])]
    for size in sorted(set(VOCABULARY.values())):
        tokenizer = _train_tokenizer(texts, *size)
        for name in (name for name, wanted in VOCABULARY.items() if wanted == size):
            write_model(folder / "models" / name, SHAPES[name], tokenizer)


def _read(shared: Path, name: str) -> list[dict[str, Any]]:
    found = sorted(shared.rglob(f"{name}.json"))
    if not found:
        raise SystemExit(f"{shared} holds no {name}.json")
    rows: list[dict[str, Any]] = json.loads(found[0].read_text("utf-8"))
    return rows


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def _train_tokenizer(texts: list[str], learned: int, whole: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=learned,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for number in range(len(vocabulary), whole):
        vocabulary[f"<dummy_{number}>"] = number
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=32_768,
    )
    fast.chat_template = TEMPLATE
    return fast


def write_model(
    folder: Path,
    shape: dict[str, int],
    tokenizer: PreTrainedTokenizerFast,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> None:
    """Write a model of random weights with its tokenizer."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **shape,
    )
    with torch.device(device):
        model = Qwen3ForCausalLM(config)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
