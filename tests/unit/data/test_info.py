"""LLaMA-Factory's dataset_info.json: every option it has is used, or refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows
from tests.unit.data.files import write
from tunesmith.data.info import describe_set
from tunesmith.data.meaning import find_meaning, read_set
from tunesmith.data.rows import Conversation, Kind, Problem, Text
from tunesmith.data.sources import RowSet, find_sets
from tunesmith.errors import DataError
from tunesmith.recipe.data import Data, Source


def write_info(folder: Path, **entries: Any) -> Path:
    return write(folder / "dataset_info.json", json.dumps(entries))


def find(info: Path, source: str | Source, kind: Kind | None = "conversation") -> RowSet:
    options = Data(train=(source,), info=info)
    (found,) = find_sets(options.train, options, kind)
    return found


def contents(rows: RowSet) -> list[list[str]]:
    """Read a set; return the contents of each row's messages, or its text."""
    found: list[list[str]] = []
    for row in read_set(rows, find_meaning(rows, "auto"), "auto", None):
        assert not isinstance(row, Problem), row
        if isinstance(row, Text):
            found.append([row.text])
        else:
            found.append([message.content for message in row.messages])
    return found


def refuse(info: Path, source: str | Source = "set", kind: Kind = "conversation") -> DataError:
    with pytest.raises(DataError) as caught:
        find(info, source, kind)
    return caught.value


def test_a_plain_entry_is_alpaca_beside_the_info_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    info = write_info(tmp_path, set={"file_name": "rows.jsonl"})
    assert find(info, "set").files == (tmp_path / "rows.jsonl",)
    assert contents(find(info, "set")) == [["a", "b"]]


def test_the_folder_of_the_info_file_may_be_named_instead(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    write_info(tmp_path, set={"file_name": "rows.jsonl"})
    assert contents(find(tmp_path, "set")) == [["a", "b"]]


def test_a_name_may_come_as_a_path_of_the_recipes_folder(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    info = write_info(tmp_path, set={"file_name": "rows.jsonl"})
    assert contents(find(info, str(tmp_path / "elsewhere" / "set"))) == [["a", "b"]]


def test_a_file_may_be_named_beside_entries(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", [{"instruction": "c", "output": "d"}])
    info = write_info(tmp_path, set={"file_name": "rows.jsonl"})
    assert describe_set(Source(path=str(path)), info, None) is None
    assert contents(find(info, str(path))) == [["c", "d"]]


def test_every_alpaca_column_may_have_another_name(tmp_path: Path) -> None:
    row = {"q": "why?", "more": "the sky", "a": "because", "sys": "be kind", "past": [["hi", "ho"]]}
    write_rows(tmp_path / "rows.jsonl", [row])
    columns = {"prompt": "q", "query": "more", "response": "a", "system": "sys", "history": "past"}
    info = write_info(tmp_path, set={"file_name": "rows.jsonl", "columns": columns})
    assert contents(find(info, "set")) == [["be kind", "hi", "ho", "why?\nthe sky", "because"]]


def test_a_column_that_is_null_is_not_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "input": "no", "output": "b"}])
    columns = {"prompt": "instruction", "query": None, "response": "output"}
    info = write_info(tmp_path, set={"file_name": "rows.jsonl", "columns": columns})
    assert contents(find(info, "set")) == [["a", "b"]]


FULL = {"instruction": "a", "input": "no", "output": "b", "system": "no", "history": [["c", "d"]]}


def test_columns_that_an_entry_leaves_out_are_not_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [FULL])
    columns = {"prompt": "instruction", "response": "output"}
    info = write_info(tmp_path, set={"file_name": "rows.jsonl", "columns": columns})
    assert contents(find(info, "set")) == [["a", "b"]]


@pytest.mark.parametrize("kind", ["conversation", None])
def test_an_entry_without_columns_reads_question_and_answer(
    tmp_path: Path, kind: Kind | None
) -> None:
    write_rows(tmp_path / "rows.jsonl", [FULL])
    info = write_info(tmp_path, set={"file_name": "rows.jsonl"})
    assert contents(find(info, "set", kind)) == [["a\nno", "b"]]


