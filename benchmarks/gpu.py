"""Time training on a GPU against LLaMA-Factory and TRL: `python benchmarks/gpu.py`.

Every contender runs in a process of its own, in bf16, on the same rows in the same order, one
after the other. What counts is useful tokens (no padding) a second of wall time, the GPU waited
for at the end of each update and the first updates left out; and that the losses agree.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from flops import operations
from make_inputs import SHAPES, write_model
from train import (
    BUILD,
    HERE,
    MAX_TOKENS,
    PEERS,
    agreeing,
    by_update,
    make,
    measures,
    ratios,
    read_rows,
    result_of,
    sizes_of,
    start,
    versions,
)

OURS = ("tunesmith", "default")
LLAMAFACTORY = (("llamafactory", "default"), ("llamafactory", "tuned"))
TRL = (("trl", "tuned"), ("trl", "default"))
INSTEAD = {"tuned": "kept"}
"""Which settings are tried where others fail: the same without kernels of their own."""
MOST_UPDATES = 100
"""Rows are made for so many at most: more would only be tokenized."""
LEFT_OUT, MEASURED_SECONDS, LIMIT_SECONDS, SHORTEST_SECONDS = 3, 8.0, 90.0, 12.0
"""Updates left out; seconds measured; the longest a run may take; the least it is begun with."""
PRODUCT = 8192
AGREE_IN_BF16 = 2e-3
DATASHEET = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""bf16 operations a second that makers promise without sparsity, by a part of the GPU's name."""
TINY = {"C": SHAPES["A"], "D": SHAPES["A"]}


@dataclass(frozen=True)
class Case:
    """What is trained, and by whom.

    Attributes:
        update_rows: rows of an update.
        contenders: system and variant of each.
        batch: rows that a tuned peer computes at once, with all activations kept in 80 GB.
    """

    model: str
    method: str
    tuning: str
    update_rows: int
    contenders: tuple[tuple[str, str], ...]
    batch: int = 16

    @property
    def name(self) -> str:
        """Name it as the results do."""
        return f"{self.model}/{self.method}_{self.tuning}_{self.update_rows}"


TUNED = (OURS, LLAMAFACTORY[1], TRL[0])
CASES = (
    Case("C", "sft", "lora", 8, (OURS, *LLAMAFACTORY, *TRL)),
    Case("C", "dpo", "lora", 8, (OURS, *LLAMAFACTORY, TRL[0])),
    Case("C", "sft", "lora", 64, TUNED),
    Case("D", "sft", "lora", 64, TUNED, batch=8),
    Case("C", "sft", "full", 64, TUNED),
    Case("D", "sft", "lora", 8, (OURS, *LLAMAFACTORY)),
    Case("C", "sft", "full", 8, (OURS, *LLAMAFACTORY)),
)
"""What matters most first: time may be short."""


@dataclass(frozen=True)
class Job:
    """One training of one contender."""

    case: Case
    contender: str
    variant: str


@dataclass(frozen=True)
class Place:
    """Where and how trainings run.

    Attributes:
        packages: folder that holds a folder of packages for each contender, put before those of
            this interpreter; None to make an environment for each.
        deadline: wall time after which nothing is begun.
    """

    work: Path
    packages: Path | None
    device: str
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()


