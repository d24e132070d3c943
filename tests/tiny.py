"""Tiny real models and data, made on the spot with fixed seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from tests import families
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.templates import named_template
from tunesmith.training.train import train

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "question and answer, what is it? It is 0 1 2 3 4 5 6 7 8 9.",
    "user assistant system the quick brown fox jumps over the lazy dog",
    "你好 请问 营业时间 是 什么 早上 九点 到 晚上 十点 海螺 汉堡 多少钱",
]
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {
        "model_type": "qwen3",
        "head_dim": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": False},
    "llama": {"model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": False},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}
FAMILIES: dict[str, dict[str, Any]] = {
    **SHAPES,
    "untied": {**SHAPES["qwen3"], "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 6},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 16,
        "num_key_value_heads": 2,
        "sliding_window": 6,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 16,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "num_key_value_heads": 1,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "routed": {
        "model_type": "mixtral",
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "glm": {"model_type": "glm", "head_dim": 16, "num_key_value_heads": 2},
    "cohere": {"model_type": "cohere", "num_key_value_heads": 2, "logit_scale": 0.25},
    "granite": {"model_type": "granite", "num_key_value_heads": 2, "logits_scaling": 4.0},
    "mixture": {
        "model_type": "qwen3_moe",
        "head_dim": 16,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 1,
    },
}
"""Shapes that ask something else of attention, of the head or of the layers."""
PADDED: dict[str, dict[str, Any]] = {
    "balanced": {
        "model_type": "mixtral",
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "output_router_logits": True,
    },
    "masked": {
        "model_type": "qwen2_moe",
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 0,
    },
    "mamba": {"model_type": "mamba", "state_size": 8},
    "bloom": {"model_type": "bloom", "n_head": 4, "n_layer": 2},
    "linear": {
        "model_type": "qwen3_next",
        "head_dim": 16,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
}
"""Shapes whose rows cannot lie end to end."""
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def make_model(
    folder: Path,
    shape: str = "qwen3",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    template: str | None = "chatml",
    **changes: Any,
) -> Path:
    """Write a model folder with random weights and a tokenizer trained on a few words."""
    make_tokenizer(folder, template)
    options = {
        **COMMON,
        **{**FAMILIES, **PADDED, **families.FAMILIES}[shape],
        "vocab_size": 400,
        **changes,
    }
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(str(folder))
    return folder


def make_tokenizer(folder: Path, template: str | None = "chatml") -> None:
    """Train a byte-level BPE of 400 tokens and write its files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    if template:
        config["chat_template"] = named_template(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def write_pairs(path: Path, count: int = 40, start: int = 0) -> Path:
    """Write questions and answers in alpaca form."""
    rows = [
        {"instruction": f"question {n}", "input": "", "output": f"It is {n * 7}."}
        for n in range(start, start + count)
    ]
    return write_rows(path, rows)


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def write_recipe(path: Path, model: Path | str, data: Path | str, /, **sections: Any) -> Path:
    """Write a recipe that trains in a second or two."""
    recipe: dict[str, Any] = {
        "model": {"name": str(model)},
        "data": {"train": [str(data)], "max_tokens": 64},
        "optimizer": {"learning_rate": 1e-2, "batch_size": 4},
        "compute": {"precision": "fp32", "threads": 1},
        "evaluate": {"sample_rows": 1, "sample_tokens": 8},
        "run": {"name": "tiny", "steps": 8, "seed": 1},
    }
    for section, options in sections.items():
        recipe[section] = {**recipe.get(section, {}), **options}
    path.write_text(json.dumps(recipe), "utf-8")
    return path


def make_cache_entry(hub: Path, name: str, model: Path, *, revision: str = "0a1b2c") -> Path:
    """Lay a model folder out as a Hugging Face cache does: blobs, refs, and links to the blobs."""
    entry = hub / ("models--" + name.replace("/", "--"))
    snapshot = entry / "snapshots" / revision
    for folder in (entry / "blobs", entry / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        blob = hashlib.sha256(path.read_bytes()).hexdigest()
        (entry / "blobs" / blob).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob))
    (entry / "refs" / "main").write_text(revision, "utf-8")
    return entry


def weights(run: Run) -> dict[str, torch.Tensor]:
    """Read what a run has trained."""
    (file,) = run.model.glob("*.safetensors")
    return load_file(file)


def change_json(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    content = {**json.loads(path.read_text("utf-8")), **fields}
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), "utf-8")


def train_run(folder: Path, model: Path | str, /, **sections: Any) -> Run:
    """Train a run of a second or two on forty questions."""
    data = write_pairs(folder / "pairs.jsonl")
    return train(load_recipe(write_recipe(folder / "recipe.json", model, data, **sections)))
