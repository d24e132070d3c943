"""Plain text: a text a line, or a paragraph where the file is written in paragraphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.data.files import read, write
from tunesmith.data.reading import plain

WRAPPED = "one\ntwo\n\nthree\n\n\nfour\nfive\nsix\n"


def texts(path: Path) -> list[object]:
    return [row["text"] for row in read(path).rows]


def test_each_line_is_a_text_where_blank_lines_are_rare(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo  \n" + "three\n" * 50 + "\nlast")
    assert texts(path) == ["one", "two  ", *["three"] * 50, "last"]
    assert read(path).places[-1] == "a.txt:54:1"


def test_each_line_is_a_text_where_every_second_one_is_blank(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.txt", "one\n\ntwo\n\nthree\n")) == ["one", "two", "three"]


def test_wrapped_lines_are_joined_to_paragraphs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", WRAPPED)
    assert texts(path) == ["one\ntwo", "three", "four\nfive\nsix"]
    assert read(path).places == ["a.txt:1:1", "a.txt:4:1", "a.txt:7:1"]


def test_a_bad_byte_costs_only_its_line(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.txt", b"one\ntw\xff o\nthree\n"))
    assert [row["text"] for row in found.rows] == ["one", "three"]
    assert found.problems == [
        "a.txt:2:3: byte 0xff is wrong in the file's encoding (see data.encoding)"
    ]


def test_a_bad_byte_in_a_paragraph_is_placed_in_its_line(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.txt", WRAPPED.encode().replace(b"five", b"fi\xffve")))
    assert [row["text"] for row in found.rows] == ["one\ntwo", "three"]
    assert found.problems[0].startswith("a.txt:8:3: byte 0xff")


@pytest.mark.parametrize("content", ["", "\n\n \n\t\n", "\u3000\n"])
def test_blank_text_is_no_row(tmp_path: Path, content: str) -> None:
    assert read(write(tmp_path / "a.txt", content)) == ([], [], [])


def test_a_line_over_the_limit_goes_on_in_the_next_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MAX_TEXT", 10)
    found = read(write(tmp_path / "a.txt", "0123456789" * 2 + "rest\nnext\n"))
    assert [row["text"] for row in found.rows] == ["0123456789"] * 2 + ["rest", "next"]
    assert found.places == ["a.txt:1:1", "a.txt:1:11", "a.txt:1:21", "a.txt:2:1"]


def test_a_paragraph_over_the_limit_is_parted_between_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MAX_TEXT", 10)
    path = write(tmp_path / "a.txt", "one\n\n" + "words\n" * 5)
    assert texts(path) == ["one", "words\nwords", "words\nwords", "words"]


def test_no_letter_of_a_text_is_lost_or_changed(tmp_path: Path) -> None:
    content = "  indented\n{json: no}\n\ttab\n<|im_end|>\n好😀\n"
    assert "\n".join(map(str, texts(write(tmp_path / "a.txt", content)))) + "\n" == content
