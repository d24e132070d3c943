"""Train as TRL does: `python run_trl.py SPEC RESULT STARTED`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "default": {"batch": 8},
        "tuned": {"gradient_checkpointing": False},
    },
    "gpu": {
        "default": {"batch": 8},
        "tuned": {"gradient_checkpointing": False, "use_liger_kernel": True},
        "kept": {"gradient_checkpointing": False},
    },
}
"""On a CPU its defaults in fp32 (bf16, its default, raises without bf16 hardware), and its best.

On a GPU its defaults; its best with the kernels it knows; the same without them.
"""


def main() -> None:
    """Train on the rows in the order given."""
    spec, result = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    import torch

    from watch import watch

    torch.set_num_threads(spec["threads"])
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    paired = spec["method"] == "dpo"
    rows = json.loads(Path(spec["rows"]).read_text("utf-8"))
    if spec["method"] == "sft":
        rows = [
            {
                "prompt": [{"role": "user", "content": row["instruction"]}],
                "completion": [{"role": "assistant", "content": row["output"]}],
            }
            for row in rows
        ]
    if paired:
        rows = [
            {
                "prompt": [{"role": "user", "content": row["conversations"][-1]["value"]}],
                **{
                    name: [{"role": "assistant", "content": row[name]["value"]}]
                    for name in ("chosen", "rejected")
                },
            }
            for row in rows
        ]
    variant = dict(VARIANTS[spec["machine"]][spec["variant"]])
    batch = min(variant.pop("batch", spec["batch"]), spec["update_rows"])
    times = watch(spec)
    config = (DPOConfig if paired else SFTConfig)(
        output_dir=str(result.with_suffix(".out")),
        max_length=spec["max_tokens"],
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=spec["update_rows"] // batch,
        learning_rate=spec["learning_rate"],
        num_train_epochs=1,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        bf16=spec["precision"] == "bf16",
        use_cpu=spec["device"] == "cpu",
        seed=42,
        model_init_kwargs={"dtype": base_dtype(spec)},
        **variant,
    )

    class Straight(DPOTrainer if paired else SFTTrainer):  # type: ignore[misc]
        """Takes the rows as they stand."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    Straight(
        spec["model"],
        args=config,
        train_dataset=Dataset.from_list(rows),
        peft_config=lora if spec["tuning"] == "lora" else None,
    ).train()
    times.write(result, float(sys.argv[3]))


def base_dtype(spec: dict[str, Any]) -> str:
    """Store weights as the others do: what learns in fp32, what is frozen as it is computed."""
    frozen = spec["tuning"] == "lora" and spec["precision"] == "bf16"
    return "bfloat16" if frozen else "float32"


if __name__ == "__main__":
    main()
