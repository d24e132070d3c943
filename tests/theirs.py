"""Files in the shape of LLaMA-Factory's own examples, at tiny size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests import tiny
from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.convert import Converted, convert
from tunesmith.recipe.llamafactory.file import read_file
from tunesmith.recipe.llamafactory.use import Use, Verb, read_use

ALONE = Around()

SFT: dict[str, Any] = {
    "trust_remote_code": True,
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 4,
    "lora_target": "all",
    "dataset": "questions",
    "template": "qwen3_nothink",
    "cutoff_len": 64,
    "max_samples": 1000,
    "preprocessing_num_workers": 16,
    "dataloader_num_workers": 0,
    "output_dir": "saves/tiny/lora/sft",
    "logging_steps": 1,
    "save_steps": 500,
    "plot_loss": True,
    "overwrite_output_dir": True,
    "save_only_model": False,
    "report_to": "none",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1.0e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "ddp_timeout": 180000000,
    "resume_from_checkpoint": None,
}
PPO: dict[str, Any] = {
    "stage": "ppo",
    "reward_model": "saves/tiny/lora/reward",
    "output_dir": "saves/tiny/lora/ppo",
    "max_new_tokens": 8,
    "top_k": 0,
    "top_p": 0.9,
}
WITHOUT_LORA: dict[str, Any] = {"lora_rank": None, "lora_target": None}
EXAMPLES: dict[str, dict[str, Any]] = {
    "sft_lora": {"val_size": 0.1, "per_device_eval_batch_size": 1, "eval_strategy": "steps"},
    "sft_full": {"finetuning_type": "full", "learning_rate": 1.0e-5, **WITHOUT_LORA},
    "sft_freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1, **WITHOUT_LORA},
    "sft_packed": {"neat_packing": True, "packing": True},
    "pretrain": {"stage": "pt", "dataset": "texts", "template": None},
    "dpo": {"stage": "dpo", "dataset": "pairs", "pref_beta": 0.1, "pref_loss": "sigmoid"},
    "orpo": {"stage": "dpo", "dataset": "pairs", "pref_loss": "orpo"},
    "kto": {"stage": "kto", "dataset": "judged", "pref_beta": 0.1},
    "reward": {"stage": "rm", "dataset": "pairs"},
    "galore": {
        "finetuning_type": "full",
        "use_galore": True,
        "galore_layerwise": True,
        "galore_rank": 4,
        "gradient_accumulation_steps": 1,
        **WITHOUT_LORA,
    },
}
QLORA = {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": False}
INFO: dict[str, Any] = {
    "questions": {"file_name": "questions.jsonl"},
    "texts": {"file_name": "texts.jsonl", "columns": {"prompt": "text"}},
    "pairs": {
        "file_name": "pairs.json",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "judged": {
        "file_name": "judged.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    },
}


def write_sets(folder: Path) -> Path:
    """Write `data/` with a dataset_info.json and one set of each kind."""
    data = folder / "data"
    tiny.write_pairs(data / "questions.jsonl", 24)
    tiny.write_rows(data / "texts.jsonl", [{"text": f"the quick {n} fox" * 4} for n in range(12)])
    pairs = [
        {
            "conversations": [{"from": "human", "value": f"question {n}"}],
            "chosen": {"from": "gpt", "value": f"It is {n * 7}."},
            "rejected": {"from": "gpt", "value": "the lazy dog"},
        }
        for n in range(12)
    ]
    (data / "pairs.json").write_text(json.dumps(pairs), "utf-8")
    judged = [
        {
            "messages": [
                {"role": "user", "content": f"question {n}"},
                {"role": "assistant", "content": f"It is {n * 7}." if n % 2 else "the lazy dog"},
            ],
            "label": n % 2 == 1,
        }
        for n in range(12)
    ]
    tiny.write_rows(data / "judged.jsonl", judged)
    (data / "dataset_info.json").write_text(json.dumps(INFO), "utf-8")
    return data


def write_theirs(path: Path, /, model: Path | str = "m", **keys: Any) -> Path:
    """Write a training file, as JSON where its name says so; None leaves a key out."""
    whole = {"model_name_or_path": str(model), **SFT, **keys}
    whole = {name: value for name, value in whole.items() if value is not None}
    text = json.dumps(whole) if path.suffix == ".json" else yaml.safe_dump(whole, sort_keys=False)
    path.write_text(text, "utf-8")
    return path


def become(*overrides: str, around: Around = ALONE, **keys: Any) -> Converted:
    """Convert a training file in the current folder."""
    return convert(read_file(write_theirs(Path("their.yaml"), **keys), overrides), around)


def use(verb: Verb = "chat", *, to_export: bool = False, **keys: Any) -> Use:
    """Read a file of chat, export or evaluation in the current folder."""
    path = Path("use.yaml")
    path.write_text(yaml.safe_dump({"model_name_or_path": "m", **keys}), "utf-8")
    return read_use(read_file(path), ALONE, verb, to_export=to_export)
