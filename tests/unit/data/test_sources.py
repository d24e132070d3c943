"""Which files a source means: a file, a folder, a split of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import write_rows
from tests.unit.data.files import write
from tunesmith.data.sources import find_files, find_sets
from tunesmith.errors import DataError
from tunesmith.recipe.data import Data, Source

ROW = [{"instruction": "a", "output": "b"}]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        write_rows(folder / name, ROW)
    return folder


def names(folder: Path, split: str | None = None) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_files(folder, split)]


def refuse(folder: Path, split: str | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        find_files(folder, split)
    return caught.value


def test_a_file_is_itself(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROW)
    assert find_files(path) == [path]


def test_a_folder_is_its_data_files_in_order_of_names(tmp_path: Path) -> None:
    make(tmp_path, "b.jsonl", "a.csv", "deep/c.parquet", "README.md", "dataset_info.json")
    assert names(tmp_path) == ["a.csv", "b.jsonl", "deep/c.parquet"]


def test_hidden_files_are_not_data(tmp_path: Path) -> None:
    make(tmp_path, ".cache/a.jsonl", ".b.jsonl", "c.jsonl")
    assert names(tmp_path) == ["c.jsonl"]


def test_a_hidden_folder_above_hides_nothing(tmp_path: Path) -> None:
    assert names(make(tmp_path / ".cache" / "set", "a.jsonl")) == ["a.jsonl"]


HELD_OUT = [
    "test.jsonl",
    "validation.jsonl",
    "dev.json",
    "eval-00000-of-00001.parquet",
    "Test_1.csv",
    "test/0.jsonl",
    "data/validation/0.jsonl",
]


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_folder_that_holds_a_test_part_is_not_learned_whole(tmp_path: Path, name: str) -> None:
    make(tmp_path, "train.jsonl", name)
    problem = refuse(tmp_path)
    assert problem.message.startswith(f"the folder holds {name} beside other files")
    assert "split: train" in problem.hint


@pytest.mark.parametrize("name", ["testimonials.jsonl", "evaluation_notes.jsonl", "developer.csv"])
def test_names_that_only_begin_alike_are_no_test_part(tmp_path: Path, name: str) -> None:
    make(tmp_path, "train.jsonl", name)
    assert names(tmp_path) == sorted(["train.jsonl", name])


def test_a_folder_of_test_files_alone_may_be_read(tmp_path: Path) -> None:
    make(tmp_path, "test.jsonl", "test-1.jsonl")
    assert len(names(tmp_path)) == 2


SHARDS = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
SPLITS = [
    (["train.jsonl", "test.jsonl"], "train", ["train.jsonl"]),
    ([*SHARDS, "validation-0.parquet"], "train", SHARDS),
    (["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"], "test", ["test/a.jsonl"]),
    (["train.jsonl", "train_sft.jsonl"], "train", ["train.jsonl"]),
    (["a.b.jsonl", "aXb.jsonl"], "a.b", ["a.b.jsonl"]),
]


@pytest.mark.parametrize(("files", "split", "expected"), SPLITS)
def test_a_split_is_the_files_of_its_name(
    tmp_path: Path, files: list[str], split: str, expected: list[str]
) -> None:
    assert names(make(tmp_path, *files), split) == expected


def test_a_split_that_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    problem = refuse(make(tmp_path, "train.jsonl"), "trian")
    assert problem.message == "the folder holds no file of the split 'trian'"
    assert problem.hint == "it holds train.jsonl"


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    problem = refuse(tmp_path / "none.jsonl")
    assert problem.message == "there is no such file or folder"
    assert problem.where == str(tmp_path / "none.jsonl")


def test_a_folder_without_data_is_refused_with_the_kinds(tmp_path: Path) -> None:
    write(tmp_path / "notes.docx", b"x")
    problem = refuse(tmp_path)
    assert problem.message == "the folder holds no data file"
    assert ".jsonl" in problem.hint


def test_sources_become_sets_with_all_their_options(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROW)
    source = Source(
        path=str(path),
        format="alpaca",
        weight=2.0,
        max_rows=5,
        columns={"instruction": "q"},
    )
    (rows,) = find_sets([source], Data(train=(source,)), "conversation")
    assert (rows.name, rows.files, rows.format) == (str(path), (path,), "alpaca")
    assert (rows.weight, rows.max_rows, dict(rows.columns)) == (2.0, 5, {"instruction": "q"})


def test_a_home_folder_may_be_written_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_rows(tmp_path / "a.jsonl", ROW)
    source = Source(path="~/a.jsonl")
    (rows,) = find_sets([source], Data(train=(source,)), "conversation")
    assert rows.files == (path,)


def test_a_split_of_a_single_file_is_refused(tmp_path: Path) -> None:
    source = Source(path=str(write_rows(tmp_path / "a.jsonl", ROW)), split="train")
    with pytest.raises(DataError, match="the split 'train' has no effect: this is a single file"):
        find_sets([source], Data(train=(source,)), "conversation")


def test_what_only_tells_of_the_data_is_not_data(tmp_path: Path) -> None:
    make(tmp_path, "dataset_dict.json", "README.txt", "LICENSE.txt", "licence.txt", "readmes.txt")
    make(tmp_path / "saved", "dataset_info.json", "state.json", "data-00000-of-00001.arrow")
    make(tmp_path / "states", "state.json")
    assert names(tmp_path) == [
        "readmes.txt",
        "saved/data-00000-of-00001.arrow",
        "states/state.json",
    ]
