"""JSON arrays of any size: read a window at a time, every fault named, the next row found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.data.files import read, write
from tunesmith.data.reading import json_array

GOOD = {"text": "good"}


@pytest.fixture(params=[1 << 20, 64], ids=["one window", "many windows"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Read in windows so small that every row reaches over an edge, or in one."""
    monkeypatch.setattr(json_array, "CHUNK", request.param)
    monkeypatch.setattr(json_array, "NEARBY", min(request.param, 1 << 16))
    return int(request.param)


def some_rows(count: int) -> list[dict[str, object]]:
    return [
        {
            "n": n,
            "text": "好" * (n % 37) + 'quote " brace } bracket ] comma , \\ \n' + "x" * (n % 61),
            "nested": {"list": [[n], {}, [], {"deep": [None, True, -1.5e-3]}], "NaN": "NaN"},
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("separators", [None, (",", ":")])
def test_rows_equal_what_the_json_module_reads(
    tmp_path: Path, window: int, indent: int | str | None, separators: tuple[str, str] | None
) -> None:
    rows = some_rows(80)
    text = json.dumps(rows, indent=indent, separators=separators, ensure_ascii=False)
    found = read(write(tmp_path / "a.json", text))
    assert found.rows == json.loads(text) == rows
    assert found.problems == []


def test_rows_stand_where_their_bracket_is(tmp_path: Path, window: int) -> None:
    text = json.dumps(some_rows(30), indent=2, ensure_ascii=False)
    found = read(write(tmp_path / "a.json", text))
    starts = [n for n, line in enumerate(text.split("\n"), 1) if line == "  {"]
    assert found.places == [f"a.json:{line}:3" for line in starts]


def test_rows_in_one_line_are_placed_by_their_column(tmp_path: Path, window: int) -> None:
    found = read(write(tmp_path / "a.json", "[" + ", ".join(['{"a": "好好"}'] * 40) + "]"))
    assert found.places == [f"a.json:1:{2 + 13 * n}" for n in range(40)]


FAULTS = {
    '{"a" 2}': "not valid JSON: expecting ':' delimiter",
    "{'a': 2}": "not valid JSON: expecting property name",
    '{"a": NaN}': "NaN is no number that JSON allows",
    '{"a": "NaN", "b": [Infinity]}': "Infinity is no number that JSON allows",
    '{"a": 1, "a": 2}': "the key `a` stands in it twice",
    '{"a": "x\ty"}': "not valid JSON: invalid control character",
    '{"a": "\\q"}': "not valid JSON: invalid \\escape",
    '{"a": "\\u12"}': "not valid JSON: invalid \\uXXXX escape",
    '{"a": "' + "x" * 300 + '" "b": 1}': "not valid JSON: expecting ',' delimiter",
    '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}": "it is nested too deeply",
    '["a"]': "a row is an object, {...}; this is not",
    "17": "a row is an object, {...}; this is not",
    "1" * 200: "a row is an object, {...}; this is not",
    '"{"': "a row is an object, {...}; this is not",
    "tru": "not valid JSON: expecting value",
}


@pytest.mark.parametrize("layout", ["in one line", "a row a line", "indented"])
@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_bad_row_is_reported_once_and_the_next_one_found(
    tmp_path: Path, window: int, layout: str, number: int
) -> None:
    bad, reason = list(FAULTS.items())[number]
    good = (
        json.dumps(GOOD, indent=2).replace("\n", "\n  ")
        if layout == "indented"
        else '{"text": "good"}'
    )
    joint = {"in one line": ", ", "a row a line": ",\n", "indented": ",\n  "}[layout]
    text = "[" + joint[1:] + joint.join([good, bad, good, good]) + "\n]"
    found = read(write(tmp_path / "a.json", text))
    assert found.rows == [GOOD] * 3
    assert len(found.problems) == 1
    place, _, said = found.problems[0].partition(": ")
    assert said.startswith(reason)
    assert place.startswith("a.json:1:" if layout == "in one line" else "a.json:")


def test_a_row_that_lost_its_bracket_costs_no_other_where_rows_are_indented(
    tmp_path: Path, window: int
) -> None:
    rows = json.dumps(some_rows(5), indent=2, ensure_ascii=False)
    starts = [at for at in range(len(rows)) if rows.startswith("\n  }", at)]
    damaged = rows[: starts[1]] + rows[starts[1] + 4 :]
    found = read(write(tmp_path / "a.json", damaged))
    assert [row["n"] for row in found.rows] == [0, 2, 3, 4]
    assert len(found.problems) == 1


def test_the_place_of_a_fault_is_where_the_json_module_finds_it(
    tmp_path: Path, window: int
) -> None:
    text = json.dumps(some_rows(9), indent=1, ensure_ascii=False).replace('"n": 7', '"n" 7')
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text)
    found = read(write(tmp_path / "a.json", text))
    expected = f"a.json:{caught.value.lineno}:{caught.value.colno}: "
    assert found.problems == [f"{expected}not valid JSON: expecting ':' delimiter"]
    assert len(found.rows) == 8


ENDS = {
    '[{"text": "good"}': ("a.json:1:18", "the file ends inside its array: it is cut off"),
    '[{"text": "good"},': ("a.json:1:19", "the file ends inside its array: it is cut off"),
    '[{"text": "good"}, {"te': ("a.json:1:21", "the file ends inside this row (not valid JSON"),
    '[{"text": "good"}, {"a": ': ("a.json:1:26", "the file ends inside this row (not valid JSON"),
    '[{"text": "good"},]': ("a.json:1:19", "not valid JSON: a comma without a row after it"),
    '[,{"text": "good"}]': ("a.json:1:2", "not valid JSON: a comma without a row before it"),
    '[{"text": "good"}] {}': ("a.json:1:20", "there is more text after the end of the array"),
    '[{"text": "good"}]]': ("a.json:1:19", "there is more text after the end of the array"),
}


@pytest.mark.parametrize("text", ENDS)
def test_a_broken_end_or_start_is_reported_and_the_row_kept(
    tmp_path: Path, window: int, text: str
) -> None:
    found = read(write(tmp_path / "a.json", text))
    place, reason = ENDS[text]
    assert found.rows == [GOOD]
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{place}: {reason}")


def test_a_missing_comma_is_named_and_both_rows_are_read(tmp_path: Path, window: int) -> None:
    found = read(write(tmp_path / "a.json", '[{"text": "good"}\n{"text": "good"}]'))
    assert found.rows == [GOOD, GOOD]
    assert found.problems == ["a.json:2:1: not valid JSON: no comma between this row and the last"]


def test_two_commas_are_named_and_both_rows_are_read(tmp_path: Path, window: int) -> None:
    found = read(write(tmp_path / "a.json", '[{"text": "good"},,{"text": "good"}]'))
    assert found.rows == [GOOD, GOOD]
    assert found.problems == ["a.json:1:19: not valid JSON: a comma without a row before it"]


def test_an_empty_array_holds_no_rows(tmp_path: Path, window: int) -> None:
    assert read(write(tmp_path / "a.json", " [ \n ] \n")) == ([], [], [])


def test_a_row_over_the_limit_is_reported_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "CHUNK", 64)
    monkeypatch.setattr(json_array, "MAX_ROW", 400)
    long = {"text": "x" * 2000}
    found = read(write(tmp_path / "a.json", json.dumps([GOOD, long, GOOD], indent=2)))
    assert found.rows == [GOOD, GOOD]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("a.json:5:3: the row is longer than")


def test_bad_bytes_in_an_array_cost_only_their_row(tmp_path: Path, window: int) -> None:
    rows = b'[{"text": "good"}, {"text": "a\xffb"}, {"text": "good"}]'
    found = read(write(tmp_path / "a.json", rows))
    assert found.rows == [GOOD, GOOD]
    assert found.problems == [
        "a.json:1:31: byte 0xff is wrong in the file's encoding (see data.encoding)"
    ]