def main() -> None:
    """Make what is missing, run all in turn, write the results as they come."""
    options = read_options()
    place = Place(options.work, options.packages, options.device, time.time() + options.seconds)
    if not (options.inputs / "rows.json").exists():
        subprocess.run(
            [sys.executable, HERE / "make_inputs.py", options.shared, options.inputs], check=True
        )
    tokenizer = AutoTokenizer.from_pretrained(options.inputs / "models" / options.tokenizer)
    shapes = TINY if options.rehearse else SHAPES
    pythons = find_pythons(place)
    known = {**machine(place.device), "vocabulary": len(tokenizer)}
    report = {"machine": known, "versions": versions_of(place, pythons)}
    wanted = [case for part in options.only.split(",") for case in CASES if part in case.name]
    cases = list(dict.fromkeys(wanted))
    for name in {case.model for case in cases}:
        make_model(place, name, shapes[name], tokenizer)
    sizes = {case: write_rows(case, place, options.inputs, tokenizer) for case in cases}
    runs: list[dict[str, Any]] = []
    others = [(OURS[0], variant) for variant in filter(None, options.variants.split(","))]
    jobs = [
        Job(case, *contender)
        for case in cases
        for contender in (OURS, *others, *case.contenders[1:])
    ]
    for job, found in in_turn(jobs, place, pythons):
        runs.append(described(job, found, sizes[job.case], shapes[job.case.model], report))
        print(json.dumps(runs[-1])[:600], flush=True)
        measured = [run for run in runs if "losses" in run]
        agree, faster = agreeing(measured, AGREE_IN_BF16), ratios(measured, "tokens_per_second")
        whole = {**report, "runs": runs, "losses_agree": agree, "ratios": faster}
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(), help="folder with the public sets")
    parser.add_argument("--inputs", type=Path, default=BUILD / "inputs")
    parser.add_argument("--tokenizer", default="B", help="model of the inputs whose it is")
    parser.add_argument("--work", type=Path, default=BUILD / "gpu", help="needs some 40 GB")
    parser.add_argument("--packages", type=Path, help="folder of packages for each contender")
    parser.add_argument("--only", default="", help="only cases whose names hold one of A,B,...")
    parser.add_argument(
        "--variants", default="", help="ours too with A,B,...: tokens of a batch, on, offload"
    )
    parser.add_argument("--seconds", type=float, default=3600.0, help="time for all of it")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rehearse", action="store_true", help="tiny models: measures nothing")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gpu.json")
    return parser.parse_args()


def find_pythons(place: Place) -> dict[str, Path]:
    """Find each contender's interpreter."""
    ours = {"tunesmith": Path(sys.executable)}
    return ours | {peer: Path(sys.executable) if place.packages else make(peer) for peer in PEERS}


def variables(place: Place, contender: str) -> dict[str, str]:
    """Name a contender's packages, and our own source."""
    if place.packages is None:
        return {}
    source = [HERE.parent / "src"] if contender == "tunesmith" else []
    return {"PYTHONPATH": os.pathsep.join(map(str, [place.packages / contender, *source]))}


def versions_of(place: Place, pythons: dict[str, Path]) -> dict[str, dict[str, str]]:
    """List what each contender runs with."""
    return {
        name: versions({name: python}, variables(place, name))[name]
        for name, python in pythons.items()
    }


