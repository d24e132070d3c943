"""Whatever a person names, a run, a checkpoint or a model, is found and can be talked to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith import starter
from tunesmith.errors import ModelError, RunError, TunesmithError
from tunesmith.models.chat import find_subject, load_chat_model
from tunesmith.runs.run import Run

SAVES = {"steps": 4, "save_every_steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Run]:
    """A run with an adapter and one with a whole model."""
    model = tiny.make_model(folder / "model")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(folder / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(folder / "cache"))
        return {
            kind: tiny.train_run(folder, model, run={**SAVES, "name": kind}, tuning={"kind": kind})
            for kind in ("lora", "full")
        }


@pytest.fixture
def runs(
    made: dict[str, Run], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Run]]:
    """Copies of both that a test may spoil, in the folder of runs."""
    shutil.copytree(folder / "runs", tmp_path / "runs")
    monkeypatch.setenv("TUNESMITH_RUNS", str(tmp_path / "runs"))
    return {kind: Run(tmp_path / "runs" / run.name) for kind, run in made.items()}


def refusal(name: str | Path) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        find_subject(name)
    return caught.value


def logits(name: str | Path, *, base_only: bool = False) -> torch.Tensor:
    chat = load_chat_model(name, base_only=base_only, precision="fp32", device="cpu")
    return chat.model(input_ids=torch.tensor([[1, 40, 50, 60]])).logits


def test_a_run_is_found_by_path_by_name_and_by_the_name_in_its_recipe(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs["lora"]
    found = [find_subject(name) for name in (run.path, str(run.path), run.name, "lora")]
    assert all(subject == found[0] for subject in found)
    assert found[0].adapter == run.model
    assert found[0].base.name == "model"
    assert found[0].run == run
    monkeypatch.chdir(run.path.parent)
    assert find_subject(run.name) == found[0]


def test_a_run_of_a_whole_model_has_no_adapter(runs: dict[str, Run]) -> None:
    subject = find_subject("full")
    assert (subject.base, subject.adapter) == (runs["full"].model, None)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_checkpoint_is_found_by_path_and_beside_the_name_of_its_run(
    runs: dict[str, Run], kind: str
) -> None:
    checkpoint = runs[kind].checkpoints / "step-000002"
    by_path = find_subject(checkpoint)
    assert checkpoint in (by_path.base, by_path.adapter)
    assert by_path.name == f"{runs[kind].name}/step-000002"
    assert find_subject(by_path.name) == by_path
    assert find_subject(f"{kind}/step-000002") == by_path


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_base_checkpoint_and_run_answer_differently(runs: dict[str, Run], kind: str) -> None:
    base = logits(kind, base_only=True)
    earlier = logits(runs[kind].checkpoints / "step-000002")
    tuned = logits(kind)
    assert torch.equal(tuned, logits(runs[kind].checkpoints / "step-000004"))
    assert not torch.equal(base, earlier)
    assert not torch.equal(earlier, tuned)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_base_of_a_run_is_the_model_it_started_from(
    runs: dict[str, Run], folder: Path, kind: str
) -> None:
    subject = find_subject(kind, base_only=True)
    assert (subject.base, subject.adapter) == (folder / "model", None)
    assert subject.name == f"base of {runs[kind].name}"
    assert torch.equal(logits(kind, base_only=True), logits(folder / "model"))


def test_a_model_folder_is_no_run(folder: Path) -> None:
    subject = find_subject(folder / "model")
    assert (subject.base, subject.run) == (folder / "model", None)


def test_the_starter_is_found(runs: dict[str, Run]) -> None:
    assert find_subject("starter").base == starter.MODEL


def test_a_template_of_the_recipe_goes_with_the_run(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny.train_run(
        tmp_path,
        folder / "model",
        model={"template": "alpaca"},
        run={"steps": 1},
    )
    for base_only in (False, True):
        chat = load_chat_model(run.name, base_only=base_only)
        assert chat.template is not None
        assert "### Instruction" in chat.template.source


def test_a_run_without_a_model_says_what_to_do(runs: dict[str, Run]) -> None:
    shutil.rmtree(runs["lora"].model)
    runs["lora"].write_status(state="stopped")
    problem = refusal("lora")
    assert isinstance(problem, RunError)
    assert problem.message == "the run has no trained model yet; it is stopped"
    assert f"tunesmith runs resume {runs['lora'].name}" in problem.hint
    assert f"{runs['lora'].name}/step-000004" in problem.hint


@pytest.mark.parametrize("name", ["lora/step-000003", "{path}/checkpoints/step-000003"])
def test_a_checkpoint_that_is_not_there_names_those_that_are(
    runs: dict[str, Run], name: str
) -> None:
    problem = refusal(name.format(path=runs["lora"].path))
    assert problem.message == "the run has no checkpoint step-000003"
    assert problem.hint == "it has step-000002, step-000004"


def test_a_name_that_two_runs_have_is_refused_with_both(runs: dict[str, Run]) -> None:
    twin = runs["lora"].path.with_name("2026-01-01-0000-lora")
    shutil.copytree(runs["lora"].path, twin)
    problem = refusal("lora")
    assert problem.message == "2 runs are called lora"
    assert twin.name in problem.hint


def test_a_near_run_is_suggested(runs: dict[str, Run]) -> None:
    problem = refusal("lorra")
    assert problem.message.startswith("there is no model lorra")
    assert problem.hint == "did you mean the run lora?"
    name = runs["full"].name
    assert refusal(f"{name}x").hint == f"did you mean the run {name}?"


def test_a_run_of_which_the_recipe_is_damaged_stands_in_nobody_s_way(
    runs: dict[str, Run], tmp_path: Path, folder: Path
) -> None:
    runs["full"].recipe_file.write_text("not: [a recipe", "utf-8")
    entry = tiny.make_cache_entry(tmp_path / "hub", "Acme/tiny", folder / "model")
    assert entry in find_subject("Acme/tiny").base.parents
    assert find_subject(runs["lora"].name).run == runs["lora"]


def test_a_name_like_no_other_is_refused(runs: dict[str, Run]) -> None:
    problem = refusal("something/else-entirely")
    assert isinstance(problem, ModelError)
    assert problem.message.startswith("there is no model something/else-entirely")


def test_a_run_whose_base_changed_since_is_refused(
    runs: dict[str, Run], tmp_path: Path, folder: Path
) -> None:
    base = tiny.make_model(tmp_path / "base")
    run = tiny.train_run(tmp_path, base, run={**SAVES, "name": "own"})
    load_chat_model(run.path)
    tiny.make_model(base, seed=7)
    with pytest.raises(ModelError, match="trained on another base: the weights differ"):
        load_chat_model(run.path)


def test_a_damaged_whole_model_of_a_run_is_refused(runs: dict[str, Run]) -> None:
    (path,) = runs["full"].model.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_chat_model("full")
