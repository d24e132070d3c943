"""Rows that show something are learned alike, however an update is divided."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import seeing, tiny
from tests.faults import work
from tests.theirs import become, write_sets
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.settings import read_settings
from tunesmith.training.checkpoints import list_checkpoints, step_of
from tunesmith.training.train import resume, train

ROWS, HELD_OUT = 9, 3
REWARD = """
def third(completion_ids):
    return [float(ids[0] % 3) for ids in completion_ids]
"""
SHOWN = {"image": "images", "video": "videos", "audio": "audios"}
CASES = [
    ("Qwen 2 VL", "image", "sft"),
    ("Qwen 2 VL", "image", "kto"),
    ("Gemma 3", "image", "dpo"),
    ("LLaVA", "image", "sft"),
    ("Qwen 2.5 VL", "video", "sft"),
    ("Qwen 2 Audio", "audio", "sft"),
    ("Qwen 2 Audio", "audio", "dpo"),
]
"""Families whose rows lie end to end, and Gemma and the one that hears, whose rows are padded."""
ALL: dict[str, Any] = {"kind": "full", "parts": ["language", "projector", "tower"]}
WAYS: dict[str, dict[str, Any]] = {
    "accumulated": {"optimizer": {"batch_size": 1, "accumulation": 4}},
    "a row a batch": {"compute": {"tokens_per_batch": 8}},
    "read ahead": {"data": {"workers": 1}},
    "two processes": {"compute": {"processes": 2}},
    "two processes, a row a batch": {"compute": {"processes": 2, "tokens_per_batch": 8}},
}


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.training.workers._start", work.ForkedWorker)


def write_media(folder: Path, kind: str, number: int) -> str:
    """Write something to show, of another size or length each."""
    if kind == "image":
        colour = list(seeing.COLOURS)[number % 3]
        seeing.make_picture(colour, number).save(folder / f"{number}.png")
        return f"{number}.png"
    if kind == "video":
        colours = ["red", "green", "blue", "red"][: 2 + 2 * (number % 2)]
        first, *rest = map(seeing.make_picture, colours)
        first.save(folder / f"{number}.gif", save_all=True, append_images=rest, duration=500)
        return f"{number}.gif"
    path = seeing.write_sound(folder / f"{number}.wav", 300 + number, seconds=0.2 + number % 7 / 10)
    return path.name


def write_rows(folder: Path, kind: str, method: str) -> Path:
    """Write rows of which some show nothing, one two things; an epoch's last update has one."""
    rows: list[dict[str, Any]] = []
    for number in range(ROWS + HELD_OUT):
        count = 0 if number in (2, 3, 8) else 2 if number == 5 else 1
        names = [write_media(folder, kind, 10 * number + at) for at in range(count)]
        asked = {"instruction": f"<{kind}>" * count + f"what is it? {number}"}
        answered: dict[str, Any] = {"output": f"It is {number * 7}."}
        if method == "dpo":
            answered = {"chosen": f"It is {number * 7}.", "rejected": "no, " * (1 + number % 3)}
        elif method == "kto":
            answered |= {"label": number % 2 == 0}
        rows.append({**asked, **answered, SHOWN[kind]: names})
    tiny.write_rows(folder / "held_out.jsonl", rows[ROWS:])
    return tiny.write_rows(folder / "rows.jsonl", rows[:ROWS])


def train_by(folder: Path, model: Path, data: Path, method: str, /, **sections: Any) -> Run:
    usual: dict[str, dict[str, Any]] = {
        "data": {"max_tokens": 512, "validation": [str(folder / "held_out.jsonl")]},
        "method": {"name": method},
        "tuning": ALL,
        "optimizer": {"learning_rate": 1e-3, "batch_size": 4},
        "compute": {"processes": 1},
        "run": {"steps": 4},
    }
    given = {name: {**options, **sections.get(name, {})} for name, options in usual.items()}
    return train(load_recipe(tiny.write_recipe(folder / "recipe.json", model, data, **given)))


def figures(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


@pytest.mark.proof
@pytest.mark.parametrize(("family", "kind", "method"), CASES)
def test_an_update_learns_alike_however_it_is_divided(
    tmp_path: Path, family: str, kind: str, method: str
) -> None:
    model = seeing.make_seeing_model(tmp_path / "model", family)
    data = write_rows(tmp_path, kind, method)
    whole = train_by(tmp_path, model, data, method)
    expected = load_file(next(whole.model.glob("*.safetensors")))
    before = load_file(model / "model.safetensors")
    tower = [name for name in before if "vis" in name or "audio" in name]
    assert any(not torch.equal(before[name], expected[name]) for name in tower)
    for name, way in WAYS.items():
        kept = read_settings().cache / "reference"
        for file in kept.glob("*"):  # so that each way asks the reference itself
            file.unlink()
        run = train_by(tmp_path, model, data, method, **way)
        assert run.status().state == "done", name
        for figure in ("loss", "eval_loss", "grad_norm"):
            assert figures(whole, figure)
            assert figures(run, figure) == pytest.approx(figures(whole, figure), rel=1e-5), name
        found = load_file(next(run.model.glob("*.safetensors")))
        for weight, value in expected.items():
            torch.testing.assert_close(
                found[weight], value, rtol=1e-5, atol=1e-5, msg=f"{name}: {weight}"
            )


def test_a_set_with_images_that_is_streamed_is_learned_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sets(tmp_path)
    monkeypatch.chdir(tmp_path)
    keys: dict[str, Any] = {"max_steps": 5, "max_samples": None, "image_max_pixels": 500}
    streamed = become(**keys, streaming=True, buffer_size=9)
    assert streamed.recipe == become(**keys).recipe
    assert set(streamed.notes) >= {"streaming", "buffer_size"}


@pytest.mark.proof
def test_two_processes_share_questions_about_images_and_go_on_to_the_same_weights(
    tmp_path: Path,
) -> None:
    model = seeing.make_seeing_model(tmp_path / "model", "Qwen 2 VL")
    rows = []
    for number in range(7):
        write_media(tmp_path, "image", number)
        rows.append({"prompt": "<image>which colour?", "images": [f"{number}.png"]})
    (tmp_path / "mine.py").write_text(REWARD, "utf-8")
    rewards = [{"kind": "function", "function": f"{tmp_path / 'mine.py'}:third"}]
    method = {"name": "grpo", "rewards": rewards, "answer_tokens": 6, "group_size": 4}
    recipe = tiny.write_recipe(
        tmp_path / "recipe.json",
        model,
        tiny.write_rows(tmp_path / "questions.jsonl", rows),
        method={**method, "iterations": 2},
        tuning=ALL,
        optimizer={"learning_rate": 1e-3, "batch_size": 3},
        compute={"processes": 2},
        run={"steps": 5, "save_every_steps": 3},
    )
    whole = train(load_recipe(recipe))
    expected = tiny.weights(whole)
    before = load_file(model / "model.safetensors")
    assert any(not torch.equal(before[name], expected[name]) for name in before if "vis" in name)
    for folder in list_checkpoints(whole.checkpoints):
        if step_of(folder) > 3:  # in the middle of answers that are still learned from
            shutil.rmtree(folder)
    again = tiny.weights(resume(Run(whole.path)))
    assert all(torch.equal(again[name], one) for name, one in expected.items())
