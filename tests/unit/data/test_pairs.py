"""Preference pairs: two answers to one question, read in several forms, tokenized as one row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import write_rows
from tests.unit.data.preparing import check_counts, prepare_files
from tests.unit.data.tokenizers_of import make_byte_level, make_spaced
from tests.unit.templates import families
from tunesmith.data.check import check
from tunesmith.data.formats import FORMATS, Pair
from tunesmith.data.pairs import join_answers
from tunesmith.data.rows import Learn, Message, Preference, RowFault
from tunesmith.data.show import render, show
from tunesmith.data.tokens import TokenRow
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data

PAIRS = Learn("preference", history=False)
ALPACA = {"instruction": "why?", "chosen": "because", "rejected": "no"}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "why?"}],
    "chosen": {"from": "gpt", "value": "because"},
    "rejected": {"from": "gpt", "value": "no"},
}


def read(name: str, fields: dict[str, Any]) -> Pair:
    pair = FORMATS[name].read(fields, FORMATS[name].tags)
    assert isinstance(pair, Pair)
    return pair


def fault(name: str, fields: dict[str, Any]) -> str:
    with pytest.raises(RowFault) as caught:
        FORMATS[name].read(fields, FORMATS[name].tags)
    return str(caught.value)


@pytest.mark.parametrize(("name", "row"), [("alpaca_pairs", ALPACA), ("sharegpt_pairs", SHAREGPT)])
def test_both_forms_give_the_same_pair(name: str, row: dict[str, Any]) -> None:
    pair = read(name, {**row, "system": "be kind"})
    assert pair.rejected == Message("assistant", "no")
    assert [m.content for m in pair.messages] == ["be kind", "why?", "because"]
    assert [m.role for m in pair.messages] == ["system", "user", "assistant"]


def test_answers_may_be_bare_texts_and_history_comes_first() -> None:
    assert read("sharegpt_pairs", {**SHAREGPT, "chosen": "so"}).messages[-1].content == "so"
    asked = read("alpaca_pairs", {**ALPACA, "history": [["hi", "hello"]], "input": "tell"})
    said = [message.content for message in asked.messages]
    assert said == ["hi", "hello", "why?\ntell", "because"]


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("alpaca_pairs", {**ALPACA, "chosen": " "}, "the answer is empty: `chosen` has no text"),
    ("alpaca_pairs", {**ALPACA, "rejected": "because"}, "both answers are the same"),
    ("alpaca_pairs", {**ALPACA, "rejected": None}, "`rejected` is null, not a text"),
    ("alpaca_pairs", {**ALPACA, "instruction": ""}, "the question is empty"),
    ("sharegpt_pairs", {**SHAREGPT, "chosen": {"from": "gpt"}}, "`chosen` has no `value`"),
    (
        "sharegpt_pairs",
        {**SHAREGPT, "chosen": {"from": "human", "value": "a"}},
        "`chosen` is of role 'human'; expected gpt",
    ),
    ("sharegpt_pairs", {**SHAREGPT, "chosen": 3}, "`chosen` is a number, not a text"),
    (
        "sharegpt_pairs",
        {**SHAREGPT, "conversations": [*SHAREGPT["conversations"], {"from": "gpt", "value": "a"}]},
        "the conversation ends with an answer already",
    ),
    ("sharegpt_pairs", {**SHAREGPT, "conversations": []}, "message 1 is of role assistant"),
]


@pytest.mark.parametrize(("name", "row", "reason"), FAULTS)
def test_what_is_wrong_with_a_pair_is_named(name: str, row: dict[str, Any], reason: str) -> None:
    assert reason in fault(name, row)


@pytest.mark.parametrize("row", [ALPACA, SHAREGPT], ids=["alpaca", "sharegpt"])
def test_a_pair_is_one_row_with_its_question_once(
    reader: Reader, tmp_path: Path, row: dict[str, Any]
) -> None:
    splits = prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row]), learn=PAIRS)
    check_counts(splits.report)
    made = splits.train[0]
    first, second = made["answers"]
    ids, labels = made["input_ids"], made["labels"]
    spell = reader.tokenizer.decode
    assert spell(ids[:first]) == "<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n"
    assert (spell(ids[first:second]), spell(ids[second:])) == ("because<|im_end|>", "no<|im_end|>")
    assert labels == [-100] * first + ids[first:]
    assert splits.train.num_learned == len(ids) - first
    assert splits.train.reach == max(second, first + len(ids) - second) < len(ids)
    source = splits.train.conversation(0)
    assert isinstance(source, Preference)
    assert (source.messages[-1].content, source.rejected.content) == ("because", "no")


TEMPLATES = {
    name: getattr(families, name)
    for name in ("CHATML", "THINKING", "HEADERS", "INST", "LAST_INST", "NO_SYSTEM", "OPEN_ENDED")
}


MADE = [
    *((make_byte_level, template) for template in TEMPLATES.values()),
    *((make_spaced, TEMPLATES[name]) for name in ("INST", "LAST_INST")),
]


@pytest.mark.parametrize(("make", "template"), MADE)
def test_each_answer_has_the_tokens_that_it_has_alone(
    make: Callable[..., Reader], template: str, tmp_path: Path
) -> None:
    reader = make(tmp_path / "model", template)
    row = {**ALPACA, "history": [["hi", "hello"]]}
    made = prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row]), learn=PAIRS).train[0]
    first, second = made["answers"]
    ids, labels = made["input_ids"], made["labels"]
    assert first > 3
    for answer, part in (("chosen", slice(first, second)), ("rejected", slice(second, None))):
        alone = {key: row[key] for key in ("instruction", "history")} | {"output": row[answer]}
        path = write_rows(tmp_path / f"{answer}.jsonl", [alone])
        last_only = Learn("conversation", history=False)
        expected = prepare_files(reader, path, learn=last_only).train[0]
        text, marks = ids[:first] + ids[part], labels[:first] + labels[part]
        assert expected["input_ids"][: len(text)] == text
        assert expected["labels"][: len(text)] == marks
        assert set(expected["labels"][len(text) :]) <= {-100}


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@given(tokens, tokens, tokens, tokens)
def test_a_joined_row_holds_both_texts_whole(
    asked: list[int], other: list[int], chosen: list[int], rejected: list[int]
) -> None:
    one = TokenRow(asked + chosen, [(len(asked), len(asked) + len(chosen))])
    two = TokenRow(other + rejected, [(len(other), len(other) + len(rejected))])
    row = join_answers(one, two)
    if row is None:
        assert one.ids == two.ids
        return
    assert row.answers is not None
    first, second = row.answers
    assert row.ids[:second] == one.ids
    assert row.ids[:first] + row.ids[second:] == two.ids
    shift = second - first
    assert one.ids != two.ids
    (mine,), (theirs,) = one.learned, two.learned
    assert row.learned == [mine, (theirs[0] + shift, theirs[1] + shift)]
    assert first <= min(len(asked), len(other))


def test_a_long_pair_is_cut_at_each_answer_and_one_with_nothing_left_is_bad(
    reader: Reader, tmp_path: Path
) -> None:
    long = {**ALPACA, "chosen": "because " * 20}
    path = write_rows(tmp_path / "a.jsonl", [long, {**ALPACA, "instruction": "why? " * 40}])
    splits = prepare_files(reader, path, learn=PAIRS, max_tokens=40, on_bad_row="skip")
    first, second = splits.train[0]["answers"]
    assert second == splits.train.reach == 40
    assert first < len(splits.train[0]["input_ids"]) - second + first < 40
    assert "its prompt fills data.max_tokens" in splits.report.problems[0].reason


def test_answers_that_are_the_same_tokens_after_a_cut_are_bad(
    reader: Reader, tmp_path: Path
) -> None:
    long = {**ALPACA, "chosen": "so " * 50 + "a", "rejected": "so " * 50 + "b"}
    path = write_rows(tmp_path / "a.jsonl", [long, ALPACA])
    report = prepare_files(reader, path, learn=PAIRS, max_tokens=40, on_bad_row="skip").report
    check_counts(report)
    assert (report.num_kept, report.num_cut) == (1, 0)
    assert "both answers are the same tokens" in report.problems[0].reason


def test_a_table_may_spell_messages_as_json(reader: Reader, tmp_path: Path) -> None:
    rows = {name: json.dumps(value) for name, value in SHAREGPT.items()}
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows)
        writer.writeheader()
        writer.writerow(rows)
    source = prepare_files(reader, tmp_path / "a.csv", learn=PAIRS).train.conversation(0)
    assert isinstance(source, Preference)
    assert (source.messages[-1].content, source.rejected.content) == ("because", "no")


def test_rows_of_another_kind_are_refused_by_name(reader: Reader, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "a.jsonl", [ALPACA])
    plain = write_rows(tmp_path / "b.jsonl", [{"instruction": "a", "output": "b"}])
    with pytest.raises(DataError, match=r"preference pairs .alpaca_pairs.; sft learns") as caught:
        prepare_files(reader, pairs)
    assert "method.name: dpo" in caught.value.hint
    with pytest.raises(DataError, match=r"conversations .alpaca.; dpo learns from preference"):
        prepare_files(reader, plain, learn=PAIRS)
    with pytest.raises(DataError, match="some files hold preference pairs and some conversations"):
        prepare_files(reader, tmp_path, learn=PAIRS)


def test_pairs_are_looked_at_and_shown(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ALPACA, ALPACA, {**ALPACA, "rejected": "never"}])
    report = check(path, reader.tokenizer, reader.template)
    assert (report.kind, report.num_read, report.num_kept) == ("preference", 3, 3)
    assert (report.num_duplicate_rows, report.num_contradictions) == (1, 0)
    assert report.tokens is not None
    shown = show(Data(train=(str(path),)), 1, reader.tokenizer, reader.template, PAIRS)
    text = render(shown, marks=True).plain
    assert "chosen, " in text
    assert "⟦because<|im_end|>⟧" in text
    assert "rejected, " in text
    assert "⟦no<|im_end|>⟧" in text


def test_a_description_names_the_columns_of_pairs(reader: Reader, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"q": "why?", "good": "because", "bad": "no"}])
    (tmp_path / "dataset_info.json").write_text(
        '{"mine": {"file_name": "a.jsonl", "ranking": true, "columns": '
        '{"prompt": "q", "chosen": "good", "rejected": "bad"}}}',
        "utf-8",
    )
    splits = prepare_files(reader, "mine", learn=PAIRS, info=tmp_path)
    source = splits.train.conversation(0)
    assert isinstance(source, Preference)
    assert source.rejected.content == "no"
