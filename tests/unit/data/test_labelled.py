"""Labelled texts: how they are read, checked, shown and cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.command import Command
from tunesmith.data.check import check
from tunesmith.data.labels import find_labels, number_labels
from tunesmith.data.prepare import prepare
from tunesmith.data.rows import Learn
from tunesmith.data.show import show
from tunesmith.errors import DataError
from tunesmith.models.reader import find_reader
from tunesmith.recipe.data import Data

LEARN = Learn(kind="labelled")


def test_labels_are_names_or_whole_numbers(tmp_path: Path, tiny_model: Path) -> None:
    labels: list[Any] = ["zoo", 10, 9.0, True, " zoo ", 9]
    good = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    bad: list[Any] = [
        {"text": "a", "label": None},
        {"text": "a", "label": 0.5},
        {"text": "a", "label": " "},
        {"text": " ", "label": "x"},
        {"text": "a"},
    ]
    path = tiny.write_rows(tmp_path / "rows.jsonl", [*good, *bad])
    reader = find_reader(tiny_model)
    data = Data(train=(str(path),), on_bad_row="skip")  # type: ignore[arg-type]
    splits = prepare(data, LEARN, reader.tokenizer, None, seed=1)
    assert find_labels(splits.train) == ("9", "10", "true", "zoo")
    assert [problem.reason for problem in splits.report.problems] == [
        "`label` is null, not the name of a class",
        "`label` is a number, not the name of a class",
        "`label` is empty",
        "the text is empty",
        "`label` is missing",
    ]


def test_odd_labels_are_sorted_too(tmp_path: Path, tiny_model: Path) -> None:
    labels = ["b", "7" * 5000, "1", 0, -1, "²"]
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate([*labels, 1e300])]
    path = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    data = Data(train=(str(path),), on_bad_row="skip")  # type: ignore[arg-type]
    splits = prepare(data, LEARN, find_reader(tiny_model).tokenizer, None, seed=1)
    assert find_labels(splits.train) == ("-1", "0", "1", "7" * 5000, "b", "²")
    (problem,) = splits.report.problems
    assert problem.reason == "`label` is a number, not the name of a class"
    with pytest.raises(DataError) as refused:
        number_labels(splits.train, ["0"])
    assert len(refused.value.message + refused.value.hint) < 200


def test_an_image_that_is_a_pipe_is_a_bad_row(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    names = ["pipe.png", "gone\nfor good.png"]
    rows = [{"image_path": name, "label": "x"} for name in names]
    report = check(tiny.write_rows(tmp_path / "rows.jsonl", rows))
    assert (report.num_read, report.num_reported) == (2, 2)
    assert report.problems[0].reason == "the image pipe.png is no file"
    assert "\n" not in report.problems[1].reason


def test_long_texts_are_cut_left_out_or_stop(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"text": "fox dog " * 20, "label": "a"}, {"text": "fox", "label": "b"}]
    path, reader = tiny.write_rows(tmp_path / "rows.jsonl", rows), find_reader(tiny_model)
    found = {}
    for policy in ("cut", "skip"):
        data = Data(train=(str(path),), max_tokens=8, on_long_row=policy)  # type: ignore[arg-type]
        found[policy] = prepare(data, LEARN, reader.tokenizer, None, seed=1)
    whole = reader.tokenizer(rows[0]["text"])["input_ids"]
    first = found["cut"].train[0]
    assert first["input_ids"] == whole[:8]
    assert first["labels"] == [-100] * 7 + [whole[7]]
    assert (found["cut"].report.num_cut, len(found["skip"].train)) == (1, 1)
    data = Data(train=(str(path),), max_tokens=8, on_long_row="stop")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="over 8 tokens"):
        prepare(data, LEARN, reader.tokenizer, None, seed=1)


def test_a_check_counts_classes_and_finds_contradictions(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    rows = [
        {"text": "a b", "label": "x"},
        {"text": "a b", "label": "y"},
        {"text": "c", "label": "x"},
    ]
    path = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    report = check(path, find_reader(tiny_model).tokenizer)
    assert (report.kind, report.labels) == ("labelled", {"x": 2, "y": 1})
    assert (report.num_contradictions, report.num_duplicate_rows) == (1, 0)
    told = command("data", "check", str(path))
    assert "x 2, y 1" in " ".join(told.out.split())


def test_the_class_is_read_after_the_last_token(tmp_path: Path, tiny_model: Path) -> None:
    path = tiny.write_rows(tmp_path / "rows.jsonl", [{"text": "fox and dog", "label": "zoo"}])
    shown = show(path, 1, find_reader(tiny_model).tokenizer, None, LEARN)
    assert [token.learned for token in shown.tokens] == [False] * (len(shown.tokens) - 1) + [True]
    assert (shown.title, "".join(token.text for token in shown.tokens)) == ("zoo", "fox and dog")


def test_a_first_row_without_a_text_does_not_hide_what_the_others_are(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = [{"text": None, "label": "a"}, {"text": "fox", "label": "b"}]
    info = tiny.write_rows(tmp_path / "rows.jsonl", rows).with_name("dataset_info.json")
    info.write_text('{"tickets": {"file_name": "rows.jsonl"}}', "utf-8")
    for more in ({"train": (str(tmp_path / "rows.jsonl"),)}, {"train": ("tickets",), "info": info}):
        data = Data(on_bad_row="skip", **more)  # type: ignore[arg-type]
        splits = prepare(data, LEARN, find_reader(tiny_model).tokenizer, None, seed=1)
        assert (len(splits.train), splits.report.num_bad) == (1, 1)
