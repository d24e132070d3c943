"""Questions that a model is to answer, read in several forms, with the data's answer or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows
from tests.unit.data.preparing import check_counts, prepare_files
from tunesmith.data.check import check
from tunesmith.data.rows import Learn, Prompt
from tunesmith.data.show import render, show
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader

ASKED = Learn("prompt", history=False)
USER, SAID = {"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}
HUMAN, GPT = {"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alpaca": ({"instruction": "why?", "output": "so"}, {"instruction": "why?"}),
    "sharegpt": ({"conversations": [HUMAN, GPT]}, {"conversations": [HUMAN]}),
    "messages": ({"messages": [USER, SAID]}, {"messages": [USER]}),
    "prompts": ({"prompt": "why?", "answer": "so"}, {"prompt": [USER]}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_question_is_read_with_its_answer_beside_it_or_without_one(
    reader: Reader, tmp_path: Path, name: str
) -> None:
    rows = write_rows(tmp_path / "a.jsonl", list(FORMS[name]))
    splits = prepare_files(reader, rows, learn=ASKED)
    check_counts(splits.report)
    assert reader.template is not None
    asked = reader.template.render_prompt([USER])
    for row, reference in zip(range(2), ("so", None), strict=True):
        made, source = splits.train[row], splits.train.conversation(row)
        assert reader.tokenizer.decode(made["input_ids"]) == asked
        assert set(made["labels"]) == {-100}
        assert isinstance(source, Prompt)
        assert (source.as_dicts(), source.reference) == ([USER], reference)


def test_what_was_said_before_the_last_question_is_kept(reader: Reader, tmp_path: Path) -> None:
    row = {"messages": [USER, SAID, {"role": "user", "content": "really?"}, SAID]}
    splits = prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row]), learn=ASKED)
    source = splits.train.conversation(0)
    assert [message.content for message in source.messages] == ["why?", "so", "really?"]  # type: ignore[union-attr]


def test_a_long_question_is_left_out_and_named_never_cut(reader: Reader, tmp_path: Path) -> None:
    rows = [{"prompt": "why? " * 40}, {"prompt": "why?"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    splits = prepare_files(reader, path, learn=ASKED, max_tokens=30)
    assert (len(splits.train), splits.report.num_cut) == (1, 0)
    (problem,) = splits.report.problems
    assert (problem.place.line, problem.kind) == (1, "long")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": " "}, "the question in message 1 is empty"),
        ({"prompt": [USER, SAID]}, "`prompt` ends with an answer"),
        ({"prompt": "why?", "answer": 3}, "`answer` is a number, not a text"),
        ({"messages": [SAID]}, "message 1 is of role assistant"),
    ],
)
def test_what_is_wrong_with_a_question_is_named(
    reader: Reader, tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row]), learn=ASKED)


def test_questions_without_answers_teach_no_imitation(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "why?", "answer": "so"}])
    with pytest.raises(DataError, match="the rows are questions") as refused:
        prepare_files(reader, path, learn=Learn("conversation"))
    assert "output: answer" in refused.value.hint


def test_questions_are_shown_and_checked(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [FORMS["messages"][1], FORMS["messages"][0]])
    shown = show(path, 1, reader.tokenizer, reader.template, ASKED)
    assert "0 learned" in str(render(shown))
    report = check(path, reader.tokenizer, reader.template, ASKED)
    assert (report.num_kept, report.num_reported, report.kind) == (2, 0, "prompt")
