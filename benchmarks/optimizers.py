"""Compare the optimizers: what they hold, what was estimated, how long an update takes.

Trains a Qwen3 of 19 million random weights a few updates with each, in a process of its own, and
prints a table in Markdown; seconds are those of the processor, for an update of 230 tokens.
`python benchmarks/optimizers.py [FOLDER]`
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import tiny
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training import report
from tunesmith.training.fit import footprint_of
from tunesmith.training.plan import make_plan
from tunesmith.training.prepare import prepare_run
from tunesmith.training.train import train

SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
STEPS = 6
FREED = {"layerwise": True, "max_grad_norm": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw_8bit": {},
    "lion": {},
    "lion_8bit": {},
    "adafactor": {},
    "adafactor, layerwise": FREED,
    "sgd": {},
    "sgd, layerwise": FREED,
    "muon": {},
    "galore": {},
    "galore, layerwise": FREED,
    "apollo": {},
    "apollo, layerwise": FREED,
    "apollo_mini": {},
    "adam_mini": {},
    "schedule_free": {},
    "badam": {},
}


def main() -> None:
    """Measure each in a copy of this process, so that the libraries are loaded once."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    os.environ["TUNESMITH_RUNS"] = str(folder / "runs")
    os.environ["TUNESMITH_CACHE"] = str(folder / "cache")
    tiny.make_model(folder / "model", **SHAPE)
    print("| optimizer | holds MiB | counted | saves MiB | counted | peak GiB | estimated | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in VARIANTS:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found = pool.apply(measure, (folder, name))
        print(f"| `{name}` | " + " | ".join(map(str, found)) + " |", flush=True)


def measure(folder: Path, variant: str) -> list[float]:
    """Train with one optimizer; all sizes and times as the table's columns ask for them."""
    rows = [{"instruction": "q " * 20, "input": "", "output": "word " * 40} for _ in range(64)]
    recipe = load_recipe(
        tiny.write_recipe(
            folder / "r.json",
            folder / "model",
            tiny.write_rows(folder / "rows.jsonl", rows),
            data={"max_tokens": 256},
            tuning={"kind": "full"},
            optimizer={
                "name": variant.split(",", maxsplit=1)[0],
                "learning_rate": 1e-4,
                "batch_size": 1,
                **VARIANTS[variant],
            },
            evaluate={"sample_rows": 0, "sample_tokens": 64},
            run={"steps": STEPS, "log_every_steps": 1},
        )
    )
    prepared = prepare_run(recipe)
    counted = footprint_of(prepared).optimizer
    estimated = make_plan(prepared).memory_gib
    ends: list[float] = []
    append = Run.append_metrics

    def timed(self: Run, record: dict[str, Any]) -> None:
        ends.append(time.process_time())
        append(self, record)

    report.write_report = lambda run: None
    Run.append_metrics = timed  # type: ignore[method-assign]
    run = train(recipe)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    took = [after - before for before, after in pairwise(ends)]
    (checkpoint,) = run.checkpoints.glob("step-*")
    saved = (checkpoint / "optimizer.pt").stat().st_size
    states = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"].values()
    held = count_bytes([part for part in states if "aside" not in part] or drop_aside(states))
    mib = 1024**2
    return [
        *(round(size / mib, 1) for size in (held, counted.held, saved, counted.saved)),
        round(peak, 2),
        estimated,
        round(statistics.median(took), 2),
    ]


def drop_aside(states: Any) -> list[dict[str, Any]]:
    """Leave out what is held only while the average is looked at."""
    return [{name: part[name] for name in part if name != "aside"} for part in states]


def count_bytes(states: Any) -> int:
    """Add up the tensors of an optimizer's memory, each storage once."""
    storages: dict[int, int] = {}
    for part in states:
        for value in part.values():
            inner = value.values() if isinstance(value, dict) else [value]
            for tensor in inner:
                if hasattr(tensor, "untyped_storage"):
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


if __name__ == "__main__":
    main()
