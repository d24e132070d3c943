from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.data.check import check
from tunesmith.data.info import describe_set
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.models.locate import locate
from tunesmith.paths import exists, expand
from tunesmith.recipe.data import Source
from tunesmith.recipe.load import build_recipe
from tunesmith.settings import read_settings
from tunesmith.templates import named_template

NO_FILES = ("~nosuchuser/rows.jsonl", "a" * 5000, "a\0b")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expand("~/rows.jsonl") == Path("/home/somebody/rows.jsonl")


def test_the_home_of_nobody_stays_as_it_is() -> None:
    assert expand("~nosuchuser/rows.jsonl") == Path("~nosuchuser/rows.jsonl")


def test_nothing_has_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert exists(tmp_path)
    assert not exists(tmp_path / ("a" * 5000))
    assert not exists(tmp_path / "a\0b")


@pytest.mark.parametrize("name", NO_FILES)
def test_a_path_that_no_file_can_have_is_no_file(name: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        check(name)
    with pytest.raises(DataError, match="cannot be read"):
        describe_set(Source(path="rows"), Path(name), None)
    with pytest.raises(ModelError, match="no model"):
        locate(name)
    with pytest.raises(RecipeError, match="no chat template"):
        named_template(name)


@pytest.mark.parametrize("name", NO_FILES)
def test_a_recipe_keeps_a_path_that_no_file_can_have(name: str) -> None:
    recipe = build_recipe({"model": {"name": name}, "data": {"train": [name], "info": name}})
    assert recipe.data.train[0].path == recipe.model.name == name


@pytest.mark.parametrize("name", NO_FILES)
def test_an_entry_of_an_info_file_may_be_such_a_path(name: str, tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"rows": {"file_name": name}}), "utf-8")
    with pytest.raises(DataError, match="there is no file"):
        describe_set(Source(path="rows"), info, None)
    with pytest.raises(DataError, match="there is no set"):
        describe_set(Source(path=name), info, None)


def test_folders_of_the_environment_may_have_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_RUNS", "~nosuchuser/runs")
    assert read_settings().runs == Path("~nosuchuser/runs")
