"""Train as tunesmith does: `python run_tunesmith.py SPEC RESULT STARTED`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path


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
