"""Train as tunesmith does: `python run_tunesmith.py SPEC RESULT STARTED`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.data.tokens import TokenRow
    from watch import StepTimes


def learn_what_others_do() -> None:
    """Learn the newline after the token that ends a turn too, as the others do.

    So all learn the same tokens, and their losses may be compared closely.
    """
    from tunesmith.data import build
    from tunesmith.data.token_rows import UNLEARNED, TokenRows

    take = TokenRows.__getitem__

    def with_newlines(self: TokenRows, row: int) -> dict[str, Any]:
        found = take(self, row)
        ids, labels = found["input_ids"], found["labels"]
        for at in range(1, 0 if "answers" in found else len(ids)):
            if labels[at] == UNLEARNED != labels[at - 1]:
                labels[at] = ids[at]
        return found

    TokenRows.__getitem__ = with_newlines  # type: ignore[method-assign]
    join = build.join_answers
    build.join_answers = lambda *rows: join(*map(longer, rows))


def longer(row: TokenRow) -> TokenRow:
    """Learn one token more, where there is one."""
    *before, (start, end) = row.learned
    return replace(row, learned=[*before, (start, min(end + 1, len(row.ids)))])


def note_estimate(times: StepTimes) -> None:
    """Note the memory that was estimated before training."""
    from tunesmith.training import fit

    choose = fit.choose_batching

    def noted(*given: Any) -> Any:
        found = choose(*given)
        times.noted["estimated_bytes"] = found.gib * 2**30
        return found

    fit.choose_batching = noted


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


def variant_of(name: str) -> dict[str, Any]:
    """Read how an update is to be computed: tokens of a batch, or what becomes of activations."""
    if name == "default":
        return {}
    return {"tokens_per_batch": int(name)} if name.isdecimal() else {"gradient_checkpointing": name}


def main() -> None:
    """Train on the rows in the order given."""
    spec, result = json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[2])
    import numpy as np

    from tunesmith.recipe.load import load_recipe
    from tunesmith.training.order import UpdateOrder
    from tunesmith.training.train import train
    from watch import watch

    UpdateOrder._shuffled = lambda self, epoch: np.arange(len(self.lengths))  # type: ignore[method-assign]
    times = watch(spec)
    clock_reference(times)
    note_estimate(times)
    if spec["method"] != "pretrain":
        learn_what_others_do()
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
    recipe["compute"] |= variant_of(spec["variant"])
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
