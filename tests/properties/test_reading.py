"""Whatever a file holds: no row is lost, no fault is without a place, nothing ever crashes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import strategies as st

from tests.properties import variants
from tests.properties.variants import EXAMPLES, GOOD, LAYOUTS, Layout, Row, hold
from tests.unit.data.tokenizers_of import make_byte_level
from tunesmith.data.check import check
from tunesmith.data.prepare import prepare
from tunesmith.data.reading import read_records
from tunesmith.data.rows import Learn, Problem, Record
from tunesmith.errors import DataError, TunesmithError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data

KINDS = st.sampled_from(sorted(GOOD))
COLUMNAR = st.sampled_from(["parquet", "file", "stream"])
NUMBERED = re.compile(r"[^\n]*?:[1-9]\d*(:[1-9]\d*)?: [^\n]+", re.ASCII)


def layouts(*starts: str) -> st.SearchStrategy[Layout]:
    """Layouts whose names start so."""
    return st.sampled_from([LAYOUTS[name] for name in LAYOUTS if name.startswith(starts or "")])


def good_rows(most: int = 6) -> st.SearchStrategy[list[Row]]:
    """Rows of one format."""
    return KINDS.flatmap(lambda kind: st.lists(GOOD[kind], min_size=1, max_size=most))


def read(path: Path, encoding: str = "auto") -> tuple[list[Record], list[Problem]]:
    """Read a file and hold what must hold of every problem."""
    found = list(read_records(path, encoding))
    problems = [each for each in found if isinstance(each, Problem)]
    for problem in problems:
        check_problem(problem, path)
    return [each for each in found if isinstance(each, Record)], problems


def check_problem(problem: Problem, path: Path) -> None:
    """A problem has a place in its file, a reason, and one line that any screen can show."""
    assert problem.place.path == str(path)
    assert problem.place.line >= 1
    assert problem.place.column >= (0 if path.suffix in (".parquet", ".arrow") else 1)
    assert len(problem.reason) < 400
    assert NUMBERED.fullmatch(str(problem)), str(problem)
    assert str(problem).isprintable(), ascii(str(problem))


def check_error(error: TunesmithError, path: Path) -> None:
    """An error says what, where and what to do, on lines that any screen can show."""
    assert error.message
    assert error.hint
    assert error.where.startswith(str(path)), error.where
    for line in (*error.message.split("\n"), error.hint, error.where):
        assert line.isprintable(), ascii(line)


def check_whole_path(path: Path) -> None:
    """Read, tell the format, and report; every record is kept or reported."""
    try:
        rows, problems = read(path)
        report = check(path)
    except TunesmithError as error:
        check_error(error, path)
        return
    assert report.num_read == len(rows) + len(problems)
    assert report.num_read == report.num_kept + report.num_reported
    assert report.num_reported >= len(problems)
    for problem in report.problems:
        check_problem(problem, path)
    orjson.dumps(report.to_dict())


@EXAMPLES
def test_rows_in_json_come_back_in_any_encoding_and_with_any_line_end(
    tmp_path: Path, examples: int
) -> None:
    encodings = st.sampled_from(variants.MARKED)
    cases = st.tuples(layouts(), good_rows(), st.booleans(), encodings, variants.LINE_ENDS)

    def check_case(case: tuple[Layout, list[Row], bool, str, str]) -> None:
        layout, rows, ascii_only, encoding, end = case
        path = tmp_path / layout.name
        text = layout.write(variants.spell(rows, ascii_only))
        path.write_bytes(text.replace("\n", end).encode(encoding))
        records, problems = read(path)
        assert [record.fields for record in records] == rows
        assert problems == []

    hold(examples, cases, check_case)


@EXAMPLES
def test_rows_come_back_where_the_encoding_is_named(tmp_path: Path, examples: int) -> None:
    cases = st.tuples(good_rows(), st.sampled_from(variants.NAMED))

    def check_case(case: tuple[list[Row], str]) -> None:
        rows, encoding = case
        path = tmp_path / "a.jsonl"
        path.write_bytes("\n".join(variants.spell(rows, False)).encode(encoding))
        records, problems = read(path, encoding)
        assert [record.fields for record in records] == rows
        assert problems == []

    hold(examples, cases, check_case)


@EXAMPLES
def test_cells_of_tables_come_back(tmp_path: Path, examples: int) -> None:
    names = ["instruction", "output"]
    row = st.tuples(variants.TEXT, variants.TEXT)
    dialects = st.sampled_from(["excel", "excel-tab"])
    cases = st.tuples(dialects, st.lists(row, max_size=5), st.sampled_from(variants.MARKED))

    def check_case(case: tuple[str, list[tuple[str, str]], str]) -> None:
        dialect, rows, encoding = case
        path = tmp_path / ("a.csv" if dialect == "excel" else "a.tsv")
        path.write_bytes(variants.as_table([names, *rows], dialect).encode(encoding))
        records, problems = read(path)
        expected = [[re.sub("\r\n?", "\n", cell) for cell in row] for row in rows]
        assert [list(record.fields.values()) for record in records] == expected
        assert problems == []

    hold(examples, cases, check_case)


@EXAMPLES
def test_rows_of_columnar_files_come_back(tmp_path: Path, examples: int) -> None:
    row = st.fixed_dictionaries({"instruction": variants.TEXT, "output": variants.TEXT})
    cases = st.tuples(COLUMNAR, st.lists(row, min_size=1))

    def check_case(case: tuple[str, list[Row]]) -> None:
        kind, rows = case
        path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
        variants.as_arrow(rows, kind, path)
        records, problems = read(path)
        assert [record.fields for record in records] == rows
        assert problems == []

    hold(examples, cases, check_case)


def interleave(good: Sequence[str], bad: Sequence[str], order: Any) -> list[tuple[str, bool]]:
    """Mix good and bad lines in some order."""
    lines = [(line, True) for line in good] + [(line, False) for line in bad]
    order.shuffle(lines)
    return lines


@EXAMPLES
def test_a_bad_line_costs_itself_alone(tmp_path: Path, examples: int) -> None:
    cases = st.tuples(
        layouts("lines"),
        st.lists(GOOD["alpaca"], min_size=1, max_size=5),
        st.lists(variants.BAD_LINES, max_size=4),
        st.randoms(use_true_random=False),
    )

    def check_case(case: tuple[Layout, list[Row], list[str], Any]) -> None:
        layout, good, bad, order = case
        path = tmp_path / layout.name
        # What opens an array on the first line makes the whole file one.
        lines = [(json.dumps(good[0]), True)]
        lines += interleave(variants.spell(good[1:], False), bad, order)
        path.write_text(layout.write([line for line, _ in lines]), "utf-8")
        report = check(Data(train=({"path": str(path), "format": "alpaca"},)))
        assert report.num_read == len(lines)
        assert report.num_kept == len(good)
        assert report.num_reported == len(bad)
        expected = [number for number, (_, kept) in enumerate(lines, 1) if not kept]
        assert [problem.place.line for problem in report.problems] == expected
        for problem in report.problems:
            check_problem(problem, path)

    hold(examples, cases, check_case)


@EXAMPLES
def test_a_bad_row_of_an_array_costs_no_other(tmp_path: Path, examples: int) -> None:
    cases = st.tuples(
        layouts("an array of lines", "an indented array"),
        st.lists(GOOD["sharegpt"], min_size=2, max_size=5),
        variants.BAD_LINES.filter(lambda line: line.startswith("{") and "\n" not in line),
        st.integers(1, 4),
    )

    def check_case(case: tuple[Layout, list[Row], str, int]) -> None:
        layout, good, bad, place = case
        path = tmp_path / layout.name
        lines = variants.spell(good, False)
        lines.insert(min(place, len(good) - 1), bad)
        path.write_text(layout.write(lines), "utf-8")
        records, problems = read(path)
        kept = [record.fields for record in records if "conversations" in record.fields]
        assert [row for row in kept if row in good] == good
        assert len(problems) <= 1 or "} {" in bad
        bad_line = 2 + min(place, len(good) - 1)
        assert {problem.place.line for problem in problems} <= {bad_line, bad_line + 1}

    hold(examples, cases, check_case)


@EXAMPLES
def test_a_cut_file_of_lines_keeps_all_that_is_whole(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "a.jsonl"
    cases = st.tuples(good_rows(), variants.PLACES, st.sampled_from(["utf-8", "utf-16-le"]))

    def check_case(case: tuple[list[Row], float, str]) -> None:
        rows, share, encoding = case
        lines = [line.encode(encoding) for line in variants.spell(rows, False)]
        end = "\n".encode(encoding)
        whole = end.join(lines)
        path.write_bytes(whole[: int(share * len(whole))])
        records, problems = read(path, encoding)
        kept, rest = 0, path.read_bytes()
        while rest and (rest == lines[kept] or rest.startswith(lines[kept] + end)):
            rest = rest[len(lines[kept] + end) :]
            kept += 1
        assert [record.fields for record in records] == rows[:kept]
        assert len(problems) == (1 if rest else 0)

    hold(examples, cases, check_case)


@EXAMPLES
def test_a_cut_array_keeps_all_that_is_whole_and_says_that_it_is_cut(
    tmp_path: Path, examples: int
) -> None:
    cases = st.tuples(layouts("an"), good_rows(), variants.PLACES)

    def check_case(case: tuple[Layout, list[Row], float]) -> None:
        layout, rows, share = case
        path = tmp_path / layout.name
        text = layout.write(variants.spell(rows, True)).rstrip()
        cut = text[: int(share * len(text))]
        path.write_text(cut, "utf-8")
        records, problems = read(path)
        assert [record.fields for record in records] == rows[: len(records)]
        assert len(problems) == (1 if cut.strip() else 0)
        with suppress(ValueError):
            whole = json.loads(cut[: cut.rstrip().rfind("}") + 1] + "]")
            assert len(records) == len(whole)

    hold(examples, cases, check_case)


@EXAMPLES
def test_no_damage_to_json_crashes_or_hides_a_row(tmp_path: Path, examples: int) -> None:
    encodings = st.sampled_from([*variants.MARKED, *variants.NAMED])
    cases = st.tuples(layouts(), good_rows(), encodings, variants.MUTATIONS)

    def check_case(case: tuple[Layout, list[Row], str, list[Any]]) -> None:
        layout, rows, encoding, mutations = case
        path = tmp_path / layout.name
        text = layout.write(variants.spell(rows, False))
        path.write_bytes(variants.damage(text.encode(encoding), mutations))
        check_whole_path(path)

    hold(examples, cases, check_case)


@EXAMPLES
def test_no_bytes_crash_a_reader(tmp_path: Path, examples: int) -> None:
    names = st.sampled_from(["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json"])
    heads = st.sampled_from([b"", b"instruction,output\n", b"text\tb\n", b"[", b"\xff\xfe"])
    junk = st.lists(st.sampled_from(variants.JUNK) | st.binary(max_size=20), max_size=12)
    cases = st.tuples(names, heads, junk.map(b"".join))

    def check_case(case: tuple[str, bytes, bytes]) -> None:
        name, head, rest = case
        path = tmp_path / name
        path.write_bytes(head + rest)
        check_whole_path(path)

    hold(examples, cases, check_case)


@EXAMPLES
def test_no_damage_to_columnar_files_crashes(tmp_path: Path, examples: int) -> None:
    rows_of_talk = st.lists(GOOD["messages"], min_size=1, max_size=5)
    cases = st.tuples(COLUMNAR, rows_of_talk, variants.MUTATIONS)

    def check_case(case: tuple[str, list[Row], list[Any]]) -> None:
        kind, rows, mutations = case
        path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
        variants.as_arrow(rows, kind, path)
        path.write_bytes(variants.damage(path.read_bytes(), mutations))
        check_whole_path(path)

    hold(examples, cases, check_case)


@EXAMPLES
def test_a_line_is_a_row_exactly_where_the_json_module_reads_an_object(
    tmp_path: Path, examples: int
) -> None:
    path = tmp_path / "a.jsonl"
    start = '{"first": "line"}\n'
    cases = st.one_of(
        variants.BAD_LINES,
        good_rows(1).map(lambda rows: json.dumps(rows[0])),
        st.text('{}[]":,\\ntrufalse0123.-eE \t', min_size=1),
    ).filter(lambda line: line.strip() and not set(line) & set("\n\r"))

    def check_case(line: str) -> None:
        path.write_text(start + line, "utf-8")
        records, problems = read(path)
        assert len(records) + len(problems) == 2
        try:
            value = json.loads(line, parse_constant=pytest.fail, object_pairs_hook=check_pairs)
        except (ValueError, RecursionError, pytest.fail.Exception):
            value = None
        assert len(records) == (2 if isinstance(value, dict) else 1)
        assert len(records) == 1 or records[1].fields == value

    hold(examples, cases, check_case)


def check_pairs(pairs: list[tuple[str, Any]]) -> Row:
    """Refuse a key that stands twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


