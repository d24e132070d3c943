"""Train as LLaMA-Factory does: `python run_llamafactory.py SPEC RESULT STARTED`."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

KEPT = {"disable_gradient_checkpointing": True}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {"default": {}, "tuned": KEPT},
    "gpu": {
        "default": {"batch": 1},
        "tuned": {**KEPT, "enable_liger_kernel": True},
        "kept": KEPT,
    },
}
"""Its examples' settings, and the same with activations kept: its best on a CPU.

On a GPU its best takes larger batches, with the kernels it knows, or without them.
"""
DEVICES: dict[str, dict[str, Any]] = {
    "cpu": {"use_cpu": True},
    "cuda": {"dataloader_num_workers": 4},
}
"""What its examples say of the device."""
COLUMNS: dict[str, dict[str, Any]] = {
    "sft": {},
    "pretrain": {"columns": {"prompt": "text"}},
    "dpo": {
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
}


def stand_in_for(name: str) -> None:
    """Put an empty module in the place of one that is always imported and only sound needs."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module


def main() -> None:
    """Train on the rows in the order given."""
    spec, result = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    import torch

    from watch import watch

    torch.set_num_threads(spec["threads"])
    stand_in_for("torchaudio")
    from llamafactory.train.tuner import run_exp

    folder = result.with_suffix(".data")
    folder.mkdir(exist_ok=True)
    info = {"rows": {"file_name": spec["rows"], **COLUMNS[spec["method"]]}}
    (folder / "dataset_info.json").write_text(json.dumps(info), "utf-8")
    variant = dict(VARIANTS[spec["machine"]][spec["variant"]])
    batch = min(variant.pop("batch", spec["batch"]), spec["update_rows"])
    times = watch(spec)
    arguments = {
        "model_name_or_path": spec["model"],
        "stage": {"sft": "sft", "pretrain": "pt", "dpo": "dpo"}[spec["method"]],
        "do_train": True,
        "finetuning_type": spec["tuning"],
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "qwen3_nothink",
        "cutoff_len": spec["max_tokens"],
        "output_dir": str(result.with_suffix(".out")),
        "overwrite_cache": True,
        "overwrite_output_dir": True,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": spec["update_rows"] // batch,
        "learning_rate": spec["learning_rate"],
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "constant",
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": "none",
        "disable_shuffling": True,
        "bf16": spec["precision"] == "bf16",
        "seed": 42,
        **DEVICES[spec["device"]],
        **(
            {"lora_rank": 8, "lora_alpha": 16, "lora_target": "all"}
            if spec["tuning"] == "lora"
            else {}
        ),
        **({"packing": False} if spec["method"] == "pretrain" else {}),
        **variant,
    }
    run_exp(args=arguments)
    times.write(result, float(sys.argv[3]))


if __name__ == "__main__":
    main()
