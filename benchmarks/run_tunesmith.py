"""Train as tunesmith does: `python run_tunesmith.py SPEC RESULT STARTED`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watch import StepTimes


def clock_reference(times: StepTimes) -> None:
    """Note the processor time of what is computed before the first update and never again."""
    from tunesmith.training import reference

    compute = reference._compute

    def clocked(*given: Any) -> Any:
        began = time.process_time()
        found = compute(*given)
        times.noted["reference_cpu_seconds"] = time.process_time() - began
        return found

    reference._compute = clocked


def main() -> None:
    """Train on the rows in the order given."""
    spec, result = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    from tunesmith.recipe.load import load_recipe
    from tunesmith.training.order import UpdateOrder
    from tunesmith.training.train import train
    from watch import watch

    def straight(self: UpdateOrder) -> Iterator[list[int]]:
        for start in range(0, len(self.lengths), self.update_rows):
            yield list(range(start, min(start + self.update_rows, len(self.lengths))))

    UpdateOrder.__iter__ = straight  # type: ignore[method-assign]
    times = watch(spec)
    clock_reference(times)
    recipe = {
        "model": {"name": spec["model"]},
        "data": {"train": [spec["rows"]], "max_tokens": spec["max_tokens"]},
        "method": {"name": spec["method"]},
        "tuning": {"kind": spec["tuning"]},
        "optimizer": {
            "learning_rate": spec["learning_rate"],
            "batch_size": spec["update_rows"],
            "scheduler": "constant",
            "warmup": 0,
        },
        "compute": {
            "device": spec["device"],
            "precision": spec["precision"],
            "threads": spec["threads"],
        },
        "evaluate": {"sample_rows": 0},
        "run": {"epochs": 1, "seed": 42, "keep_checkpoints": 1},
    }
    if spec["tuning"] == "lora":
        recipe["tuning"] |= {"rank": 8, "alpha": 16}
    if spec["method"] == "pretrain":
        recipe["method"]["pack"] = False
    written = result.with_suffix(".recipe.json")
    written.write_text(json.dumps(recipe), "utf-8")
    train(load_recipe(written))
    times.write(result, float(sys.argv[3]))


if __name__ == "__main__":
    main()