@pytest.fixture(scope="module")
def chat_reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A tokenizer and a chat template."""
    return make_byte_level(tmp_path_factory.mktemp("reader"))


@EXAMPLES
def test_rows_prepared_are_rows_kept_and_reported(
    tmp_path: Path, chat_reader: Reader, examples: int
) -> None:
    path = tmp_path / "a.jsonl"
    cases = st.tuples(
        st.lists(GOOD["alpaca"], max_size=4),
        st.lists(variants.BAD_LINES, max_size=4),
        st.sampled_from(["cut", "skip"]),
    )

    def check_case(case: tuple[list[Row], list[str], str]) -> None:
        good, bad, on_long_row = case
        lines = ['{"instruction": "first", "output": "x"}', *variants.spell(good, False), *bad]
        path.write_text("\n".join(lines), "utf-8")
        source = {"path": str(path), "format": "alpaca"}
        data = Data(train=(source,), on_bad_row="skip", on_long_row=on_long_row, max_tokens=48)
        tokenizer, template = chat_reader.tokenizer, chat_reader.template
        report = prepare(data, Learn("conversation"), tokenizer, template, seed=0).report
        assert report.num_read == len(lines) == report.num_kept + report.num_reported
        assert report.num_reported == report.num_bad + report.num_long >= len(bad)
        if bad:
            with pytest.raises(DataError, match="rows are bad"):
                prepare(
                    data.model_copy(update={"on_bad_row": "stop"}),
                    Learn("conversation"),
                    tokenizer,
                    template,
                    seed=0,
                )

    hold(examples, cases, check_case)
