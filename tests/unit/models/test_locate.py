"""A model is found by what a person would call it, and nothing is ever downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import tiny
from tunesmith import starter
from tunesmith.errors import ModelError
from tunesmith.models.locate import locate

NAME = "Acme/tiny-chat"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Files that look like a model; nothing here opens them."""
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def entry(tmp_path: Path, model: Path) -> Path:
    """The model in the cache of HF_HOME."""
    return tiny.make_cache_entry(tmp_path / "hub" / "hub", NAME, model)


def refusal(name: str | Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        locate(name)
    return caught.value


def test_a_plain_folder_is_found_by_its_path(model: Path) -> None:
    assert locate(model) == model
    assert locate(str(model)) == model


def test_a_relative_path_becomes_absolute(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert locate("plain") == model


def test_a_path_in_the_home_folder_is_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert locate("~/plain") == model


def test_the_starter_is_found_by_its_name() -> None:
    assert locate("starter") == starter.MODEL


def test_a_cache_entry_leads_to_the_snapshot_that_its_reference_names(entry: Path) -> None:
    (entry / "snapshots" / "older").mkdir()
    assert locate(entry) == entry / "snapshots" / "0a1b2c"


def test_a_snapshot_of_links_is_a_model_folder(entry: Path) -> None:
    snapshot = entry / "snapshots" / "0a1b2c"
    assert (snapshot / "config.json").is_symlink()
    assert locate(snapshot) == snapshot


def test_a_link_to_a_cache_entry_is_followed(entry: Path, tmp_path: Path) -> None:
    (tmp_path / "chosen").symlink_to(entry)
    found = locate(tmp_path / "chosen")
    assert found.samefile(entry / "snapshots" / "0a1b2c")


def test_a_folder_that_holds_one_cache_entry_leads_to_it(entry: Path) -> None:
    assert locate(entry.parent) == entry / "snapshots" / "0a1b2c"


def test_a_name_is_looked_up_below_hf_home(entry: Path) -> None:
    assert locate(NAME) == entry / "snapshots" / "0a1b2c"


def test_a_name_is_looked_up_in_hf_home_itself(model: Path, tmp_path: Path) -> None:
    entry = tiny.make_cache_entry(tmp_path / "hub", NAME, model)
    assert locate(NAME) == entry / "snapshots" / "0a1b2c"


def test_hf_hub_cache_comes_before_hf_home(
    entry: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "shared"))
    other = tiny.make_cache_entry(tmp_path / "shared", NAME, model, revision="ffff")
    assert locate(NAME) == other / "snapshots" / "ffff"


def test_an_entry_without_reference_is_taken_if_it_has_one_snapshot(entry: Path) -> None:
    shutil.rmtree(entry / "refs")
    assert locate(entry) == entry / "snapshots" / "0a1b2c"


def test_an_entry_without_reference_and_two_snapshots_is_refused(entry: Path) -> None:
    shutil.rmtree(entry / "refs")
    (entry / "snapshots" / "other").mkdir()
    problem = refusal(entry)
    assert problem.message == "the cache entry has 2 snapshots and no refs/main"
    assert problem.hint == "name one of its snapshots: 0a1b2c, other"
    assert problem.where == str(entry)


def test_a_reference_to_a_snapshot_that_is_not_there_is_refused(entry: Path) -> None:
    (entry / "refs" / "main").write_text("beef", "utf-8")
    assert refusal(entry).message == "refs/main names the snapshot beef, which is not there"


@pytest.mark.parametrize("content", [b"..", b"../../..", b"/", b"", b"\xff\xfe", b"a\0b"])
def test_a_reference_never_leads_out_of_the_snapshots(entry: Path, content: bytes) -> None:
    (entry / "refs" / "main").write_bytes(content)
    assert "refs/main" in refusal(entry).message


def test_a_broken_link_is_named_with_what_it_points_to(entry: Path) -> None:
    target = (entry / "snapshots" / "0a1b2c" / "model.safetensors").resolve()
    target.unlink()
    problem = refusal(entry)
    assert "model.safetensors is a link to ../../blobs/" in problem.message
    assert "cp -rL" in problem.hint
    assert problem.where == str(entry / "snapshots" / "0a1b2c")


def test_a_copied_snapshot_without_its_blobs_is_refused(entry: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(entry / "snapshots" / "0a1b2c", copied, symlinks=True)
    assert "is a link to" in refusal(copied).message


def test_a_near_name_is_suggested(entry: Path) -> None:
    problem = refusal("acme/tiny-chat")
    assert problem.hint == f"did you mean {NAME}?"
    assert str(entry.parent) in problem.where
    assert refusal("startr").hint == "did you mean starter?"


def test_a_name_like_no_other_gets_advice(tmp_path: Path) -> None:
    problem = refusal("nowhere/to-be-found-9000")
    assert "nowhere/to-be-found-9000" in problem.message
    assert "HF_HOME" in problem.hint


def test_a_file_is_no_model(model: Path) -> None:
    problem = refusal(model / "config.json")
    assert problem.message == "a model is a folder, this is a file"


def test_a_folder_of_something_else_is_described(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("hello", "utf-8")
    problem = refusal(tmp_path / "notes")
    assert problem.message == "the folder holds no config.json"
    assert "readme.txt" in problem.hint


@pytest.mark.parametrize(("file", "hint"), [
    ("adapter_config.json", "tunesmith export "), ("config.json", "/run/model"),
])  # fmt: skip
def test_a_run_in_the_place_of_a_model_is_told_from_one(
    tmp_path: Path, file: str, hint: str
) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / file).write_text("{}")
    problem = refusal(tmp_path / "run")
    assert problem.message.startswith("this is a run")
    assert hint in problem.hint


def test_a_folder_of_several_cache_entries_names_them(entry: Path, model: Path) -> None:
    tiny.make_cache_entry(entry.parent, "Acme/other", model)
    assert "models--Acme--other" in refusal(entry.parent).hint


def test_a_folder_of_a_gguf_names_what_serves_it(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    problem = refusal(tmp_path)
    assert problem.message == "the folder holds model.gguf, which llama.cpp reads and we do not"
    assert f"tunesmith serve {tmp_path}/model.gguf" in problem.hint


def test_a_path_where_nothing_lies_any_more_is_not_looked_up_in_caches(tmp_path: Path) -> None:
    problem = refusal(tmp_path / "moved")
    assert problem.where == str(tmp_path / "moved")
    assert "put it back" in problem.hint


def test_an_adapter_alone_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8")
    problem = refusal(tmp_path)
    assert problem.message == "this is an adapter without its base model"
    assert "run" in problem.hint


@pytest.mark.parametrize(
    "name", ["", "  ", "a\0b", "x" * 5000, "../" * 40 + "none", "models--"], ids=range(6)
)
def test_strange_names_are_refused_like_any_other(name: str) -> None:
    assert "there is no model" in refusal(name).message


def test_a_broken_link_given_by_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    problem = refusal(tmp_path / "link")
    assert problem.message == f"link is a link to {tmp_path / 'gone'}, which is not there"
