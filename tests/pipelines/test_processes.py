"""Several processes learn what one learns."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests import packed, tiny
from tests.command import Command
from tests.faults import work
from tunesmith.errors import RecipeError, RunError
from tunesmith.hardware import GIB
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.settings import read_settings
from tunesmith.training.checkpoints import MANIFEST, list_checkpoints, verify
from tunesmith.training.processes import num_processes
from tunesmith.training.train import resume, train

ROWS = 9
"""Of four in each update the last finds one left, which is fewer than there are processes."""
HELD_OUT = 3
CHATS: dict[str, Any] = {}
FULL: dict[str, Any] = {"tuning": {"kind": "full"}}
TEXTS: dict[str, Any] = {"method": {"name": "pretrain"}, "tuning": {"kind": "full"}}
CASES = ["lora", "full", "texts", "pairs", "judged", "4 bits"]
PAIRS: dict[str, Any] = {"method": {"name": "dpo"}}
JUDGED: dict[str, Any] = {"method": {"name": "kto"}}
FEW_BITS: dict[str, Any] = {"model": {"quantize": {"kind": "nf4"}}}


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.training.workers._start", work.ForkedWorker)


def write(folder: Path, model: Path, processes: int, /, **sections: Any) -> Path:
    method = sections.get("method", {}).get("name", "sft")
    rows: list[dict[str, Any]] = [
        {"instruction": f"question {n} " * (1 + n % 4), "input": "", "output": f"It is {n * 7}."}
        for n in range(ROWS + HELD_OUT)
    ]
    if method == "pretrain":
        rows = [{"text": f"the quick brown fox jumps over {n} lazy dogs " * 2} for n in range(30)]
    if method == "dpo":
        rows = [
            {"instruction": f"question {n}", "chosen": "It is so.", "rejected": f"Who? {n}"}
            for n in range(ROWS + HELD_OUT)
        ]
    if method == "kto":
        rows = [
            {"prompt": f"question {n}", "completion": f"It is {n}.", "label": n % 3 > 0}
            for n in range(ROWS + HELD_OUT)
        ]
    data = tiny.write_rows(folder / "rows.jsonl", rows[:-HELD_OUT])
    held_out = tiny.write_rows(folder / "held_out.jsonl", rows[-HELD_OUT:])
    options: dict[str, Any] = {
        "data": {"train": [str(data)], "validation": [str(held_out)], "max_tokens": 64},
        "compute": {"precision": "fp32", "threads": 1, "processes": processes},
        "optimizer": {"learning_rate": 1e-3, "batch_size": 4},
        "run": {"name": f"of-{processes}", "steps": 6, "seed": 1, "save_every_steps": 2},
        **sections,
    }
    return tiny.write_recipe(folder / f"recipe-{processes}.json", model, data, **options)


def train_by(processes: int, folder: Path, model: Path, /, **sections: Any) -> Run:
    return train(load_recipe(write(folder, model, processes, **sections)))


def figures(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


@pytest.mark.parametrize("sections", [CHATS, FULL, TEXTS, PAIRS, JUDGED, FEW_BITS], ids=CASES)
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, tiny_model: Path, sections: dict[str, Any]
) -> None:
    one = train_by(1, tmp_path, tiny_model, **sections)
    two = train_by(2, tmp_path, tiny_model, **sections)
    assert two.status().state == "done"
    assert (one.recipe().compute.processes, two.recipe().compute.processes) == (1, 2)
    for name, expected in tiny.weights(one).items():
        torch.testing.assert_close(tiny.weights(two)[name], expected, rtol=1e-6, atol=2e-6)
    for name in ("loss", "eval_loss", "grad_norm"):
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-5)
    for name in ("rewards_margin", "eval_rewards_margin", "logps_chosen", "kl"):
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-3, abs=1e-6)
    assert bool(figures(two, "rewards_margin")) == ("method" in sections and sections != TEXTS)


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["hqq", "gptq"])
def test_few_bits_of_other_kinds_learn_alike_too(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    before = packed.make_packed(tmp_path / "m", "gptq")
    model = tiny_model if kind == "hqq" else before
    quantize = {"kind": "hqq", "bits": 3} if kind == "hqq" else None
    sections: dict[str, Any] = {"model": {"quantize": quantize}}
    one, two = (train_by(count, tmp_path, model, **sections) for count in (1, 2))
    for name, expected in tiny.weights(one).items():
        torch.testing.assert_close(tiny.weights(two)[name], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.proof
@pytest.mark.parametrize("shape", ["routed", "mixture", "balanced", "gemma2", "gpt2"])
def test_models_of_other_kinds_learn_alike_too(tmp_path: Path, shape: str) -> None:
    dropped = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    model = tiny.make_model(tmp_path / shape, shape, **(dropped if shape == "gpt2" else {}))
    one, two = (train_by(count, tmp_path, model, **FULL) for count in (1, 2))
    for name, expected in tiny.weights(one).items():
        torch.testing.assert_close(tiny.weights(two)[name], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.proof
@pytest.mark.parametrize("init", ["eva", "loftq"])
def test_adapters_begin_alike(tmp_path: Path, tiny_model: Path, init: str) -> None:
    quantize = {"kind": "hqq", "bits": 3} if init == "loftq" else None
    tuning = {"kind": "lora", "rank": 4, "init": init}
    sections: dict[str, Any] = {"model": {"quantize": quantize}, "tuning": tuning}
    one, two = (train_by(count, tmp_path, tiny_model, **sections) for count in (1, 2))
    found = {run: load_file(run.beginning_file) for run in (one, two)}
    for name, expected in found[one].items():
        assert torch.equal(found[two][name], expected)
    for name in ("loss", "eval_loss", "grad_norm"):
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-5)
    ours, theirs = (load_file(run.model / "adapter_model.safetensors") for run in (two, one))
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.proof
def test_weighed_answers_and_named_sets_are_shared_alike(tmp_path: Path, tiny_model: Path) -> None:
    def talk(number: int) -> dict[str, Any]:
        answer = {"role": "assistant", "content": f"It is {number}.", "weight": number % 4 / 4}
        question = {"role": "user", "content": f"question {number}"}
        return {"messages": [question, {**answer, "weight": None}, question, answer]}

    files = [
        str(
            tiny.write_rows(
                tmp_path / f"{start}.jsonl", [talk(n) for n in range(start, start + 12)]
            )
        )
        for start in (100, 200, 300)
    ]
    held_out = {"faq": files[1], "tools": files[2]}
    data = {"train": files[:1], "validation": held_out, "max_tokens": 128}
    one, two = (train_by(count, tmp_path, tiny_model, data=data) for count in (1, 2))
    for name in ("loss", "eval_loss", "eval_faq_loss", "eval_tools_loss", "grad_norm"):
        assert figures(one, name)
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-5)
    for name, expected in tiny.weights(one).items():
        torch.testing.assert_close(tiny.weights(two)[name], expected, rtol=1e-6, atol=2e-6)


@pytest.mark.proof
def test_the_same_processes_learn_the_same_bits(tmp_path: Path, tiny_model: Path) -> None:
    noisy = {
        "tuning": {"kind": "lora", "rank": 4, "dropout": 0.1},
        "method": {"name": "sft", "neftune_alpha": 5.0},
    }
    runs = [train_by(2, tmp_path, tiny_model, **noisy) for _ in range(2)]
    assert work.weights_of(runs[0]) == work.weights_of(runs[1])
    assert runs[0].metrics()[0]["loss"] == runs[1].metrics()[0]["loss"]


@pytest.mark.proof
def test_rows_read_ahead_and_batches_of_a_row_are_learned_alike(
    tmp_path: Path, tiny_model: Path
) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, 2))
    one = train(changed(recipe, "compute", processes=1))
    ahead = changed(changed(recipe, "compute", tokens_per_batch=8), "data", workers=1)
    two = train(ahead)
    for name, expected in tiny.weights(one).items():
        torch.testing.assert_close(tiny.weights(two)[name], expected, rtol=1e-6, atol=2e-6)


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(
    tmp_path: Path, tiny_model: Path
) -> None:
    run = train_by(2, tmp_path, tiny_model)
    recipe = run.recipe_file.read_text("utf-8")
    assert "processes: 2" in recipe
    run.recipe_file.write_text(recipe.replace("processes: 2", "processes: 3"), "utf-8")
    with pytest.raises(RunError, match=r"compute\.processes: 2 -> 3"):
        resume(run)
    list_checkpoints(run.checkpoints)[-1].rename(run.checkpoints / "gone")
    newest = list_checkpoints(run.checkpoints)[-1]
    assert verify(newest).problem == ""
    manifest = newest / MANIFEST
    listed = manifest.read_text("utf-8")
    manifest.write_text(listed.replace("ranks/1/rng_state.pth", "ranks/2/rng_state.pth"), "utf-8")
    assert verify(newest).problem == "ranks/1/rng_state.pth is not listed"
    manifest.write_text(listed, "utf-8")
    resume(run, accept_changes=True)
    assert (run.status().state, run.status().identical) == ("done", False)


def test_all_have_the_reference_also_where_it_cannot_be_kept(
    tmp_path: Path, tiny_model: Path
) -> None:
    one = train_by(1, tmp_path, tiny_model, **PAIRS)
    kept = read_settings().cache / "reference"
    shutil.rmtree(kept)
    kept.write_text("no folder", "utf-8")
    two = train_by(2, tmp_path, tiny_model, **PAIRS)
    assert "cannot be kept" in two.log_file.read_text("utf-8")
    assert figures(two, "loss") == pytest.approx(figures(one, "loss"), rel=1e-5)


@pytest.mark.proof
def test_a_reference_is_the_same_to_the_bit_however_many_compute_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    kept = read_settings().cache / "reference"
    found = []
    for processes in (1, 2):
        train_by(processes, tmp_path, tiny_model, **PAIRS)
        found.append({file.name: file.read_bytes() for file in kept.iterdir()})
        shutil.rmtree(kept)
    assert len(found[0]) == 2  # of training rows and held-out rows
    assert found[0] == found[1]


def test_all_stop_early_together_and_publish_the_best(tmp_path: Path, tiny_model: Path) -> None:
    options = {"learning_rate": 0.3, "batch_size": 4, "warmup": 0, "early_stopping": 1}
    times = {"every_steps": 1}
    run = train_by(2, tmp_path, tiny_model, optimizer=options, evaluate=times, **FULL)
    status = run.status()
    assert (status.state, status.step < status.num_steps) == ("done", True)


def test_more_processes_than_rows_or_gpus_are_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="5 processes are to share the 4 rows") as caught:
        train_by(5, tmp_path, tiny_model)
    assert caught.value.where == "compute.processes"
    recipe = load_recipe(write(tmp_path, tiny_model, 3))
    gpu = torch.device("cuda")
    monkeypatch.setattr("tunesmith.training.processes.choose_device", lambda option: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RecipeError, match="3 processes need a GPU each, torch sees 2"):
        num_processes(recipe)
    assert num_processes(changed(recipe, "compute", processes=None)) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert num_processes(changed(recipe, "compute", processes=None)) == 4  # rows of an update


def test_a_plan_names_the_processes_and_what_each_takes(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    found = command("train", write(tmp_path, tiny_model, 2), "--dry-run")
    assert found.code == 0
    assert "2 processes, each on cpu" in found.out
    assert "are free, for each process" in found.out


def test_too_little_memory_for_all_is_answered_with_fewer(tmp_path: Path, tiny_model: Path) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, 2))
    held = psutil.Process().memory_info().rss / GIB  # what the estimate takes for libraries
    with pytest.raises(RunError, match="each of 2 processes needs about") as caught:
        train(changed(recipe, "compute", memory_gib=1.5 * held + 0.2))
    assert caught.value.hint == "write compute.processes: 1"


def changed(recipe: Recipe, section: str, **options: Any) -> Recipe:
    sections = recipe.model_dump(mode="json")
    return Recipe.model_validate({**sections, section: {**sections[section], **options}})
