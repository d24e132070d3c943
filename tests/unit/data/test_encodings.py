"""Text files are read in the encoding they are in, and no byte is lost or guessed away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.data.files import read, write
from tunesmith.errors import DataError

CHINESE = "请问你们的营业时间是什么？早上九点到晚上十点，海螺汉堡很好吃。"
ROWS = [{"instruction": CHINESE, "output": "好的 café 😀"}, {"instruction": "hi", "output": "b"}]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
PLAIN_CHINESE = json.dumps({"text": CHINESE}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_files_are_read_whatever_their_form(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.jsonl", TEXT.encode(encoding))
    assert read(path).rows == ROWS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_utf_16_without_a_byte_order_mark_is_known_by_its_zeros(
    tmp_path: Path, encoding: str, name: str
) -> None:
    row = {"instruction": "How are you?", "output": "好"}
    path = write(tmp_path / name, json.dumps([row], ensure_ascii=False).encode(encoding))
    assert read(path).rows == [row]


@pytest.mark.parametrize("order", ["-le", "-be"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "UTF16"])
def test_a_named_encoding_needs_no_byte_order_mark(
    tmp_path: Path, encoding: str, order: str
) -> None:
    rows = [{"instruction": "How are you?", "output": "好"}]
    text = json.dumps(rows, ensure_ascii=False)
    path = write(tmp_path / "a.json", text.encode(encoding.replace("UTF16", "utf-16") + order))
    assert read(path, encoding).rows == rows


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_both_byte_orders_are_known_by_their_mark(tmp_path: Path, mark: bytes) -> None:
    encoding = "utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"
    path = write(tmp_path / "a.jsonl", mark + TEXT.encode(encoding))
    assert read(path).rows == ROWS


@pytest.mark.parametrize("encoding", ["gbk", "gb2312", "gb18030"])
def test_chinese_in_the_national_encodings_is_found_out(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.jsonl", PLAIN_CHINESE.encode(encoding))
    assert read(path).rows == [{"text": CHINESE}]


def test_a_national_encoding_is_found_out_behind_a_megabyte_of_ascii(tmp_path: Path) -> None:
    ascii_row = json.dumps({"text": "x" * 1000}) + "\n"
    path = write(tmp_path / "a.jsonl", (ascii_row * 1100 + PLAIN_CHINESE).encode("gbk"))
    found = read(path)
    assert found.rows[-1] == {"text": CHINESE}
    assert len(found.rows) == 1101


FOREIGN = {
    "latin-1": "les élèves français étaient là",
    "cp1252": "naïve “façade” größer",
    "big5": "請問營業時間是什麼？早上九點到晚上十點",
    "shift-jis": "こんにちは世界、漢字とカタカナ",
    "euc-jp": "こんにちは世界、漢字とカタカナ",
    "euc-kr": "안녕하세요 세계 여러분 오늘 날씨가 참 좋습니다 그렇지요",
    "koi8-r": "привет мир как дела",
}


@pytest.mark.parametrize("encoding", FOREIGN)
def test_other_encodings_are_reported_never_read_as_chinese(tmp_path: Path, encoding: str) -> None:
    content = json.dumps({"text": FOREIGN[encoding]}, ensure_ascii=False)
    found = read(write(tmp_path / "a.jsonl", content.encode(encoding)))
    assert found.rows == []
    assert "is wrong in the file's encoding (see data.encoding)" in found.problems[0]


def test_a_file_of_much_junk_is_not_taken_for_chinese(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ("你好\n" * 20).encode("gbk") + b"\xff\n" * 20)
    found = read(path)
    assert found.rows == []
    assert len(found.problems) == 40
    named = read(path, "gbk")
    assert (len(named.rows), len(named.problems)) == (20, 20)


@pytest.mark.parametrize("encoding", FOREIGN)
def test_other_encodings_are_read_where_they_are_named(tmp_path: Path, encoding: str) -> None:
    row = {"text": FOREIGN[encoding]}
    path = write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False).encode(encoding))
    assert read(path, encoding).rows == [row]


def test_a_few_bad_bytes_in_a_utf_8_file_cost_only_their_rows(tmp_path: Path) -> None:
    good = PLAIN_CHINESE.encode()
    path = write(tmp_path / "a.jsonl", good + b'{"text": "a\xff b"}\n' + good)
    found = read(path)
    assert found.rows == [{"text": CHINESE}] * 2
    assert found.problems == [
        "a.jsonl:2:12: byte 0xff is wrong in the file's encoding (see data.encoding)"
    ]


def test_columns_count_characters_not_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "好好好'.encode() + b"\xff" + b'"}\n')
    assert read(path).problems[0].startswith("a.jsonl:1:14: byte 0xff")


def test_half_a_character_of_utf_16_costs_only_its_row(tmp_path: Path) -> None:
    half = '{"text": "a\ud800b"}\n'.encode("utf-16-le", "surrogatepass")
    path = write(tmp_path / "a.jsonl", b"\xff\xfe" + half + '{"text": "好"}\n'.encode("utf-16-le"))
    found = read(path)
    assert found.rows == [{"text": "好"}]
    assert found.problems == ["a.jsonl:1:12: half of a character (U+D800)"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_cut_inside_a_character_names_the_place(
    tmp_path: Path, name: str, encoding: str
) -> None:
    content = {"a.jsonl": TEXT, "a.json": f"[{TEXT.strip().replace(chr(10), ',')}]"}
    text = content.get(name, "one\ntwo\nthree\n")
    found = read(write(tmp_path / name, text.encode(encoding)[:-1]))
    assert len(found.problems) == 1
    assert "is wrong in the file's encoding" in found.problems[0]
    assert len(found.rows) == {"a.jsonl": 1, "a.json": 2, "a.txt": 2}.get(name, 1)


def test_a_byte_order_mark_is_no_text_even_where_the_encoding_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\ufefftext,b\n好,2\n".encode("utf-16-le"))
    for encoding in ("utf-16-le", "utf-16", "gbk", "auto"):
        assert read(path, encoding).rows == [{"text": "好", "b": "2"}]


def test_gbk_takes_the_rarer_characters_of_its_superset(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "㐂😀\n".encode("gb18030"))
    assert read(path, "gbk").rows == [{"text": "㐂😀"}]


NO_ENCODINGS = ["utf8-8", "rot13", "base64", "idna", "punycode", "undefined", "a\x00b", "zip"]


@pytest.mark.parametrize("encoding", NO_ENCODINGS)
def test_a_name_of_no_text_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.jsonl", TEXT)
    with pytest.raises(DataError, match="there is no text encoding") as caught:
        read(path, encoding)
    assert caught.value.where == "data.encoding"
    assert "utf-8, utf-16, gbk" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-7", "unicode_escape", "ascii"])
def test_bytes_wrong_in_a_rare_encoding_are_reported_too(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", b"fine\n\xe4\\x\xff+\xff\nfine too\n")
    found = read(path, encoding)
    assert len(found.rows) + len(found.problems) >= 2
    assert all(":" in problem for problem in found.problems)
    assert found.problems or encoding == "unicode_escape"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_lines_end_as_any_system_ends_them(tmp_path: Path, end: str, name: str) -> None:
    lines = {
        "a.jsonl": ['{"text": "a"}', '{"text": "b"}', '{"text": 1,}'],
        "a.csv": ["text", "a", "b", "c,d"],
        "a.txt": ["a", "b", ""],
    }
    found = read(write(tmp_path / name, end.join(lines[name])))
    assert found.rows == [{"text": "a"}, {"text": "b"}]
    if name == "a.jsonl":
        assert found.problems[0].startswith("a.jsonl:3:")
    if name == "a.csv":
        assert found.problems[0].startswith("a.csv:4:1: the row has 2 cells")


def test_separators_inside_text_are_no_line_ends(tmp_path: Path) -> None:
    row = {"text": "a\u2028b\u2029c\x85d\x0be\x0cf"}
    path = write(tmp_path / "a.jsonl", '{"text": "a\u2028b\u2029c\x85d\\u000be\\u000cf"}\n')
    assert read(path).rows == [row]
