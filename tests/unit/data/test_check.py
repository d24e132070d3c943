"""A look at data before it is learned: what is there, what is wrong, what repeats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.tiny import write_pairs, write_rows
from tests.unit.data.files import write
from tests.unit.data.preparing import prepare_files
from tests.unit.data.tokenizers_of import make_byte_level
from tests.unit.templates import families
from tunesmith.data.check import check
from tunesmith.data.check_report import CheckReport
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data


def row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"instruction": question, "output": answer, **more}


def check_rows(folder: Path, *rows: Any, **options: Any) -> CheckReport:
    """Check rows, and hold what must hold of every report."""
    path = write_rows(folder / "rows.jsonl", rows)
    report = check(Data(train=(str(path),), **options))
    assert report.num_read == report.num_kept + report.num_reported
    return report


def lines(found: Any) -> list[list[str]]:
    return [[str(place).split(":")[1] for place in item.places] for item in found]


def test_kind_format_and_counts_are_told(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.jsonl", 12)
    report = check(path)
    assert (report.kind, report.formats, report.files) == (
        "conversation",
        {str(path): "alpaca"},
        [str(path)],
    )
    assert (report.num_read, report.num_kept, report.num_reported) == (12, 12, 0)


def test_plain_text_is_a_kind_of_its_own(tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.txt", "one\ntwo\none\n"))
    assert (report.kind, report.num_kept, report.num_duplicate_rows) == ("text", 3, 1)
    assert (report.num_contradictions, report.num_duplicate_answers) == (0, 0)


def test_lengths_are_of_what_people_wrote(tmp_path: Path) -> None:
    report = check_rows(tmp_path, *(row("q", "a" * n) for n in range(1, 101)))
    assert report.chars is not None
    assert (report.chars.shortest, report.chars.longest) == (2, 101)
    assert (report.chars.median, report.chars.p90, report.chars.p99) == (51, 91, 100)
    assert report.chars.mean == pytest.approx(51.5)
    assert report.tokens is None


def test_tokens_are_counted_as_they_will_be_learned(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [row("hi", "a" * n) for n in (1, 5, 90)])
    report = check(path, reader.tokenizer, reader.template)
    lengths = prepare_files(reader, path).train.lengths
    assert report.tokens is not None
    assert (report.tokens.shortest, report.tokens.longest) == (min(lengths), max(lengths))
    bare = check(path, reader.tokenizer)
    assert bare.tokens is not None
    assert bare.tokens.longest < report.tokens.longest


def test_texts_are_counted_in_tokens_too(reader: Reader, tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.txt", "a\nab ab\n"), reader.tokenizer, reader.template)
    assert report.tokens is not None
    assert (report.tokens.shortest, report.num_long) == (2, 0)


def test_rows_over_the_limit_are_counted_and_named(reader: Reader, tmp_path: Path) -> None:
    rows = [row("hi", "word " * (60 if n % 2 else 1)) for n in range(300)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    data = Data(train=(str(path),), max_tokens=40)
    report = check(data, reader.tokenizer, reader.template)
    assert (report.num_long, len(report.long_rows)) == (150, 100)
    assert str(report.long_rows[0]) == f"{path}:2:1"


def test_a_row_of_exactly_the_limit_is_not_over_it(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [row("hi", "hello there")])
    length = int(prepare_files(reader, path).train.lengths[0])
    for limit, expected in ((length, 0), (length - 1, 1)):
        data = Data(train=(str(path),), max_tokens=limit)
        assert check(data, reader.tokenizer, reader.template).num_long == expected


def test_bad_rows_are_reported_never_raised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", f"{json.dumps(row('q', 'a'))}\noops\n[]\n" * 700)
    report = check(path)
    assert (report.num_read, report.num_kept, report.num_reported) == (2100, 700, 1400)
    assert len(report.problems) == 1000
    assert str(report.problems[0]) == f"{path}:2:1: not valid JSON: expecting value"


def test_rows_that_the_template_refuses_are_bad_as_they_will_be_in_training(
    tmp_path: Path,
) -> None:
    reader = make_byte_level(tmp_path / "reader", families.NO_SYSTEM)
    path = write_rows(tmp_path / "a.jsonl", [row("q", "a", system="kind"), row("q", "a")])
    report = check(path, reader.tokenizer, reader.template)
    assert (report.num_read, report.num_kept, report.num_reported) == (2, 1, 1)
    assert "System role not supported" in str(report.problems[0])
    trained = prepare_files(reader, path, on_bad_row="skip").report
    assert (trained.num_kept, trained.num_bad) == (report.num_kept, report.num_reported)


def test_empty_answers_are_counted_apart_from_other_faults(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": " "}]
    report = check_rows(tmp_path, row("q", ""), row("q", " \n"), row("", "a"), row("q", "a"))
    assert (report.num_reported, report.num_empty_answers) == (3, 2)
    path = write_rows(tmp_path / "b.jsonl", [{"conversations": talk}])
    assert check(path).num_empty_answers == 1


def test_an_answer_that_is_null_is_an_empty_one(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": None}, {"instruction": "a", "output": "b"}]
    assert check(write_rows(tmp_path / "a.jsonl", rows)).num_empty_answers == 1


def test_repeated_rows_are_grouped_by_place(tmp_path: Path) -> None:
    report = check_rows(
        tmp_path, row("a", "1"), row("b", "2"), row("a", " 1 "), row("a", "1"), row("b", "2")
    )
    assert report.num_duplicate_rows == 3
    assert lines(report.duplicate_rows) == [["1", "3", "4"], ["2", "5"]]
    assert str(report.duplicate_rows[0]).startswith("3 rows: ")
    assert report.num_contradictions == report.num_duplicate_answers == 0


def test_one_question_with_several_answers_is_a_contradiction(tmp_path: Path) -> None:
    report = check_rows(tmp_path, row("a", "1"), row("b", "2"), row("a", "3"), row("a", "1"))
    assert (report.num_contradictions, report.num_duplicate_rows) == (1, 1)
    assert lines(report.contradictions) == [["1", "3", "4"]]


def test_what_went_before_makes_it_another_question(tmp_path: Path) -> None:
    report = check_rows(
        tmp_path,
        row("a", "1"),
        row("a", "2", history=[["x", "y"]]),
        row("a", "3", system="be kind"),
        row("a", "4", system="be rude"),
    )
    assert report.num_contradictions == 0


def test_one_answer_to_many_questions_is_told(tmp_path: Path) -> None:
    report = check_rows(tmp_path, row("a", "1"), row("b", "1"), row("b", "1"), row("c", "2"))
    assert report.num_duplicate_answers == 3
    assert lines(report.duplicate_answers) == [["1", "2", "3"]]


def test_groups_are_told_largest_first_and_at_most_a_hundred(tmp_path: Path) -> None:
    rows = [row(f"q{n % 150}", "a" if n < 300 else "b") for n in range(450)]
    report = check_rows(tmp_path, *rows, *[row("often", "a")] * 9)
    assert len(report.duplicate_rows) == 100
    assert report.duplicate_rows[0].count == 9
    assert len(report.duplicate_rows[0].places) == 5
    assert report.num_duplicate_rows == 150 + 8
    assert report.num_contradictions == 150


def test_validation_rows_that_are_learned_too_are_told(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "held.jsonl", [row("a", "1"), row("a", "9"), row("z", "1")])
    report = check_rows(tmp_path, row("a", "1"), row("b", "2"), validation=[str(held)])
    assert (report.num_overlap, report.num_overlap_questions) == (1, 2)
    assert [str(place) for place in report.overlap] == [f"{held}:1:1"]
    assert (report.num_read, len(report.files)) == (5, 2)
    assert report.num_contradictions == 0


def test_the_overlap_told_is_the_overlap_left_out(reader: Reader, tmp_path: Path) -> None:
    train = write_pairs(tmp_path / "train.jsonl", 10)
    held = write_pairs(tmp_path / "held.jsonl", 10, start=6)
    report = check(Data(train=(str(train),), validation=(str(held),)))
    prepared = prepare_files(reader, train, validation=[str(held)]).report
    assert report.num_overlap == prepared.num_overlap == 4


def test_texts_overlap_as_a_whole(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.txt", "one\ntwo\n"), write(tmp_path / "b.txt", "two\nsix\n")
    report = check(Data(train=(str(train),), validation=(str(held),)))
    assert (report.num_overlap, report.num_overlap_questions) == (1, 0)


def test_columns_that_are_not_read_are_told_in_order(tmp_path: Path) -> None:
    rows = [row("a", "1", zeta=1, alpha=2), row("b", "2", **{"\ud800\n": 3, "alpha": 4})]
    report = check(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert report.unused_columns == ["zeta", "alpha", "\\ud800\\u000a"]


def test_endless_columns_are_told_only_in_part(tmp_path: Path) -> None:
    rows = [row("a", "1", **{f"column {n}": n}) for n in range(500)]
    assert len(check_rows(tmp_path, *rows).unused_columns) == 100


def test_everything_can_be_written_as_json(reader: Reader, tmp_path: Path) -> None:
    content = "\n".join(
        [
            json.dumps(row("a", "1", **{"\ud800": 1})),
            json.dumps(row("a", "2")),
            r'{"\ud800": 1, "\ud800": 2}',
            json.dumps(row("a", "\ud800")),
            json.dumps(row("a", "1")),
        ]
    )
    path = write(tmp_path / "a.jsonl", content)
    report = check(path, reader.tokenizer, reader.template)
    found = orjson.loads(orjson.dumps(report.to_dict()))
    assert found["num_contradictions"] == found["num_duplicate_rows"] == 1
    assert found["problems"][0] == f"{path}:3:1: the key `\\ud800` stands in it twice"
    assert found["duplicate_rows"] == [{"count": 2, "places": [f"{path}:1:1", f"{path}:5:1"]}]
    assert found["tokens"]["longest"] >= found["tokens"]["median"]


def test_rows_that_are_all_bad_are_still_a_report(tmp_path: Path) -> None:
    report = check_rows(tmp_path, row("a", ""), row("b", ""))
    assert (report.num_read, report.num_kept, report.num_empty_answers) == (2, 0, 2)
    assert report.chars is None


@pytest.mark.parametrize("source", ["a.jsonl", {"path": "a.jsonl", "format": "alpaca"}])
def test_a_file_without_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", "\n")
    with pytest.raises(DataError, match="there are no rows"):
        check(Data(train=(source,)))


def test_a_system_prompt_of_the_recipe_is_checked_too(tmp_path: Path) -> None:
    plain = check_rows(tmp_path, row("a", "1"))
    given = check_rows(tmp_path, row("a", "1"), system="be kind")
    assert plain.chars is not None
    assert given.chars is not None
    assert given.chars.longest == plain.chars.longest + len("be kind")
