"""Write the figures of a run under the names that scripts for LLaMA-Factory look for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from tunesmith.runs.run import Run
from tunesmith.runs.write import write_bytes
from tunesmith.training.best import named_losses
from tunesmith.training.curves import draw_one_curve

Record = dict[str, Any]
STATE = ("loss", "grad_norm", "learning_rate", "eval_loss")
PREFERRED = {
    "rewards_chosen": "rewards/chosen",
    "rewards_rejected": "rewards/rejected",
    "rewards_margin": "rewards/margins",
    "rewards_accuracy": "rewards/accuracies",
    "logps_chosen": "logps/chosen",
    "logps_rejected": "logps/rejected",
}
"""What figures of preferences are called there; held-out ones begin with eval_."""


def write_compatible(run: Run, folders: Sequence[Path]) -> None:
    """Write logs, results and the picture of the loss into each folder."""
    files = _draw_up(run.metrics(), run.status().num_steps)
    for folder in folders:
        for name, content in files.items():
            write_bytes(folder / name, content)


def _draw_up(metrics: list[Record], steps: int) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    lines = [orjson.dumps(_log_line(record, steps, metrics)) + b"\n" for record in metrics]
    trained, measured = _train_results(metrics), _eval_results(metrics)
    files = {
        "trainer_log.jsonl": b"".join(lines),
        "trainer_state.json": _spell(_state(metrics, steps)),
        "train_results.json": _spell(trained),
        "all_results.json": _spell(trained | measured),
        "training_loss.png": draw_one_curve(metrics, "loss"),
    }
    if any("rewards_accuracy" in record for record in metrics):
        picture = draw_one_curve(metrics, "rewards_accuracy")
        files["training_rewards_accuracies.png"] = picture
    if not measured:
        return files
    picture = draw_one_curve(metrics, "eval_loss")
    return {
        **files,
        "eval_results.json": _spell(measured),
        "training_eval_loss.png": picture,
    }


def _spell(content: Record) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _log_line(record: Record, steps: int, metrics: list[Record]) -> Record:
    step = record["step"]
    elapsed = _seconds_at(step, metrics)
    line = {
        "current_steps": step,
        "total_steps": steps,
        "loss": record.get("loss"),
        "eval_loss": record.get("eval_loss"),
        **{key: record[key] for key in named_losses(record)},
        "accuracy": record.get("rewards_accuracy", record.get("accuracy")),
        "lr": record.get("learning_rate"),
        "epoch": record.get("epoch"),
        "percentage": round(100 * step / steps, 2) if steps else 100,
        "elapsed_time": _clock(elapsed),
        "remaining_time": _clock(elapsed / step * (steps - step) if step else 0.0),
    }
    return {name: value for name, value in line.items() if value is not None}


def _seconds_at(step: int, metrics: list[Record]) -> float:
    """Return the seconds since the start at a step; a measurement between two knows none."""
    known = [
        record["seconds"] for record in metrics if "seconds" in record and record["step"] <= step
    ]
    return float(known[-1]) if known else 0.0


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _state(metrics: list[Record], steps: int) -> Record:
    history = [
        {
            name: record[name]
            for name in (*STATE, *named_losses(record), "epoch", "step")
            if name in record
        }
        | _preferred(record)
        for record in metrics
    ]
    last = metrics[-1] if metrics else {}
    return {
        "epoch": last.get("epoch"),
        "global_step": last.get("step", 0),
        "max_steps": steps,
        "is_local_process_zero": True,
        "is_world_process_zero": True,
        "log_history": history,
    }


def _preferred(record: Record) -> Record:
    """Return the figures of preferences by the names they have there."""
    both = {**PREFERRED, **{f"eval_{ours}": f"eval_{name}" for ours, name in PREFERRED.items()}}
    return {name: record[ours] for ours, name in both.items() if ours in record}


def _train_results(metrics: list[Record]) -> Record:
    losses = [record for record in metrics if "loss" in record]
    seconds = _seconds_at(losses[-1]["step"], metrics) if losses else 0.0
    last = losses[-1] if losses else {}
    return {
        "epoch": last.get("epoch"),
        "train_loss": sum(record["loss"] for record in losses) / max(1, len(losses)),
        "train_runtime": seconds,
        "train_steps_per_second": round(last.get("step", 0) / seconds, 3) if seconds else None,
    }


def _eval_results(metrics: list[Record]) -> Record:
    measured = [record for record in metrics if "eval_loss" in record]
    if not measured:
        return {}
    last = measured[-1]
    named = {key: last[key] for key in named_losses(last)}
    return {"epoch": last.get("epoch"), "eval_loss": last["eval_loss"], **named, **_preferred(last)}
