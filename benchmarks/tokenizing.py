"""Time tokenizing against LLaMA-Factory: `python benchmarks/tokenizing.py`, after `train.py`.

Both turn the same conversations into tokens with labels, each in an environment and a process of
its own, in turn. What counts is rows a second of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from train import BUILD, HERE, MAX_TOKENS, ROOT, make

FOLDER = BUILD / "tokenizing"
CONTENDERS = ("tunesmith", "llamafactory")


def main() -> None:
    """Run both in turn, or, with --as, one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--as", dest="contender", choices=CONTENDERS)
    options = parser.parse_args()
    file = FOLDER / f"rows_{options.rows}.jsonl"
    if options.contender:
        measure = {"tunesmith": measure_ours, "llamafactory": measure_theirs}
        print(json.dumps(measure[options.contender](file, options.rows)))
        return
    write_rows(file, options.rows)
    runs = [
        run(contender, options.rows, repeat)
        for repeat in range(options.repeats)
        for contender in CONTENDERS
    ]
    best = {
        c: max(r["rows_per_cpu_second"] for r in runs if r["contender"] == c) for c in CONTENDERS
    }
    report = {"runs": runs, "ratio": round(best["tunesmith"] / best["llamafactory"], 3)}
    (HERE / "results" / "tokenizing.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(report["ratio"])


def write_rows(file: Path, count: int) -> None:
    """Write so many rows, none like another."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = json.loads((BUILD / "inputs" / "rows.json").read_text("utf-8"))
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            row = rows[number % len(rows)]
            changed = {**row, "instruction": f"{number} {row['instruction']}"}
            out.write(json.dumps(changed, ensure_ascii=False) + "\n")


def run(contender: str, rows: int, repeat: int) -> dict[str, Any]:
    """Measure one of them in a process of its own."""
    shutil.rmtree(FOLDER / "cache", ignore_errors=True)
    surroundings = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(FOLDER / "hub"),
        "TUNESMITH_CACHE": str(FOLDER / "cache"),
        "DISABLE_VERSION_CHECK": "1",
        "PYTHONPATH": str(ROOT / "src") if contender == "tunesmith" else "",
    }
    command = [make(contender), __file__, "--as", contender, "--rows", str(rows)]
    said = subprocess.run(
        command, env=surroundings, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found = json.loads(said.strip().splitlines()[-1])
    print(contender, found, flush=True)
    return {"contender": contender, "repeat": repeat, "rows": rows, **found}


def measure_ours(file: Path, count: int) -> dict[str, float]:
    """Tokenize, and then look a second time, which finds everything made."""
    from tunesmith.data.prepare import prepare
    from tunesmith.data.rows import Learn
    from tunesmith.models.reader import find_reader
    from tunesmith.recipe.data import Data
    from tunesmith.settings import forbid_network

    forbid_network()
    reader = find_reader(BUILD / "inputs" / "models" / "B", None)
    data = Data(train=(str(file),), max_tokens=MAX_TOKENS)

    def tokenize() -> None:
        learn = Learn("conversation")
        prepare(data, learn, reader.tokenizer, reader.template, seed=0)

    first, second = clocked(tokenize), clocked(tokenize)
    return {**rates(first, count), "second_time_cpu_seconds": second["cpu"]}


def measure_theirs(file: Path, count: int) -> dict[str, float]:
    """Tokenize as its supervised stage does."""
    from run_llamafactory import stand_in_for

    stand_in_for("torchaudio")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    info = json.dumps({"rows": {"file_name": str(file)}})
    (FOLDER / "dataset_info.json").write_text(info, "utf-8")
    model, data, training, *_ = get_train_args(
        {
            "model_name_or_path": str(BUILD / "inputs" / "models" / "B"),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset": "rows",
            "dataset_dir": str(FOLDER),
            "template": "qwen3_nothink",
            "cutoff_len": MAX_TOKENS,
            "output_dir": str(FOLDER / "out"),
            "overwrite_cache": True,
            "use_cpu": True,
            "report_to": "none",
        }
    )
    loaded = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data)
    sys.stdout.flush()
    return rates(
        clocked(lambda: get_dataset(template, model, data, training, stage="sft", **loaded)), count
    )


def clocked(work: Any) -> dict[str, float]:
    """Time some work, that of processes it starts included."""
    cpu, wall = spent(), time.perf_counter()
    work()
    return {"cpu": spent() - cpu, "wall": time.perf_counter() - wall}


def spent() -> float:
    """Sum the processor time of this process and of those it has waited for."""
    return sum(os.times()[:4])


def rates(times: dict[str, float], count: int) -> dict[str, float]:
    """Turn times into rows a second."""
    return {
        "rows_per_cpu_second": count / times["cpu"],
        "rows_per_second": count / times["wall"],
    }


if __name__ == "__main__":
    main()
