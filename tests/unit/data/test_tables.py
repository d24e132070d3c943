"""Tables in text: csv and tsv."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.unit.data.files import read, write
from tunesmith.data.reading import json_lines, table
from tunesmith.errors import DataError

CELLS = [
    ["question", "answer", "note"],
    ["plain", 'a "quoted" word', "好，的"],
    ["two\nlines", "comma, semicolon; tab\t", ""],
    ["", " spaced ", "|"],
]


@pytest.mark.parametrize("dialect", ["excel", "excel-tab", "unix"])
def test_cells_equal_what_the_csv_module_wrote(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / ("a.tsv" if dialect == "excel-tab" else "a.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, dialect).writerows(CELLS)
    names, *rows = CELLS
    assert read(path).rows == [dict(zip(names, row, strict=True)) for row in rows]
    assert read(path).places == [f"{path.name}:{line}:1" for line in (2, 3, 5)]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_the_delimiter_is_told_from_the_first_line(tmp_path: Path, delimiter: str) -> None:
    lines = [["question", "answer"], ["a b", "c"]]
    path = write(tmp_path / "a.csv", "\n".join(delimiter.join(cells) for cells in lines))
    assert read(path).rows == [{"question": "a b", "answer": "c"}]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfquestion,answer\r\na,b\r\n")
    assert read(path).rows == [{"question": "a", "answer": "b"}]


def test_a_table_in_gbk_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = "问题,回答\r\n你们几点开门？,早上九点开门，欢迎光临\r\n"
    found = read(write(tmp_path / "a.csv", text.encode("gbk")))
    assert found.rows == [{"问题": "你们几点开门？", "回答": "早上九点开门，欢迎光临"}]


def test_blank_lines_are_no_rows_wherever_they_stand(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", "\n\nquestion,answer\n\na,b\n\n"))
    assert found.rows == [{"question": "a", "answer": "b"}]
    assert found.places == ["a.csv:5:1"]


def test_rows_of_the_wrong_width_are_named(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", "a,b\n1,2\n1\n1,2,3\n3,4\n"))
    assert found.rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert found.problems == [
        "a.csv:3:1: the row has 1 cells; the first line has 2",
        "a.csv:4:1: the row has 3 cells; the first line has 2",
    ]


def test_text_after_a_closed_quote_is_named_and_the_next_row_read(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", 'a,b\n"x"y,2\n"3\n",4\n5,6\n'))
    assert found.rows == [{"a": "3\n", "b": "4"}, {"a": "5", "b": "6"}]
    assert found.places == ["a.csv:3:1", "a.csv:5:1"]
    assert found.problems == [
        "a.csv:2:1: not a row of a table: text goes on after the quote that closes a cell"
    ]


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", 'a,b\n1,2\n3,"open\n5,6\n'))
    assert found.rows == [{"a": "1", "b": "2"}, {"a": "5", "b": "6"}]
    assert found.problems == ["a.csv:3:1: not a row of a table: a quoted cell is never closed"]


ROWS = [f"q{number},a{number}" for number in range(1, 300)]
STRAY = {
    '"q2,a2': "a quoted cell is never closed",
    'q2,"a2': "a quoted cell is never closed",
    '"q2"x,a2': "text goes on after the quote that closes a cell",
}


@pytest.mark.parametrize("bad", STRAY)
def test_a_stray_quote_hides_no_other_row(tmp_path: Path, bad: str) -> None:
    found = read(write(tmp_path / "a.csv", "\n".join(["q,a", ROWS[0], bad, *ROWS[2:]])))
    assert found.problems == [f"a.csv:3:1: not a row of a table: {STRAY[bad]}"]
    assert len(found.rows) == 298
    assert found.places == [f"a.csv:{line}:1" for line in (2, *range(4, 301))]


@pytest.mark.parametrize("bad", ['"q2,a2', 'q2,"a2'])
def test_a_stray_quote_that_a_later_one_closes_hides_no_other_row(tmp_path: Path, bad: str) -> None:
    lines = ["q,a", ROWS[0], bad, *ROWS[2:98], 'q99,a99"', *ROWS[99:]]
    found = read(write(tmp_path / "a.csv", "\n".join(lines)))
    (problem,) = found.problems
    assert problem.startswith("a.csv:3:1: ")
    assert "a quoted cell" in problem
    assert len(found.rows) == 298


def test_a_row_of_endless_lines_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MAX_LINES", 10)
    found = read(write(tmp_path / "a.csv", "q,a\n" + '"q0,a0\n' + "\n".join(ROWS)))
    (problem,) = found.problems
    assert problem == "a.csv:2:1: not a row of a table: a quoted cell goes over more than 10 lines"
    assert len(found.rows) == 299


def test_a_cell_of_many_lines_is_one_cell(tmp_path: Path) -> None:
    text = "\n".join(["Dear guest,", "", "we open at nine, close at ten, and rest on Monday."] * 60)
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["q", "a"], ["hours?", text], ["x", "y"]])
    found = read(path)
    assert found.rows == [{"q": "hours?", "a": text}, {"q": "x", "a": "y"}]


def test_a_spreadsheet_may_say_its_delimiter(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", "\ufeffsep=;\r\nq;a, b, c\r\n1;2\r\n"))
    assert found.rows == [{"q": "1", "a, b, c": "2"}]
    assert found.places == ["a.csv:3:1"]


def test_blank_lines_say_nothing_of_the_delimiter(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "\n \nq;a\n1;2\n")).rows == [{"q": "1", "a": "2"}]


def test_a_bad_byte_is_named_with_its_column(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", "a,b\n1,好".encode() + b"\xff\n3,4\n"))
    assert found.rows == [{"a": "3", "b": "4"}]
    assert found.problems[0].startswith("a.csv:2:1: `b`, character 2: byte 0xff is wrong")


def test_a_line_over_the_limit_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "number_lines", lambda file: json_lines.number_lines(file, 100))
    found = read(write(tmp_path / "a.csv", f"a,b\n1,{'x' * 500}\n3,4\n"))
    assert found.rows == [{"a": "3", "b": "4"}]
    assert found.places == ["a.csv:3:1"]
    (problem,) = found.problems
    assert problem.startswith("a.csv:2:1: not a row of a table: the row is longer than ")


BAD_NAMES = {
    b"a,b,a\n1,2,3\n": ("has the name `a` twice", ":1:1"),
    b"\n\ncaf\xe9,b\n1,2\n": ("holds a bad name: byte 0xe9 is wrong", ":3:1"),
    b'"a,b\n1,2\n': ("cannot be read: a quoted cell is never closed", ":2:1"),
}


@pytest.mark.parametrize("content", BAD_NAMES)
def test_a_line_of_names_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes) -> None:
    message, place = BAD_NAMES[content]
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "a.csv", content))
    assert f"the line of column names {message}" in caught.value.message
    assert caught.value.where == f"{tmp_path}/a.csv{place}"


def test_columns_without_a_name_do_no_harm(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", "a,b,,\n1,2,,\n"))
    assert found.rows == [{"a": "1", "b": "2", "": ""}]


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n", "a,b"])
def test_a_table_without_rows_gives_none(tmp_path: Path, content: str) -> None:
    assert read(write(tmp_path / "a.csv", content)) == ([], [], [])
