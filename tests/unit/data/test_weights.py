"""Weights of answers become weights of their tokens, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows
from tests.unit.data.preparing import check_counts, prepare_files, spell_learned
from tests.unit.data.tokenizers_of import make_byte_level
from tests.unit.templates import families
from tunesmith.data.check import check
from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return make_byte_level(tmp_path / "model")


def talk(*weights: float | None) -> dict[str, Any]:
    """Answers `a0`, `a1` and so on, each of its weight."""
    turns = [
        turn
        for number, weight in enumerate(weights)
        for turn in (
            {"role": "user", "content": f"q{number}"},
            {"role": "assistant", "content": f"a{number}", "weight": weight},
        )
    ]
    return {"messages": turns}


def weighed(reader: Reader, rows: TokenRows, row: int) -> Iterator[tuple[str, float]]:
    """Spell the learned tokens that stand beside each other and count alike."""
    found = rows[row]
    ids = [token for token in found["labels"] if token != -100]
    weights = found.get("weights", [1.0] * len(ids))
    assert len(weights) == len(ids)
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or weights[at] != weights[start]:
            yield reader.tokenizer.decode(ids[start:at]), weights[start]
            start = at


def test_each_answer_counts_by_its_weight(tmp_path: Path, reader: Reader) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [talk(0.25, None, 0, 3)])
    train = prepare_files(reader, data).train
    assert list(weighed(reader, train, 0)) == [
        ("a0<|im_end|>", 0.25),
        ("a1<|im_end|>", 1.0),
        ("a3<|im_end|>", 3.0),
    ]


def test_whole_weights_leave_no_trace(tmp_path: Path, reader: Reader) -> None:
    plain = prepare_files(reader, write_rows(tmp_path / "a.jsonl", [talk(None, None)])).train
    whole = prepare_files(reader, write_rows(tmp_path / "b.jsonl", [talk(1, 1)])).train
    masked = prepare_files(reader, write_rows(tmp_path / "c.jsonl", [talk(0, 1)])).train
    assert plain[0] == whole[0]
    assert "weights" not in masked[0]
    assert spell_learned(reader, masked, 0) == "a1<|im_end|>"
    assert masked[0]["input_ids"] == plain[0]["input_ids"]


def test_only_the_last_answer_counts_where_history_does_not(tmp_path: Path, reader: Reader) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [talk(0.5, 0.25)])
    train = prepare_files(reader, data, learn=Learn("conversation", history=False)).train
    assert list(weighed(reader, train, 0)) == [("a1<|im_end|>", 0.25)]


def test_prompts_are_learned_and_masked_answers_not(tmp_path: Path, reader: Reader) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [talk(0, 0.5)])
    train = prepare_files(reader, data, learn=Learn("conversation", prompts=True)).train
    (before, one), (answer, half), (after, again) = weighed(reader, train, 0)
    assert (one, half, again) == (1.0, 0.5, 1.0)
    assert "q0" in before
    assert "q1" in before
    assert "a0" not in before
    assert (answer, after) == ("a1<|im_end|>", "\n")


def test_a_row_an_answer_keeps_its_weight(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "thinking", families.THINKING)
    data = write_rows(tmp_path / "rows.jsonl", [talk(0.5, 0, 2)])
    splits = prepare_files(reader, data)
    check_counts(splits.report)
    assert len(splits.train) == 2
    found = [list(weighed(reader, splits.train, row)) for row in (0, 1)]
    assert [weights[0][1] for weights in found] == [0.5, 2.0]


def test_a_row_that_weighs_nothing_is_bad(tmp_path: Path, reader: Reader) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [talk(0, 0), talk(1)])
    with pytest.raises(DataError, match=r"nothing of it is learned: .* all weigh nothing"):
        prepare_files(reader, data)
    report = prepare_files(reader, data, on_bad_row="skip").report
    check_counts(report)
    assert (report.num_read, report.num_kept) == (2, 1)


def test_a_cut_keeps_the_weights_of_what_is_left(tmp_path: Path, reader: Reader) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [talk(0.5, 0.25)])
    whole = prepare_files(reader, data).train
    length = len(whole[0]["input_ids"])
    cut = prepare_files(reader, data, max_tokens=length - 2).train
    assert cut[0]["weights"] == whole[0]["weights"][:-1]


def test_a_check_names_the_rows_that_are_refused_in_training(
    tmp_path: Path, reader: Reader
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [talk(0, 0), talk(0, 1)])
    learned = prepare_files(reader, data, on_bad_row="skip").report
    report = check(data, reader.tokenizer, reader.template)
    assert [str(problem) for problem in report.problems] == list(map(str, learned.problems))
    assert (report.num_kept, report.num_reported) == (1, 1)
    prompts_too = Learn("conversation", prompts=True)
    assert check(data, reader.tokenizer, reader.template, prompts_too).num_kept == 2
    with pytest.raises(DataError, match="the rows are conversations") as refused:
        check(data, reader.tokenizer, reader.template, Learn("preference"))
    assert "method.name: sft" in refused.value.hint