def test_a_system_column_of_sharegpt_is_read_if_it_is_named(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    write_rows(tmp_path / "rows.jsonl", [{"conversations": talk, "system": "be kind"}])
    entry = {"file_name": "rows.jsonl", "formatting": "sharegpt"}
    named = {**entry, "columns": {"messages": "conversations", "system": "system"}}
    info = write_info(tmp_path, bare=entry, named=named)
    assert contents(find(info, "bare")) == [["hi", "ho"]]
    assert contents(find(info, "named")) == [["be kind", "hi", "ho"]]


def test_every_tag_of_sharegpt_may_have_another_name(tmp_path: Path) -> None:
    talk = [
        {"who": "boss", "what": "be kind"},
        {"who": "me", "what": "hi"},
        {"who": "you", "what": "ho"},
    ]
    write_rows(tmp_path / "rows.jsonl", [{"talk": talk, "sys": ""}])
    tags = {
        "role_tag": "who",
        "content_tag": "what",
        "user_tag": "me",
        "assistant_tag": "you",
        "system_tag": "boss",
        "observation_tag": "tool",
        "function_tag": "call",
    }
    entry = {
        "file_name": "rows.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "system": "sys"},
        "tags": tags,
    }
    assert contents(find(write_info(tmp_path, set=entry), "set")) == [["be kind", "hi", "ho"]]


def test_the_openai_formatting_is_role_and_content(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    write_rows(tmp_path / "rows.jsonl", [{"messages": talk}])
    info = write_info(tmp_path, set={"file_name": "rows.jsonl", "formatting": "openai"})
    assert contents(find(info, "set")) == [["hi", "ho"]]


def test_a_lone_prompt_is_text_to_pretrain_on(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"body": "some text"}])
    info = write_info(tmp_path, set={"file_name": "rows.jsonl", "columns": {"prompt": "body"}})
    assert contents(find(info, "set", "text")) == [["some text"]]
    assert contents(find(info, "set", None)) == [["some text"]]


def test_an_entry_without_columns_is_looked_at_by_pretraining(tmp_path: Path) -> None:
    write(tmp_path / "wiki.txt", "one\ntwo\n")
    info = write_info(tmp_path, set={"file_name": "wiki.txt"})
    assert contents(find(info, "set", "text")) == [["one"], ["two"]]


def test_what_the_recipe_says_wins_over_the_entry(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"q": "a", "x": "b", "y": "c"}])
    entry = {
        "file_name": "rows.jsonl",
        "columns": {"prompt": "q", "response": "x"},
        "num_samples": 7,
    }
    info = write_info(tmp_path, set=entry)
    assert find(info, "set").max_rows == 7
    source = Source(path="set", max_rows=3, columns={"output": "y"}, weight=2.0)
    found = find(info, source)
    assert (found.max_rows, found.weight) == (3, 2.0)
    assert contents(found) == [["a", "c"]]


