"""The format of a set is told from its first rows, or taken from the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows
from tests.unit.data.files import write
from tunesmith.data.meaning import find_meaning, meaning_for, read_set
from tunesmith.data.rows import Conversation, Problem, Text
from tunesmith.data.sources import RowSet
from tunesmith.errors import DataError

SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
MESSAGES = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ALPACA = {"instruction": "a", "output": "b"}
PLAIN = {"text": "a"}
FORMS: dict[str, dict[str, Any]] = {
    "alpaca": ALPACA,
    "sharegpt": SHAREGPT,
    "messages": MESSAGES,
    "text": PLAIN,
}


def rows_of(path: Path, **options: Any) -> RowSet:
    return RowSet(path.name, (path,), **options)


def refuse(rows: RowSet) -> DataError:
    with pytest.raises(DataError) as caught:
        find_meaning(rows, "auto")
    return caught.value


@pytest.mark.parametrize("name", FORMS)
def test_each_format_is_known_by_its_columns(tmp_path: Path, name: str) -> None:
    rows = rows_of(write_rows(tmp_path / "a.jsonl", [FORMS[name]]))
    meaning = find_meaning(rows, "auto")
    assert meaning.format.name == name
    (row,) = read_set(rows, meaning, "auto", None)
    assert isinstance(row, Text if name == "text" else Conversation)


@pytest.mark.parametrize("name", ["sharegpt", "messages"])
def test_conversations_in_a_table_are_known_too(tmp_path: Path, name: str) -> None:
    ((column, talk),) = FORMS[name].items()
    path = write(tmp_path / "a.tsv", f"{column}\n" + json.dumps(talk).replace('"', '""').join('""'))
    rows = rows_of(path)
    (row,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert isinstance(row, Conversation)


def test_bad_first_rows_do_not_hide_the_format(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "oops\n{}\n" + json.dumps(ALPACA))
    rows = rows_of(path)
    meaning = find_meaning(rows, "auto")
    found = list(read_set(rows, meaning, "auto", None))
    assert meaning.format.name == "alpaca"
    assert [type(row) for row in found] == [Problem, Problem, Conversation]
    assert str(found[1]) == f"{path}:2:1: `instruction` is missing"


def test_columns_of_other_names_are_read_under_ours(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"q": "why?", "a": "because", "instruction": "no"}])
    rows = rows_of(path, columns={"instruction": "q", "output": "a"})
    (row,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert isinstance(row, Conversation)
    assert [message.content for message in row.messages] == ["why?", "because"]


def test_a_system_prompt_is_given_only_to_those_without(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ALPACA, {**ALPACA, "system": "own"}])
    rows = rows_of(path)
    found = list(read_set(rows, find_meaning(rows, "auto"), "auto", "given"))
    systems = [row.messages[0].content for row in found if isinstance(row, Conversation)]
    assert systems == ["given", "own"]


def test_a_named_format_is_taken_without_looking(tmp_path: Path) -> None:
    rows = rows_of(write_rows(tmp_path / "a.jsonl", [MESSAGES]), format="sharegpt")
    meaning = find_meaning(rows, "auto")
    (problem,) = read_set(rows, meaning, "auto", None)
    assert str(problem).endswith(":1:1: `conversations` is missing")


def test_a_column_that_the_format_lacks_is_refused_with_a_guess(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ALPACA])
    problem = refuse(rows_of(path, columns={"instructions": "q"}))
    assert problem.message == "'instructions' is none of the columns of the format alpaca"
    assert "did you mean instruction?" in problem.hint


def test_a_column_that_no_row_has_is_named_even_where_nothing_else_tells_the_format(
    tmp_path: Path,
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"question": "why?", "answer": "because"}])
    problem = refuse(rows_of(path, columns={"instruction": "qestion", "output": "answer"}))
    assert problem.message == "no row has the column 'qestion' that `columns` names"
    assert "did you mean question?" in problem.hint


def test_tags_are_refused_where_the_format_has_none(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ALPACA])
    problem = refuse(rows_of(path, format="alpaca", tags={"role_tag": "who"}))
    assert "'role_tag' is none of the tags of the format alpaca" in problem.message
    assert "alpaca has none" in problem.hint


UNLEARNED: list[tuple[dict[str, Any], str]] = [
    ({**MESSAGES, "kto_tag": False}, "a `kto_tag` that it is good or bad (KTO)"),
    ({"text": "a", "images": ["a.png"]}, "`images`"),
    ({**MESSAGES, "chosen": "a", "rejected": "b"}, "a preference pair (`chosen`, `rejected`)"),
]


@pytest.mark.parametrize(("fields", "what"), UNLEARNED)
def test_rows_that_hold_more_than_is_learned_are_refused_unless_the_format_is_named(
    tmp_path: Path, fields: dict[str, Any], what: str
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [fields])
    rows = rows_of(path)
    meaning = find_meaning(rows, "auto")
    name = meaning.format.name
    (problem,) = read_set(rows, meaning, "auto", None)
    assert str(problem) == (
        f"{path}:1:1: it holds {what}, which is not learned here; "
        f"`format: {name}` would learn it without"
    )
    named = rows_of(path, format=name)
    (row,) = read_set(named, find_meaning(named, "auto"), "auto", None)
    assert not isinstance(row, Problem)


HARMLESS: list[dict[str, Any]] = [
    {**MESSAGES, "label": "billing"},
    {**MESSAGES, "label": 1},
    {**MESSAGES, "images": []},
    {"messages": [MESSAGES["messages"][0], {**MESSAGES["messages"][1], "reasoning_content": ""}]},
    {**ALPACA, "videos": None, "chosen": "a"},
    {**MESSAGES, "functions": []},
]


@pytest.mark.parametrize("fields", HARMLESS)
def test_columns_that_mean_nothing_are_passed_over(tmp_path: Path, fields: dict[str, Any]) -> None:
    rows = rows_of(write_rows(tmp_path / "a.jsonl", [fields]))
    (row,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert isinstance(row, Conversation)


def test_the_chosen_answer_of_a_pair_may_be_learned_by_name(tmp_path: Path) -> None:
    pair = {"instruction": "why?", "chosen": "because", "rejected": "no"}
    rows = rows_of(write_rows(tmp_path / "a.jsonl", [pair]), columns={"output": "chosen"})
    (row,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert isinstance(row, Conversation)
    assert row.messages[-1].content == "because"


UNKNOWN: list[tuple[str, str, str]] = [
    ('{"question": "a", "answer": "b"}', "the columns are question, answer", "columns: {"),
    (
        '{"chosen": "a", "rejected": "b"}',
        "the rows hold two answers, but no question",
        "columns: {",
    ),
    ('{"question": ["a"], "answer": ["b"]}', "one object of columns (question, answer)", "a list"),
    ('{"data": [{"instruction": "a"}]}', "the columns are data", "write that list alone"),
    ("{}", "the columns are none", "instruction and output"),
    ('{"\\ud800\\u001b[31m": 1}', "the columns are \\ud800\\u001b[31m", "columns: {"),
    (f'{{"{"k" * 5000}": 1}}', f"the columns are {'k' * 40}...", "columns: {"),
    ("[1, 2]", "none of the first rows can be read; the first: a row is an object", "mend"),
    ("", "there are no rows", "give a file that holds some"),
    ("[]", "there are no rows", "give a file that holds some"),
]


@pytest.mark.parametrize(("content", "message", "hint"), UNKNOWN)
def test_rows_of_no_format_are_refused_with_what_to_do(
    tmp_path: Path, content: str, message: str, hint: str
) -> None:
    path = write(tmp_path / "a.json", content)
    problem = refuse(rows_of(path))
    assert message in problem.message
    assert hint in problem.hint
    assert problem.where.startswith(str(path))
    assert "\n" not in problem.message + problem.hint


def test_conversations_are_no_text_to_pretrain_on(tmp_path: Path) -> None:
    rows = rows_of(write_rows(tmp_path / "a.jsonl", [ALPACA]))
    meaning = find_meaning(rows, "auto")
    meaning_for("conversation", meaning, rows)
    with pytest.raises(DataError, match="are conversations") as caught:
        meaning_for("text", meaning, rows)
    assert "method.name: sft" in caught.value.hint


def test_texts_hold_no_answers_to_learn(tmp_path: Path) -> None:
    rows = rows_of(write_rows(tmp_path / "a.jsonl", [PLAIN]))
    meaning = find_meaning(rows, "auto")
    meaning_for("text", meaning, rows)
    with pytest.raises(DataError, match="are plain text") as caught:
        meaning_for("conversation", meaning, rows)
    assert "method.name: pretrain" in caught.value.hint


def test_many_bad_first_rows_do_not_hide_the_format(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "a.jsonl", "{}\noops\n" * 200 + json.dumps(ALPACA)))
    assert find_meaning(rows, "auto").format.name == "alpaca"


def test_a_fault_names_the_column_of_the_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"q": "why?", "a": ""}, {"q": "why?"}])
    rows = rows_of(path, columns={"instruction": "q", "output": "a"})
    problems = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert [problem.reason for problem in problems if isinstance(problem, Problem)] == [
        "the answer is empty: `a` has no text",
        "`a` is missing",
    ]


@pytest.mark.parametrize("named", ["auto", "alpaca"])
def test_a_column_that_no_row_has_is_refused(tmp_path: Path, named: str) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ALPACA, {**ALPACA, "sys": "be kind"}])
    find_meaning(rows_of(path, format=named, columns={"system": "sys"}), "auto")
    problem = refuse(rows_of(path, format=named, columns={"system": "outputs"}))
    assert problem.message == "no row has the column 'outputs' that `columns` names"
    assert problem.hint == "did you mean output? there are instruction, output"


def folder_of(folder: Path, **files: list[dict[str, Any]]) -> RowSet:
    written = [write_rows(folder / f"{name}.jsonl", rows) for name, rows in files.items()]
    return RowSet(folder.name, tuple(written))


def test_each_file_of_a_folder_has_its_own_format(tmp_path: Path) -> None:
    rows = folder_of(tmp_path, a=[ALPACA], b=[], c=[SHAREGPT, {"x": 1}], d=[MESSAGES], e=[{"y": 1}])
    meaning = find_meaning(rows, "auto")
    found = list(read_set(rows, meaning, "auto", None))
    assert [meaning.of(path).format.name for path in rows.files] == [
        "alpaca",
        "alpaca",
        "sharegpt",
        "messages",
        "alpaca",
    ]
    assert [type(row) for row in found] == [
        Conversation,
        Conversation,
        Problem,
        Conversation,
        Problem,
    ]


def test_texts_and_conversations_in_one_folder_are_refused(tmp_path: Path) -> None:
    problem = refuse(folder_of(tmp_path, a=[ALPACA], b=[PLAIN]))
    assert problem.message == "some files hold conversations and some plain texts"
    assert problem.where == f"{tmp_path}/a.jsonl, {tmp_path}/b.jsonl"
