"""Real rows and a really trained model: the loss falls, and only what may move does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.offline import can_cut_off, run_offline
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train

pytestmark = pytest.mark.proof
PEER = Path("data") / "hiyouga+LLaMA-Factory" / "data"


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.metrics() if "loss" in record]


def held_out(run: Run) -> list[float]:
    return [record["eval_loss"] for record in run.metrics() if "eval_loss" in record]


@pytest.mark.parametrize("name", ["alpaca_zh_demo", "alpaca_en_demo", "identity", "wiki_demo"])
def test_real_sets_train_on_the_starter_and_the_loss_falls(
    tmp_path: Path, shared: Path, name: str
) -> None:
    texts = name == "wiki_demo"
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        "starter",
        name,
        data={
            "train": [name],
            "info": str(shared / PEER / "dataset_info.json"),
            "max_tokens": 256,
            "max_rows": 800,
            "validation_share": 0.1,
            "on_bad_row": "skip",  # a prompt or two leave no room for their answer
        },
        method={"name": "pretrain" if texts else "sft"},
        tuning={"kind": "lora", "rank": 16},
        optimizer={"learning_rate": 2e-3, "batch_size": 8},
        compute={"precision": "fp32", "threads": 2},
        evaluate={"every_steps": 20, "sample_rows": 2, "sample_tokens": 32},
        run={"name": name.replace("_", "-"), "steps": 60},
    )
    run = train(load_recipe(recipe))
    first, last = losses(run)[:10], losses(run)[-10:]
    print(name, "loss", sum(first) / 10, "->", sum(last) / 10, "held out", held_out(run))
    assert sum(last) < 0.97 * sum(first)
    assert held_out(run)[-1] < held_out(run)[0]


def test_lora_teaches_a_trained_model_text_of_a_new_kind(tmp_path: Path, shared: Path) -> None:
    model = shared / "models" / "stories260K"
    before = load_file(model / "model.safetensors")
    rows = json.loads((shared / PEER / "alpaca_en_demo.json").read_text("utf-8"))
    texts = [{"text": row["output"]} for row in rows if row["output"].isascii()]
    data = tiny.write_rows(tmp_path / "answers.jsonl", texts)
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        model,
        data,
        data={"train": [str(data)], "max_tokens": 256, "validation_share": 0.1},
        method={"name": "pretrain"},
        tuning={"kind": "lora", "rank": 16},
        optimizer={"learning_rate": 5e-3, "batch_size": 8},
        compute={"precision": "fp32", "threads": 2},
        evaluate={"sample_rows": 1},
        run={"name": "new-kind", "epochs": 3, "steps": None},
    )
    run = train(load_recipe(recipe))
    scores = evaluate(run.path)
    assert scores.base is not None
    print("held-out loss", scores.base.loss, "->", scores.tuned.loss)
    assert scores.tuned.loss < scores.base.loss - 0.3
    after = load_file(model / "model.safetensors")
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.skipif(not can_cut_off(), reason="this system makes no network namespaces")
def test_the_demo_makes_no_call_that_could_leave_the_machine(tmp_path: Path) -> None:
    """Watched from outside: every connect of every process, Python's or a library's."""
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
    code = f"import os, sys; os.execvp('strace', {traced} + [sys.executable, *sys.argv[1:]])"
    demo = run_offline(tmp_path, "-c", code, "-m", "tunesmith", "demo")
    assert demo.code == 0, demo.out
    calls = [line for line in trace.read_text("utf-8").splitlines() if "sa_family=AF_INET" in line]
    assert calls
    assert all('"127.0.0.1"' in call or '"::1"' in call for call in calls)
