"""What `data check` and `data show` look at: a file described as a recipe, or a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Command
from tests.tiny import write_rows
from tests.unit.data.files import write
from tunesmith.data.describe import OPTIONS, describe
from tunesmith.errors import DataError, RecipeError

TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "bee"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "dee"},
]
DATA = {"train": ["a.jsonl"], "max_tokens": 99}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "a.jsonl", [{"messages": TURNS}])


def write_recipe(
    folder: Path, name: str = "r.yaml", *, model: object = "starter", **sections: object
) -> Path:
    recipe = {"model": {"name": str(model)}, "data": DATA, **sections}
    return write(folder / name, json.dumps(recipe))


@pytest.mark.parametrize("method", ["grpo", "ppo", "distill"])
def test_rows_are_shown_as_methods_learn_them_that_must_be_told_more(
    rows: Path, command: Command, method: str
) -> None:
    said = command("data", "show", str(rows), "--method", method).out
    assert ("dee" in said) == (method == "distill")
    assert "bee" in said


def test_a_file_is_described_as_a_recipe_would() -> None:
    given = {"model": "m", "template": "chatml", "method": "pretrain", "validation": "b.jsonl"}
    recipe = describe("a.jsonl", {**given, "max_tokens": 64, "encoding": "gbk"})
    assert (recipe.model.name, recipe.model.template, recipe.method.name) == (
        "m",
        "chatml",
        "pretrain",
    )
    assert [source.path for source in recipe.data.train] == ["a.jsonl"]
    assert [source.path for source in recipe.data.validation] == ["b.jsonl"]
    assert (recipe.data.max_tokens, recipe.data.encoding) == (64, "gbk")


@pytest.mark.parametrize("name", ["r.yaml", "r.YML", "r.json"])
def test_a_recipe_brings_all_of_its_own(tmp_path: Path, rows: Path, name: str) -> None:
    method = {"name": "sft", "learn_history": False}
    recipe = describe(str(write_recipe(tmp_path, name, method=method)), {"model": None})
    assert recipe.data.train[0].path == str(rows)
    assert recipe.data.max_tokens == 99
    assert recipe.method.model_dump() == {**recipe.method.model_dump(), **method}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_beside_a_recipe_has_no_effect(tmp_path: Path, option: str) -> None:
    with pytest.raises(DataError, match=f"--{option.replace('_', '-')} has no effect") as caught:
        describe(str(write_recipe(tmp_path)), {option: "1"})
    assert OPTIONS[option] in caught.value.hint


def test_a_recipe_that_is_wrong_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        describe(str(write(tmp_path / "r.yml", "data: {trian: [a.jsonl]}\n")), {})


@pytest.mark.parametrize("content", ["[]", '{"model": 1}', "{", '{"instruction": "data"}', "\xff"])
def test_rows_in_json_are_no_recipe(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "rows.json", content.encode("latin-1"))
    assert describe(str(path), {}).data.train[0].path == str(path)


@pytest.mark.parametrize("name", ["f\udcff.jsonl", "folder"])
def test_a_name_that_is_not_utf_8_is_refused(
    tmp_path: Path, reader_folder: Path, name: str, command: Command
) -> None:
    write_rows(tmp_path / "folder" / "f\udcff.jsonl", [{"text": "a"}])
    outcome = command("data", "check", tmp_path / name, "--model", reader_folder)
    assert outcome.code == 2
    assert "the name of the file is not UTF-8" in outcome.err
    assert r"f\udcff.jsonl" in outcome.err


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_no_folder(name: str, command: Command) -> None:
    outcome = command("data", "check", name)
    assert (outcome.code, "no file is named" in outcome.err) == (2, True)


@pytest.mark.parametrize("limit", ["0", "-1", "10000000000"])
@pytest.mark.parametrize("verb", ["check", "show"])
def test_a_limit_that_is_none_is_refused(
    rows: Path, verb: str, limit: str, command: Command
) -> None:
    outcome = command("data", verb, rows, "--max-tokens", limit)
    assert outcome.code == 2
    assert "max-tokens" in outcome.err.replace("_", "-")
    assert "pydantic" not in outcome.err


def test_a_recipe_is_shown_as_it_will_be_learned(
    tmp_path: Path, rows: Path, reader_folder: Path, command: Command
) -> None:
    last = {"method": {"learn_history": False}}
    one = command("data", "show", write_recipe(tmp_path, model=reader_folder, **last))
    both = command("data", "show", write_recipe(tmp_path, model=reader_folder))
    assert (one.code, both.code) == (0, 0)
    assert "⟦bee" not in one.out.replace("\n", "")
    assert "⟦bee" in both.out.replace("\n", "")
    assert "⟦dee" in one.out.replace("\n", "")


def test_a_recipe_for_pretraining_is_shown_and_checked(
    tmp_path: Path, reader_folder: Path, command: Command
) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "some text"}])
    recipe = write_recipe(tmp_path, model=reader_folder, method={"name": "pretrain"})
    shown, checked = command("data", "show", recipe), command("data", "check", recipe)
    assert (shown.code, checked.code) == (0, 0)
    assert "some text" in shown.out
    assert "text (text)" in checked.out
