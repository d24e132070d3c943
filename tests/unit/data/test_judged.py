"""Judged answers: one answer and whether it is good, read in several forms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows
from tests.unit.data.preparing import check_counts, prepare_files
from tunesmith.data.check import check
from tunesmith.data.formats import FORMATS, Judgement
from tunesmith.data.rows import Judged, Learn, RowFault
from tunesmith.data.show import render, show
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data

JUDGED = Learn("judged", history=False)
SPOKEN = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]
FORMS: dict[str, dict[str, Any]] = {
    "alpaca_judged": {"instruction": "why?", "output": "so", "label": True},
    "sharegpt_judged": {
        "conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}],
        "label": True,
    },
    "messages_judged": {"messages": SPOKEN, "label": True},
    "completion_judged": {"prompt": "why?", "completion": "so", "label": True},
}
TURNS = {"prompt": SPOKEN[:1], "completion": SPOKEN[1:], "label": False}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("label", [True, False])
def test_every_form_gives_the_same_judgement(name: str, label: bool) -> None:
    known = FORMATS[name]
    found = known.read({**FORMS[name], "label": label}, known.tags)
    assert isinstance(found, Judgement)
    assert found.good is label
    assert [message.content for message in found.messages] == ["why?", "so"]
    assert [message.role for message in found.messages] == ["user", "assistant"]


@pytest.mark.parametrize("row", [*FORMS.values(), TURNS])
def test_every_form_is_recognised_and_learned_up_to_the_end_of_its_turn(
    reader: Reader, tmp_path: Path, row: dict[str, Any]
) -> None:
    splits = prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row, row]), learn=JUDGED)
    check_counts(splits.report)
    made = splits.train[0]
    assert made["good"] is row["label"]
    spell = reader.tokenizer.decode
    assert spell([token for token in made["labels"] if token != -100]) == "so<|im_end|>"
    assert made["labels"][-1] != -100
    source = splits.train.conversation(0)
    assert isinstance(source, Judged)
    assert source.good is row["label"]


FAULTS = [
    ("alpaca_judged", {"label": None}, "`label` is null, not true or false"),
    ("alpaca_judged", {"label": 1}, "`label` is a number, not true or false"),
    ("alpaca_judged", {"label": "good"}, "`label` is 'good', not true or false"),
    ("alpaca_judged", {"output": " "}, "the answer is empty"),
    ("completion_judged", {"completion": []}, "`completion` holds 0 messages, not one answer"),
    ("completion_judged", {"completion": 3}, "`completion` is a number, not a list"),
    ("completion_judged", {"prompt": SPOKEN}, "message 3 is of role assistant"),
    ("sharegpt_judged", {"conversations": []}, "the conversation ends without an answer"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), FAULTS)
def test_what_is_wrong_with_a_row_is_named(name: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault, match=reason):
        FORMATS[name].read({**FORMS[name], **changes}, FORMATS[name].tags)


def test_a_row_without_a_label_is_bad(reader: Reader, tmp_path: Path) -> None:
    bare = {"instruction": "why?", "output": "so"}
    path = write_rows(tmp_path / "a.jsonl", [FORMS["alpaca_judged"]] * 2 + [bare])
    report = prepare_files(reader, path, learn=JUDGED, on_bad_row="skip").report
    assert (report.num_kept, report.num_bad) == (2, 1)
    assert "`label` is missing" in report.problems[0].reason


def test_a_table_spells_labels_as_text(reader: Reader, tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [["prompt", "completion", "label"], ["a", "b", "True"], ["c", "d", "false"]]
        )
    rows = prepare_files(reader, tmp_path / "a.csv", learn=JUDGED).train
    assert [rows[row]["good"] for row in range(2)] == [True, False]


def test_a_description_names_the_column_of_the_label(reader: Reader, tmp_path: Path) -> None:
    plain = {"q": "why?", "a": "so", "kto_tag": True}
    spoken = {"turns": SPOKEN, "tag": False}
    write_rows(tmp_path / "a.jsonl", [plain] * 2)
    write_rows(tmp_path / "b.jsonl", [spoken] * 2)
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    entries = {
        "plain": {
            "file_name": "a.jsonl",
            "columns": {"prompt": "q", "response": "a", "kto_tag": "kto_tag"},
        },
        "spoken": {
            "file_name": "b.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "turns", "kto_tag": "tag"},
            "tags": {**tags, "assistant_tag": "assistant"},
        },
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries), "utf-8")
    for name, good in (("plain", True), ("spoken", False)):
        rows = prepare_files(reader, name, learn=JUDGED, info=tmp_path).train
        source = rows.conversation(0)
        assert isinstance(source, Judged)
        assert source.good is rows[0]["good"] is good


def test_judged_rows_are_refused_by_other_methods_by_name(reader: Reader, tmp_path: Path) -> None:
    judged = write_rows(tmp_path / "a.jsonl", [FORMS["alpaca_judged"]])
    plain = write_rows(tmp_path / "b.jsonl", [{"instruction": "a", "output": "b"}])
    with pytest.raises(DataError, match=r"judged answers .alpaca_judged.; sft learns") as caught:
        prepare_files(reader, judged)
    assert "method.name: kto" in caught.value.hint
    assert "or `format: alpaca` to learn them all" in caught.value.hint
    with pytest.raises(
        DataError, match=r"conversations .alpaca.; kto learns from judged"
    ) as caught:
        prepare_files(reader, plain, learn=JUDGED)
    assert "`label` that is true or false" in caught.value.hint


def test_judged_rows_are_looked_at_and_shown(reader: Reader, tmp_path: Path) -> None:
    row = FORMS["completion_judged"]
    path = write_rows(tmp_path / "a.jsonl", [row, row, {**row, "label": False}])
    report = check(path, reader.tokenizer, reader.template)
    assert (report.kind, report.num_kept, report.num_duplicate_rows) == ("judged", 3, 1)
    shown = show(Data(train=(str(path),)), 3, reader.tokenizer, reader.template, JUDGED)
    assert ": bad, " in render(shown, marks=True).plain
    assert "⟦so<|im_end|>⟧" in render(shown, marks=True).plain
