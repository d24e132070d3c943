"""One JSON object a line: a bad line is named and never hides the next one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.data.files import read, write
from tunesmith.data.reading import json_lines
from tunesmith.errors import DataError

GOOD = '{"text": "good"}'


def read_between(folder: Path, line: str) -> list[str]:
    """Read a line between two good ones; return the problems."""
    found = read(write(folder / "a.jsonl", f"{GOOD}\n{line}\n{GOOD}\n"))
    assert found.rows == [{"text": "good"}] * 2
    assert found.places == ["a.jsonl:1:1", "a.jsonl:3:1"]
    return found.problems


def test_rows_equal_what_the_json_module_reads(tmp_path: Path) -> None:
    rows = [
        {"n": n, "nested": {"a": [n, None, True, 1.5]}, "text": '好\n\t"\\/😀'} for n in range(50)
    ]
    lines = [json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(rows)]
    found = read(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert found.rows == [json.loads(line) for line in lines] == rows
    assert found.problems == []


FAULTS = {
    '{"text": "x"': "a.jsonl:2:13: not valid JSON: expecting ',' delimiter",
    '{"text": "x': "a.jsonl:2:10: not valid JSON: unterminated string",
    '{"text" "x"}': "a.jsonl:2:9: not valid JSON: expecting ':' delimiter",
    "{'text': 'x'}": "a.jsonl:2:2: not valid JSON: expecting property name",
    '{"text": "a\tb"}': "a.jsonl:2:12: not valid JSON: invalid control character",
    '{"text": "\\x"}': "a.jsonl:2:11: not valid JSON: invalid \\escape",
    "oops": "a.jsonl:2:1: not valid JSON: expecting value",
    "[1, 2]": "a.jsonl:2:1: a row is an object, {...}; this is not",
    '"text"': "a.jsonl:2:1: a row is an object, {...}; this is not",
    "null": "a.jsonl:2:1: a row is an object, {...}; this is not",
    '{"a": 1}{"b": 2}': "a.jsonl:2:9: more than one value on the line; a row has one",
    '{"a": 1}, {"b": 2}': "a.jsonl:2:9: more than one value on the line",
    '{"a": 1},': "a.jsonl:2:9: more than one value on the line",
    '{"a": NaN}': "a.jsonl:2:7: NaN is no number that JSON allows",
    '{"NaN": [-Infinity]}': "a.jsonl:2:10: -Infinity is no number that JSON allows",
    '{"a": 1, "b": 2, "a": 3}': "a.jsonl:2:1: the key `a` stands in it twice",
    '{"a": {"b": 1, "b": 1}}': "a.jsonl:2:1: the key `b` stands in it twice",
    '  {"a": 1': "a.jsonl:2:10: not valid JSON: expecting ',' delimiter",
    '{"a": ' + "9" * 5000 + "}": "a.jsonl:2:1: a number in it cannot be read",
    '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}": "a.jsonl:2:1: it is nested too deeply",
    "\x00\x00": "a.jsonl:2:1: not valid JSON: expecting value",
}


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_bad_line_is_named_and_its_neighbours_are_kept(tmp_path: Path, number: int) -> None:
    line, expected = list(FAULTS.items())[number]
    (problem,) = read_between(tmp_path, line)
    assert problem.startswith(expected)


def test_a_key_that_no_screen_can_show_is_spelled_out(tmp_path: Path) -> None:
    (problem,) = read_between(tmp_path, r'{"\ud800\n": 1, "\ud800\n": 2}')
    assert problem == r"a.jsonl:2:1: the key `\ud800\u000a` stands in it twice"


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.jsonl", f"\n  \n{GOOD}\n\t\n\n{GOOD}"))
    assert found.rows == [{"text": "good"}] * 2
    assert found.places == ["a.jsonl:3:1", "a.jsonl:6:1"]
    assert found.problems == []


def test_an_indented_row_is_placed_at_its_bracket(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", f"   {GOOD}\n")).places == ["a.jsonl:1:4"]


@pytest.mark.parametrize("content", ["", "\n", " \n\t\r\n "])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson"])
def test_an_empty_file_holds_no_rows(tmp_path: Path, content: str, name: str) -> None:
    assert read(write(tmp_path / name, content)) == ([], [], [])


def test_a_line_over_the_limit_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f"{GOOD}\n{'x' * 250}\n{'y' * 100}\nend")
    with path.open(encoding="utf-8") as file:
        lines = list(json_lines.number_lines(file, limit=100))
    assert [number for number, _ in lines] == [1, 2, 3, 4]
    assert str(lines[1][1]).startswith("the row is longer than ")
    assert [lines[0][1], lines[2][1], lines[3][1]] == [f"{GOOD}\n", "y" * 100 + "\n", "end"]


def test_a_line_of_exactly_the_limit_is_whole_even_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "x" * 100)
    with path.open(encoding="utf-8") as file:
        assert list(json_lines.number_lines(file, limit=100)) == [(1, "x" * 100)]


def test_lines_are_read_from_a_json_file_too(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.json", f"{GOOD}\noops\n{GOOD}\n"))
    assert found.rows == [{"text": "good"}] * 2
    assert found.problems == ["a.json:2:1: not valid JSON: expecting value"]


def test_an_array_is_read_from_a_jsonl_file_too(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", f"\n [{GOOD},\n{GOOD}]")).rows == [{"text": "good"}] * 2


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_objects_over_several_lines_are_read_one_after_the_other(tmp_path: Path, name: str) -> None:
    pretty = json.dumps({"text": "good"}, indent=2)
    found = read(write(tmp_path / name, f"{pretty}\n{pretty}\n{pretty}\n"))
    assert found.rows == [{"text": "good"}] * 3
    assert found.places == [f"{name}:1:1", f"{name}:4:1", f"{name}:7:1"]


def test_a_lone_bracket_on_the_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.jsonl", "{\n" + f"{GOOD}\n" * 3))
    assert found.rows == [{"text": "good"}] * 3
    assert len(found.problems) == 1


def test_a_bad_first_line_does_not_hide_the_lines_of_a_json_file(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.json", '{"text": "bad",}\n' + f"{GOOD}\n" * 3))
    assert found.rows == [{"text": "good"}] * 3
    assert found.problems[0].startswith("a.json:1:16: not valid JSON")
    assert len(found.problems) == 1


def test_a_long_first_line_of_a_json_file_is_still_a_line(tmp_path: Path) -> None:
    long = json.dumps({"text": "x" * 100_000})
    found = read(write(tmp_path / "a.json", f"{long}\noops\n{GOOD}\n"))
    assert [len(str(row["text"])) for row in found.rows] == [100_000, 4]
    assert found.problems == ["a.json:2:1: not valid JSON: expecting value"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file") as caught:
        read(tmp_path / "none.jsonl")
    assert caught.value.where.endswith("none.jsonl")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.jsonl.gz", "a.zip"])
def test_a_file_of_an_unknown_kind_is_refused_with_the_known_ones(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(DataError, match="are not read") as caught:
        read(write(tmp_path / name, GOOD))
    assert ".jsonl" in caught.value.hint
    assert ".parquet" in caught.value.hint
    assert ("unpack it" in caught.value.hint) == name.endswith(("gz", "zip"))


def test_the_ending_of_a_name_may_be_written_in_capitals(tmp_path: Path) -> None:
    assert read(write(tmp_path / "A.JSONL", GOOD)).rows == [{"text": "good"}]
