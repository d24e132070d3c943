"""A run goes on over nothing that changed, unless it is told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests import tiny
from tunesmith.errors import RunError
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_json
from tunesmith.training.train import resume, train


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Run:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    path = tiny.write_recipe(
        tmp_path / "r.json", model, data, run={"steps": 4, "save_every_steps": 2}
    )
    run = train(load_recipe(path))
    shutil.rmtree(run.checkpoints / "step-000004")
    shutil.rmtree(run.model)
    return run


def change_data(run: Run) -> None:
    tiny.write_pairs(Path(run.recipe().data.train[0].path), start=1)


def change_base(run: Run) -> None:
    path = Path(run.recipe().model.name) / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] += 0.5
    save_file(tensors, path, metadata={"format": "pt"})


def change_tokenizer(run: Run) -> None:
    path = Path(run.recipe().model.name) / "tokenizer_config.json"
    path.write_text(
        path.read_text("utf-8").replace("assistant\\\\n", "assistant\\\\n\\\\n"), "utf-8"
    )


def change_options(run: Run) -> None:
    change_recipe(run, "optimizer", "learning_rate", 5e-3)


def change_threads(run: Run) -> None:
    change_recipe(run, "compute", "threads", 2)


def change_recipe(run: Run, section: str, option: str, value: object) -> None:
    recipe = yaml.safe_load(run.recipe_file.read_text("utf-8"))
    recipe[section][option] = value
    run.recipe_file.write_text(yaml.safe_dump(recipe), "utf-8")


def change_versions(run: Run) -> None:
    environment = run.environment()
    environment["versions"]["torch"] = "1.0"
    write_json(run.environment_file, environment)


CHANGES: dict[str, Callable[[Run], None]] = {
    "data: ": change_data,
    "base_weights: ": change_base,
    "tokenizer: ": change_tokenizer,
    "recipe.optimizer.learning_rate: 0.01 -> 0.005": change_options,
    "threads: 1 -> 2": change_threads,
    "versions.torch: 1.0 -> ": change_versions,
}


@pytest.mark.parametrize("difference", CHANGES)
def test_a_change_is_refused_with_the_difference_and_can_be_accepted(
    run: Run, difference: str
) -> None:
    CHANGES[difference](run)
    with pytest.raises(RunError, match="these changed") as caught:
        resume(run)
    assert difference in caught.value.message
    assert "--accept-changes" in caught.value.hint
    assert not run.model.exists()
    resume(run, accept_changes=True)
    status = run.status()
    assert status.state == "done"
    assert not status.identical
    assert "does not repeat" in run.report_file.read_text("utf-8")


def test_a_run_from_before_an_option_existed_goes_on(run: Run) -> None:
    environment = run.environment()
    recipe = yaml.safe_load(run.recipe_file.read_text("utf-8"))
    for written in (environment["recipe"], recipe):
        for option in ("name", "layer_decay", "min_rate", "decay", "power", "cycles", "eps"):
            del written["optimizer"][option]
        del written["tuning"]["lora_plus_ratio"]
    write_json(run.environment_file, environment)
    run.recipe_file.write_text(yaml.safe_dump(recipe), "utf-8")
    resume(run)
    assert run.status().identical
    assert run.status().state == "done"


def test_without_a_change_the_run_stays_identical(run: Run) -> None:
    resume(run)
    assert run.status().identical
