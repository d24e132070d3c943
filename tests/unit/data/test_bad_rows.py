"""Bad and long rows: named and counted, and the recipe says what becomes of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.tiny import write_pairs, write_rows
from tests.unit.data.files import write
from tests.unit.data.preparing import check_counts, prepare_files, spell_learned, spell_rows
from tests.unit.data.tokenizers_of import make_byte_level
from tests.unit.templates import families
from tunesmith.data.report import DataReport
from tunesmith.data.rows import Place, Problem
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader

GOOD = {"instruction": "hi", "output": "hello"}
LONG = {"instruction": "hi", "output": "word " * 60}
HOPELESS = {"instruction": "word " * 60, "output": "hello"}


def write_mixed(path: Path, *bad: str, good: int = 4) -> Path:
    """Write good rows with bad lines after the first."""
    lines = [json.dumps({**GOOD, "instruction": f"hi {n}"}) for n in range(good)]
    return write(path, "\n".join([*lines[:1], *bad, *lines[1:]]) + "\n")


def test_bad_rows_stop_with_their_number_the_first_and_what_to_do(
    reader: Reader, tmp_path: Path
) -> None:
    path = write_mixed(tmp_path / "a.jsonl", "oops", '{"instruction": "a", "output": ""}')
    with pytest.raises(DataError) as caught:
        prepare_files(reader, path)
    assert caught.value.message.split("\n") == [
        "2 of 6 rows are bad:",
        f"  {path}:2:1: not valid JSON: expecting value",
        f"  {path}:3:1: the answer is empty: `output` has no text",
    ]
    assert caught.value.where == f"{path}:2:1"
    assert caught.value.hint == ("mend them, or write `data.on_bad_row: skip` to learn the other 4")


def test_only_the_first_bad_rows_are_spelled_and_the_rest_counted(
    reader: Reader, tmp_path: Path
) -> None:
    path = write_mixed(tmp_path / "a.jsonl", *["oops"] * 2000)
    with pytest.raises(DataError) as caught:
        prepare_files(reader, path)
    lines = caught.value.message.split("\n")
    assert lines[0] == "2,000 of 2,004 rows are bad:"
    assert len(lines) == 7
    assert lines[-1] == "  and 1,995 more"


def test_bad_rows_of_every_source_are_counted_before_stopping(
    reader: Reader, tmp_path: Path
) -> None:
    one, two = (write_mixed(tmp_path / f"{n}.jsonl", "oops") for n in (1, 2))
    held = write_mixed(tmp_path / "held.jsonl", "oops", good=9)
    with pytest.raises(DataError, match="3 of 20 rows are bad") as caught:
        prepare_files(reader, one, two, validation=[str(held)])
    for path in (one, two, held):
        assert f"{path}:2:1: not valid JSON" in caught.value.message


def test_skipped_bad_rows_are_reported_and_the_others_learned(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_mixed(tmp_path / "a.jsonl", "oops", "[1]")
    with caplog.at_level(logging.WARNING):
        splits = prepare_files(reader, path, on_bad_row="skip")
    check_counts(splits.report)
    report = splits.report
    assert (report.num_read, report.num_kept, report.num_bad) == (6, 4, 2)
    assert len(splits.train) == 4
    first = f"{path}:2:1: not valid JSON: expecting value"
    assert f"2 of 6 rows are not used; the first: {first}" in caplog.text


def test_skipping_is_refused_where_nothing_is_left(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": "a", "output": ""}] * 3)
    with pytest.raises(DataError) as caught:
        prepare_files(reader, path, on_bad_row="skip")
    assert caught.value.message == (
        f"none of the 3 rows can be learned; the first: {path}:1:1: "
        "the answer is empty: `output` has no text"
    )
    assert caught.value.where == str(path)
    assert "tunesmith data check" in caught.value.hint


def test_skipping_is_not_advised_where_nothing_would_be_left(
    reader: Reader, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": "a", "output": ""}] * 3)
    with pytest.raises(DataError) as caught:
        prepare_files(reader, path)
    assert caught.value.hint == "mend them"


def test_a_share_of_which_no_row_is_held_out_is_refused(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD] * 3)
    with pytest.raises(DataError, match=r"validation_share: 0.1 holds out no row: all 3 rows"):
        prepare_files(reader, path, validation_share=0.1)


def test_stopping_after_a_call_that_skipped_is_still_stopping(
    reader: Reader, tmp_path: Path
) -> None:
    path = write_mixed(tmp_path / "a.jsonl", "oops")
    prepare_files(reader, path, on_bad_row="skip")
    with pytest.raises(DataError, match="1 of 5 rows are bad"):
        prepare_files(reader, path)


def test_a_row_that_the_template_refuses_is_a_bad_row(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "reader", families.NO_SYSTEM)
    rows = [{**GOOD, "system": "be kind"}, GOOD]
    path = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match="1 of 2 rows are bad") as caught:
        prepare_files(reader, path)
    assert "System role not supported" in caught.value.message
    splits = prepare_files(reader, path, on_bad_row="skip")
    check_counts(splits.report)
    assert len(splits.train) == 1


def test_problems_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "reader", families.NO_SYSTEM)
    refused = json.dumps({**GOOD, "system": "be kind"})
    path = write(tmp_path / "a.jsonl", "\n".join([refused, "oops", refused, "oops"]))
    with pytest.raises(DataError) as caught:
        prepare_files(reader, path)
    assert caught.value.message.startswith("4 of 4 rows are bad")
    assert [line.split(":")[1] for line in caught.value.message.split("\n")[1:]] == list("1234")
    assert caught.value.where == f"{path}:1:1"
    path = write_mixed(tmp_path / "b.jsonl", refused, "oops", refused, "oops")
    report = prepare_files(reader, path, on_bad_row="skip").report
    assert [problem.place.line for problem in report.problems] == [2, 3, 4, 5]


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
@pytest.mark.parametrize("options", [{}, {"on_bad_row": "skip"}])
def test_an_empty_file_is_refused(
    reader: Reader, tmp_path: Path, content: str, options: dict[str, str]
) -> None:
    path = write(tmp_path / "a.json", content)
    for source in (str(path), {"path": str(path), "format": "alpaca"}):
        with pytest.raises(DataError, match="there are no rows"):
            prepare_files(reader, source, **options)


def test_an_empty_validation_file_is_refused(reader: Reader, pairs: Path, tmp_path: Path) -> None:
    held = write(tmp_path / "held.jsonl", "")
    with pytest.raises(DataError, match="there are no rows"):
        prepare_files(reader, pairs, validation=[str(held)])


def test_long_rows_are_cut_and_counted(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD, LONG, GOOD])
    with caplog.at_level(logging.WARNING):
        splits = prepare_files(reader, path, max_tokens=48)
    check_counts(splits.report)
    assert (splits.report.num_kept, splits.report.num_cut, splits.report.num_long) == (3, 1, 0)
    assert max(splits.train.lengths) == 48
    assert spell_learned(reader, splits.train, 1).startswith("word word")
    assert "1 rows were cut to data.max_tokens" in caplog.text


def test_a_row_of_exactly_the_limit_is_not_long(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [LONG])
    length = int(prepare_files(reader, path).train.lengths[0])
    exact = prepare_files(reader, path, max_tokens=length, on_long_row="stop")
    assert exact.report.num_cut == 0
    with pytest.raises(DataError):
        prepare_files(reader, path, max_tokens=length - 1, on_long_row="stop")


def test_long_rows_are_left_out_and_counted(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD, LONG, GOOD])
    splits = prepare_files(reader, path, max_tokens=48, on_long_row="skip")
    check_counts(splits.report)
    report = splits.report
    assert (report.num_read, report.num_kept, report.num_long, report.num_bad) == (3, 2, 1, 0)
    (problem,) = report.problems
    assert str(problem).startswith(f"{path}:2:1: it has ")
    assert str(problem).endswith(" tokens, over data.max_tokens (48)")
    assert len(splits.train) == 2


def test_long_rows_stop_where_the_recipe_says_so(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD, LONG, LONG])
    with pytest.raises(DataError) as caught:
        prepare_files(reader, path, max_tokens=48, on_long_row="stop")
    first, *named = caught.value.message.split("\n")
    assert first == "2 of 3 rows are over data.max_tokens:"
    assert [line.split(": ")[0].strip() for line in named] == [f"{path}:2:1", f"{path}:3:1"]
    assert "data.on_long_row: cut" in caught.value.hint
    assert caught.value.where == f"{path}:2:1"


def test_a_row_whose_prompt_fills_the_limit_is_bad(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD, HOPELESS])
    with pytest.raises(DataError, match="nothing of it is learned: its prompt fills") as caught:
        prepare_files(reader, path, max_tokens=48)
    assert caught.value.message.startswith("1 of 2 rows are bad")
    splits = prepare_files(reader, path, max_tokens=48, on_bad_row="skip")
    check_counts(splits.report)
    assert (splits.report.num_bad, splits.report.num_cut, len(splits.train)) == (1, 0, 1)


def test_rows_of_which_nothing_is_learned_are_refused(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [HOPELESS] * 3)
    with pytest.raises(DataError, match="none of the 3 rows can be learned; the first"):
        prepare_files(reader, path, max_tokens=48, on_bad_row="skip")


def test_a_template_whose_marks_hold_no_answer_teaches_nothing(tmp_path: Path) -> None:
    marked = "{%- generation %}{{- message.content }}{%- endgeneration %}"
    source = families.LOOSE_MARKS.replace(marked, "{{- message.content }}")
    unlearned = "{%- if false %}{%- generation %}{%- endgeneration %}{%- endif %}"
    reader = make_byte_level(tmp_path / "reader", source + unlearned)
    path = write_rows(tmp_path / "a.jsonl", [GOOD])
    with pytest.raises(DataError, match="1 of 1 rows are bad") as caught:
        prepare_files(reader, path)
    assert "nothing of it is learned: the chat template marks no answer" in caught.value.message


def test_cut_answers_of_a_split_conversation_are_left_out_and_the_rest_kept(
    tmp_path: Path,
) -> None:
    reader = make_byte_level(tmp_path / "reader", families.THINKING)
    talk = {"instruction": "word " * 60, "output": "end", "history": [["hi", "<think>x</think>ho"]]}
    path = write_rows(tmp_path / "a.jsonl", [talk])
    splits = prepare_files(reader, path, max_tokens=48)
    check_counts(splits.report)
    assert (splits.report.num_kept, splits.report.num_cut) == (1, 1)
    (text,) = spell_rows(reader, splits.train)
    assert "ho" in text
    assert "word" not in text


def test_a_thousand_long_rows_do_not_hide_a_bad_one() -> None:
    report, other = DataReport(), DataReport()
    for counted, kind in ((report, "long"), (other, "bad"), (other, "long")):
        for line in range(1500):
            counted.add_problem(Problem(Place("a.jsonl", line + 1, 1), "why", kind))
        counted.num_read += 1500
    report.add(other)
    check_counts(report)
    assert (report.num_bad, report.num_long, len(report.problems)) == (1500, 3000, 2000)
    with pytest.raises(DataError, match="1,500 of 4,500 rows are bad") as caught:
        report.raise_if_bad()
    assert "a.jsonl:1:1: why\n" in caught.value.message
    assert caught.value.where == "a.jsonl:1:1"


def test_a_report_without_problems_raises_nothing() -> None:
    report = DataReport(num_read=5, num_kept=5)
    report.raise_if_bad()
    report.raise_if_long()


def test_rows_in_are_rows_kept_and_reported_over_many_sets(reader: Reader, tmp_path: Path) -> None:
    one = write_mixed(tmp_path / "one.jsonl", *["oops"] * 700, good=300)
    two = write_mixed(tmp_path / "two.jsonl", *["[]"] * 700, good=5)
    held = write_pairs(tmp_path / "held.jsonl", 5)
    splits = prepare_files(reader, one, two, validation=[str(held)], on_bad_row="skip")
    check_counts(splits.report)
    assert (splits.report.num_read, splits.report.num_kept) == (1710, 310)
    assert json.dumps(splits.report.to_dict())