def make_model(
    place: Place, name: str, shape: dict[str, int], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a model of random weights in bf16."""
    write_model(
        place.work / "models" / name,
        shape,
        tokenizer,
        dtype=torch.bfloat16,
        device=place.device,
    )
    if place.device == "cuda":
        torch.cuda.empty_cache()


def write_rows(
    case: Case, place: Place, inputs: Path, tokenizer: PreTrainedTokenizerFast
) -> list[tuple[int, int]]:
    """Write the rows of a case; count the tokens of each row, and those that are learned."""
    rows = read_rows(case.method, inputs, tokenizer)
    updates = min(len(rows) // case.update_rows, MOST_UPDATES)
    rows = rows[: updates * case.update_rows]
    rows_file(case, place).write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return sizes_of(rows, case.method, tokenizer)


def rows_file(case: Case, place: Place) -> Path:
    """Name the file of a case's rows."""
    return place.work / f"{case.name.replace('/', '_')}.json"


def in_turn(
    jobs: list[Job], place: Place, pythons: dict[str, Path]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Run one after the other; the next one imports its libraries meanwhile."""
    waiting, begun = list(jobs), []
    while waiting or begun:
        while waiting and len(begun) < 2 and place.left > SHORTEST_SECONDS:
            job = waiting.pop(0)
            begun.append((job, begin(job, place, pythons[job.contender])))
        if not begun:
            yield waiting.pop(0), {"skipped": "no time was left"}
            continue
        job, process = begun.pop(0)
        found = finish(job, process, place)
        if "failed" in found and job.variant in INSTEAD:
            waiting.insert(0, replace(job, variant=INSTEAD[job.variant]))
        yield job, found


def folder_of(job: Job, place: Place) -> Path:
    """Name the folder of a training."""
    return place.work / job.case.name.replace("/", "_") / f"{job.contender}_{job.variant}"


def begin(job: Job, place: Place, python: Path) -> subprocess.Popen[bytes]:
    """Start a training; it waits for its turn."""
    spec = {
        "model": str(place.work / "models" / job.case.model),
        "rows": str(rows_file(job.case, place)),
        "method": job.case.method,
        "tuning": job.case.tuning,
        "variant": job.variant,
        "machine": "gpu",
        "device": place.device,
        "precision": "bf16" if place.device == "cuda" else "fp32",
        "update_rows": job.case.update_rows,
        "batch": job.case.batch,
        "max_tokens": MAX_TOKENS,
        "learning_rate": 1e-4,
        "threads": min(8, len(os.sched_getaffinity(0))),
        "left_out": LEFT_OUT,
        "seconds": MEASURED_SECONDS,
        "turn": str(place.work / "turn.lock"),
    }
    folder = folder_of(job, place)
    return start(folder, job.contender, python, spec, **variables(place, job.contender))


def finish(job: Job, process: subprocess.Popen[bytes], place: Place) -> dict[str, Any]:
    """Wait for a training, and end it where it takes too long."""
    limit = min(LIMIT_SECONDS, place.left)
    try:
        status = process.wait(timeout=max(limit, 0.0))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if place.left <= 0:
            return {"skipped": "time was up"}
        return {"failed": [f"took more than {limit:.0f} seconds"]}
    return result_of(folder_of(job, place), status)


def described(
    job: Job,
    found: dict[str, Any],
    sizes: list[tuple[int, int]],
    shape: dict[str, int],
    report: dict[str, Any],
) -> dict[str, Any]:
    """Turn what was measured into rates and shares of what the GPU can do."""
    steps = found.pop("steps", [])
    tokens = by_update([size for size, _ in sizes], job.case.update_rows)
    named = {"case": job.case.name, "contender": f"{job.contender}_{job.variant}"}
    rates = measures(steps, tokens, found, LEFT_OUT)
    if rates:
        rates["updates"] = len(steps)
    if rates and job.case.method != "dpo":  # whose necessary work is not counted
        part = sizes[LEFT_OUT * job.case.update_rows : len(steps) * job.case.update_rows]
        work = operations(part, shape, report["machine"]["vocabulary"], job.case.tuning)
        rate = work / (steps[-1]["wall"] - steps[LEFT_OUT - 1]["wall"])
        rates["tflops"] = rate / 1e12
        rates["share_of_a_product"] = rate / report["machine"]["product_flops"]
        if promised := report["machine"]["promised_flops"]:
            rates["share_of_peak"] = rate / promised
    return {**named, **found, **rates}


def machine(device: str) -> dict[str, Any]:
    """Describe the GPU, with the rate of a plain product in bf16."""
    cuda = device == "cuda"
    name = torch.cuda.get_device_name() if cuda else "cpu"
    promised = [flops for part, flops in DATASHEET.items() if part in name]
    return {
        "gpu": name,
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else 0,
        "cuda": torch.version.cuda,
        "cores": len(os.sched_getaffinity(0)),
        "product_flops": product_flops() if cuda else 1e11,
        "promised_flops": promised[0] if promised else None,
    }


def product_flops() -> float:
    """Time a product of random numbers in bf16."""
    left, right = (
        torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in range(2)
    )
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(left, right)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return float(2 * PRODUCT**3 / best)


if __name__ == "__main__":
    main()
