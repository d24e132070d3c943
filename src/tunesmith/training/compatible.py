"""Write the figures of a run under the names that scripts for LLaMA-Factory look for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from tunesmith.runs.run import Run
from tunesmith.runs.write import write_bytes, write_json
from tunesmith.training.curves import draw_one_curve

Record = dict[str, Any]
STATE = ("loss", "grad_norm", "learning_rate", "eval_loss")


def write_compatible(run: Run, folder: Path) -> None:
    """Write logs, results and the picture of the loss into `folder`."""
    metrics = run.metrics()
    steps = run.status().num_steps
    log = [_log_line(record, steps, metrics) for record in metrics]
    write_bytes(folder / "trainer_log.jsonl", b"".join(orjson.dumps(line) + b"\n" for line in log))
    write_json(folder / "trainer_state.json", _state(metrics, steps))
    trained, measured = _train_results(metrics), _eval_results(metrics)
    write_json(folder / "train_results.json", trained)
    if measured:
        write_json(folder / "eval_results.json", measured)
        write_bytes(folder / "training_eval_loss.png", draw_one_curve(metrics, "eval_loss"))
    write_json(folder / "all_results.json", trained | measured)
    write_bytes(folder / "training_loss.png", draw_one_curve(metrics, "loss"))


def _log_line(record: Record, steps: int, metrics: list[Record]) -> Record:
    step = record["step"]
    elapsed = _seconds_at(step, metrics)
    line = {
        "current_steps": step,
        "total_steps": steps,
        "loss": record.get("loss"),
        "eval_loss": record.get("eval_loss"),
        "accuracy": record.get("rewards_accuracy"),
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
        {name: record[name] for name in (*STATE, "epoch", "step") if name in record}
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
    return {"epoch": last.get("epoch"), "eval_loss": last["eval_loss"]}
