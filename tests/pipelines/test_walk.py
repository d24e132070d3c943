"""The walk of an engineer with a copied cache folder, as they would type it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.command import Command
from tunesmith.models.locate import locate
from tunesmith.runs.store import list_runs, open_run

ENTRY = "models--Qwen--Qwen3-0.6B-Base"
REVISION = "da87bfb608c14b7cf20ba1ce41287e8de496c0cd"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Hugging Face cache as it is copied from a machine with internet."""
    hub = tmp_path / "copied" / "hub"
    entry = hub / ENTRY
    snapshot = entry / "snapshots" / REVISION
    for folder in (entry / "blobs", entry / "refs", snapshot):
        folder.mkdir(parents=True)
    (entry / "refs" / "main").write_text(REVISION, "utf-8")
    plain = tiny.make_model(tmp_path / "plain")
    for path in plain.iterdir():
        blob = entry / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return hub


def write_faq(folder: Path) -> Path:
    rows = [
        {"instruction": "请问你是谁", "input": "", "output": "您好,我是蟹堡王的神奇海螺"},
        {"instruction": "营业时间", "input": "", "output": "早上九点到晚上十点"},
        {"instruction": "汉堡多少钱", "input": "", "output": "it is 18"},
    ]
    return tiny.write_rows(folder / "faq.jsonl", rows)


def forms(hub: Path) -> dict[str, str]:
    return {
        "folder": str(hub / ENTRY),
        "snapshot": str(hub / ENTRY / "snapshots" / REVISION),
        "name": "Qwen/Qwen3-0.6B-Base",
    }


@pytest.mark.parametrize("form", ["folder", "snapshot", "name"])
def test_a_copied_model_is_found_in_every_form(
    hub: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(hub.parent))
    assert locate(forms(hub)[form]) == hub / ENTRY / "snapshots" / REVISION


def test_from_questions_to_an_exported_model(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("HF_HOME", str(hub.parent))
    monkeypatch.chdir(tmp_path)
    faq = write_faq(tmp_path)
    base = load_file(locate("Qwen/Qwen3-0.6B-Base") / "model.safetensors")

    checked = command("data", "check", faq, "--model", "Qwen/Qwen3-0.6B-Base")
    assert "3 read = 3 good + 0 bad" in checked.out
    shown = command("data", "show", faq, "--row", 3, "--model", "Qwen/Qwen3-0.6B-Base")
    assert "⟦it is 18<|im_end|>⟧" in shown.out

    new = ["recipe", "new", "conch.yaml", "--model", "Qwen/Qwen3-0.6B-Base", "--data", faq]
    assert command(*new, "--method", "sft", "--tuning", "lora", "--name", "conch").code == 0
    planned = command("train", "conch.yaml", "--dry-run", "data.validation_share=0")
    assert "3 rows" in planned.out
    assert not list_runs()

    options = ["data.validation_share=0", "optimizer.learning_rate=0.02", "run.epochs=20"]
    trained = command("train", "conch.yaml", *options, "optimizer.batch_size=3")
    assert trained.code == 0, trained.err
    assert "tunesmith chat" in trained.out
    run = open_run("conch")
    losses = [record["loss"] for record in run.metrics() if "loss" in record]
    assert losses[-1] < losses[0] - 0.3

    measured = command("evaluate", "conch", "--data", faq)
    assert "请问你是谁" in measured.out
    assert "exact match (0 to 1)" in measured.out
    exported = command("export", "conch", "--to", "served")
    assert exported.code == 0, exported.err
    assert "same answers" in exported.out
    after = load_file(locate("Qwen/Qwen3-0.6B-Base") / "model.safetensors")
    assert all((base[name] == after[name]).all() for name in base)


def test_a_chat_in_the_terminal_streams_clears_and_saves(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    tiny.train_run(tmp_path, tiny_model)
    lines = iter(["hi", "/system be kind", "/clear", "/nonsense", "more", "/save talk.jsonl"])

    def type_line(_: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", type_line)
    monkeypatch.chdir(tmp_path)
    talked = command("chat", "tiny", "--compare", "base", "--max-tokens", 4)
    assert talked.code == 0, talked.err
    assert "talking to" in talked.out
    assert "base of" in talked.out
    assert "forgotten" in talked.out
    saved = (tmp_path / "talk.jsonl").read_text("utf-8").splitlines()
    assert len(saved) == 2
    assert '"role":"system","content":"be kind"' in saved[0]
    assert "hi" not in saved[0]


def test_runs_are_listed_shown_compared_and_deleted(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    first = tiny.train_run(tmp_path, tiny_model, run={"name": "one", "steps": 2})
    second = tiny.train_run(tmp_path, tiny_model, run={"name": "two", "steps": 3})
    listed = command("runs", "list").out
    assert first.name in listed
    assert "done" in listed
    assert "3 of 3" in command("runs", "show", "two").out
    assert "step 2 of 2" in command("runs", "logs", "one").out
    compared = command("runs", "compare", "one", "two").out
    assert "run.steps" in compared
    assert command("runs", "delete", "one", "--yes").code == 0
    assert [run.name for run in list_runs()] == [second.name]


def test_a_detached_run_outlives_its_terminal_and_can_be_stopped(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    path = tiny.write_recipe(
        tmp_path / "r.json", tiny_model, data, run={"name": "far", "steps": 20000}
    )
    started = command("train", path, "--detach")
    assert started.code == 0, started.err
    assert "tunesmith runs logs -f" in started.out
    run = open_run("far")
    assert os.getsid(run.status().pid) == run.status().pid
    assert command("runs", "stop", "far", "--wait", 60).code == 0
    assert run.status().state == "stopped"
    shown = command("runs", "show", "far").out
    assert "stopped" in shown


def test_a_recipe_is_explained_checked_and_described(tmp_path: Path, command: Command) -> None:
    path = tiny.write_recipe(tmp_path / "r.json", "m", "d")
    assert "no mistake found" in command("recipe", "check", path).out
    assert "learning_rate" in command("recipe", "explain", "optimizer").out
    assert "must be given" in command("recipe", "explain").out
    assert '"$schema"' in command("recipe", "schema").out