def test_a_folder_is_read_by_split_folder_and_subset(tmp_path: Path) -> None:
    row = [{"instruction": "a", "output": "b"}]
    for name in ("train", "test"):
        write_rows(tmp_path / "hub" / "data" / "en" / f"{name}-00000-of-00001.jsonl", row)
    entry = {"hf_hub_url": "hub", "folder": "data", "subset": "en", "split": "train"}
    found = find(write_info(tmp_path, set=entry), "set")
    assert [path.name for path in found.files] == ["train-00000-of-00001.jsonl"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    problem = refuse(write_info(tmp_path, set={"file_name": "hub", "folder": "data"}))
    assert problem.message == f"there is no folder 'data' in {tmp_path / 'hub'}"


ENTRY = {"file_name": "rows.jsonl"}
REFUSED: list[tuple[Any, str, str]] = [
    (["rows.jsonl"], "the entry is not an object", "write {file_name: ...}"),
    ({}, "the entry names no file", "write file_name"),
    ({"file_name": "none.json"}, "there is no file none.json beside the info file", "copy it"),
    ({"hf_hub_url": "a/b"}, "the set is not on this machine (hf_hub_url: a/b)", "download it"),
    ({"ms_hub_url": "a/b"}, "the set is not on this machine (ms_hub_url: a/b)", "download it"),
    ({"cloud_file_name": "s3://a"}, "the set is not on this machine (cloud_file_name", "download"),
    ({"script_url": "a"}, "the set is made by a script, and code of others is never", "elsewhere"),
    (
        {**ENTRY, "columns": {"chosen": "a", "rejected": "b"}},
        "it names a column 'chosen', but its rows are not ranked",
        "ranking: true",
    ),
    (
        {**ENTRY, "ranking": True, "columns": {"response": "a"}},
        "the formatting alpaca_pairs has no such column as 'response'",
        "with ranking name prompt",
    ),
    ({**ENTRY, "columns": {"promt": "q"}}, "'promt' is none of the columns", "mean prompt?"),
    ({**ENTRY, "columns": ["q"]}, "columns is not an object of names", "write {prompt"),
    ({**ENTRY, "columns": {"prompt": 3}}, "columns is not an object of names", "write {prompt"),
    ({**ENTRY, "columns": {"messages": "m"}}, "has no such column as 'messages'", "sharegpt"),
    ({**ENTRY, "formating": "alpaca"}, "'formating' is none of the keys", "mean formatting?"),
    ({**ENTRY, "formatting": "sharegtp"}, "the formatting 'sharegtp' is not known", "sharegpt?"),
    ({**ENTRY, "formatting": []}, "formatting is not a name", "write a name"),
    ({**ENTRY, "tags": {"role_tag": "r"}}, "tags mean nothing to alpaca rows", "sharegpt"),
    (
        {**ENTRY, "formatting": "sharegpt", "tags": {"rol_tag": "r"}},
        "'rol_tag' is none of the tags of an entry",
        "did you mean role_tag?",
    ),
    ({**ENTRY, "num_samples": 0}, "num_samples is not a number above 0", "write a number"),
    ({**ENTRY, "num_samples": "5"}, "num_samples is not a number above 0", "write a number"),
    ({**ENTRY, "num_samples": True}, "num_samples is not a number above 0", "write a number"),
    ({"file_name": 5}, "file_name is not a name", "write a name"),
    ({**ENTRY, "split": 5}, "split is not a name", "write a name"),
    ({"file_name": ".", "folder": ["x"]}, "folder is not a name", "write a name"),
]


@pytest.mark.parametrize(("entry", "message", "hint"), REFUSED)
def test_an_entry_that_cannot_be_used_says_why(
    tmp_path: Path, entry: Any, message: str, hint: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    info = write_info(tmp_path, set=entry)
    problem = refuse(info)
    assert message in problem.message
    assert hint in problem.hint
    assert problem.where == f"{info}, entry set"


def test_an_unknown_name_is_answered_with_a_near_one(tmp_path: Path) -> None:
    info = write_info(tmp_path, alpaca_en={}, identity={})
    problem = refuse(info, "alpaca_eng")
    assert problem.message == "there is no set 'alpaca_eng', nor a file of that name"
    assert problem.hint == "did you mean alpaca_en? the file describes alpaca_en, identity"


def test_broken_tools_are_refused_one_by_one(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    rows = [{"conversations": talk, "tools": "[{}]"}, {"conversations": talk, "tools": ""}]
    write_rows(tmp_path / "rows.jsonl", rows)
    columns = {"messages": "conversations", "tools": "tools"}
    entry = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": columns}
    found = find(write_info(tmp_path, set=entry), "set")
    problem, row = read_set(found, find_meaning(found, "auto"), "auto", None)
    assert str(problem).endswith("rows.jsonl:1:1: tool 1 of `tools` has no `name`")
    assert isinstance(row, Conversation)


BROKEN: list[tuple[bytes, str, str]] = [
    (b'{"a": }', "the info file is not valid JSON: Expecting value", ":1:7"),
    (b"[1]", "the info file is not an object of entries", ""),
    (b"\xff\xfe{", "the info file cannot be read", ""),
    (b"[" * 100_000, "the info file cannot be read", ""),
]


@pytest.mark.parametrize(("content", "message", "place"), BROKEN)
def test_an_info_file_that_is_broken_is_named(
    tmp_path: Path, content: bytes, message: str, place: str
) -> None:
    info = write(tmp_path / "dataset_info.json", content)
    problem = refuse(info)
    assert problem.message.startswith(message)
    assert problem.where == f"{info}{place}"


def test_an_info_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    problem = refuse(tmp_path / "none.json")
    assert "the info file cannot be read" in problem.message
    assert problem.where == str(tmp_path / "none.json")


def test_an_info_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b"}])
    content = b"\xef\xbb\xbf" + json.dumps({"set": ENTRY}).encode()
    assert contents(find(write(tmp_path / "dataset_info.json", content), "set")) == [["a", "b"]]


def test_openai_rows_may_call_tools(tmp_path: Path) -> None:
    function = {"name": "find", "arguments": "{}"}
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": function}]},
        {"role": "tool", "tool_call_id": "x", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    write_rows(tmp_path / "rows.jsonl", [{"messages": talk, "tools": [{"name": "find"}]}])
    columns = {"messages": "messages", "tools": "tools"}
    entry = {"file_name": "rows.jsonl", "formatting": "openai", "columns": columns}
    found = find(write_info(tmp_path, set=entry), "set")
    (row,) = read_set(found, find_meaning(found, "auto"), "auto", None)
    assert isinstance(row, Conversation)
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].calls[0].id == row.messages[2].call_id == "x"
    assert row.tools[0]["function"] == {"name": "find"}
