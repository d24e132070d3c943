"""Pairs and completions as messages: the forms that TRL's data sets and OpenAI's have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny import write_rows
from tests.unit.data.preparing import check_counts, prepare_files
from tunesmith.data.formats import FORMATS, Pair, Question
from tunesmith.data.rows import Conversation, Learn, Preference, Prompt, RowFault
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader

PAIRS = Learn("preference", history=False)
ASKED = {"role": "user", "content": "why?"}
GOOD = {"role": "assistant", "content": "because"}
BAD = {"role": "assistant", "content": "no"}
FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "why?", "chosen": "because", "rejected": "no"},
    "a message each": {"prompt": [ASKED], "chosen": GOOD, "rejected": BAD},
    "a list each": {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
    "whole conversations": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "the question twice": {"prompt": "why?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "after messages": {"messages": [ASKED], "chosen": GOOD, "rejected": BAD},
}
TALK = [ASKED, GOOD, {"role": "user", "content": "how?"}]


def read(name: str, fields: dict[str, Any]) -> Pair:
    pair = FORMATS[name].read(fields, {})
    assert isinstance(pair, Pair)
    return pair


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_every_form_is_found_and_gives_the_same_pair(
    reader: Reader, tmp_path: Path, form: str, ending: str
) -> None:
    row = {**FORMS[form], "system": "be kind"}
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        write_rows(path, [row])
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    splits = prepare_files(reader, path, learn=PAIRS)
    check_counts(splits.report)
    source = splits.train.conversation(0)
    assert isinstance(source, Preference)
    said = [(message.role, message.content) for message in source.messages]
    assert said == [("system", "be kind"), ("user", "why?"), ("assistant", "because")]
    assert source.rejected.content == "no"
    first, second = splits.train[0]["answers"]
    spell = reader.tokenizer.decode
    ids = splits.train[0]["input_ids"]
    assert (spell(ids[first:second]), spell(ids[second:])) == ("because<|im_end|>", "no<|im_end|>")


def test_several_turns_may_stand_in_the_prompt_or_in_both_answers() -> None:
    inside = {"chosen": [*TALK, GOOD], "rejected": [*TALK, BAD]}
    parted = {"prompt": [ASKED], "chosen": [*TALK[1:], GOOD], "rejected": [*TALK[1:], BAD]}
    before = {"prompt": TALK, "chosen": [GOOD], "rejected": [BAD]}
    pairs = [
        read("prompt_pairs", row) for row in (inside, {**inside, "prompt": "why?"}, parted, before)
    ]
    assert all(pair == pairs[0] for pair in pairs)
    assert [message.content for message in pairs[0].messages] == [
        "why?",
        "because",
        "how?",
        "because",
    ]


def test_answers_may_call_tools() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}
    pair = read("messages_pairs", {"messages": [ASKED], "chosen": call, "rejected": BAD})
    assert pair.messages[-1].calls[0].name == "find"


HOW = {"role": "user", "content": "how?"}
LISTS, TEXTS = FORMS["a list each"], FORMS["texts"]
AFTER = {"messages": [ASKED], "chosen": GOOD, "rejected": BAD}
FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("prompt_pairs", {**TEXTS, "rejected": "because"}, "both answers are the same"),
    ("prompt_pairs", {**TEXTS, "chosen": " "}, "the answer is empty: `chosen`"),
    ("prompt_pairs", {**TEXTS, "rejected": None}, "`rejected` is null"),
    ("prompt_pairs", {**TEXTS, "rejected": []}, "`rejected` holds no message"),
    ("prompt_pairs", {**TEXTS, "prompt": ""}, "the question in message 1 is empty"),
    ("prompt_pairs", {**TEXTS, "chosen": [ASKED]}, "`chosen` ends with a message of role user"),
    ("prompt_pairs", {"chosen": [ASKED, GOOD], "rejected": [HOW, BAD]}, "differ before"),
    ("prompt_pairs", {**FORMS["the question twice"], "prompt": "how?"}, "another question than"),
    ("prompt_pairs", {**LISTS, "prompt": [ASKED, GOOD]}, "ends with an answer already"),
    ("prompt_pairs", {**LISTS, "rejected": [{"content": "no"}]}, "message 1 of `rejected` has no"),
    ("messages_pairs", {"messages": [ASKED], "chosen": GOOD}, "`rejected` is missing"),
    ("messages_pairs", {**AFTER, "chosen": {**GOOD, "weight": 0.5}}, "`chosen` has a weight"),
]


@pytest.mark.parametrize(("name", "row", "reason"), FAULTS)
def test_what_is_wrong_with_a_pair_is_named(name: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault) as caught:
        FORMATS[name].read(row, {})
    assert reason in str(caught.value)


@pytest.mark.parametrize("form", ["texts", "after messages", "whole conversations"])
def test_sft_names_what_learns_from_pairs(reader: Reader, tmp_path: Path, form: str) -> None:
    path = write_rows(tmp_path / "a.jsonl", [FORMS[form]])
    with pytest.raises(DataError, match="the rows are preference pairs"):
        prepare_files(reader, path)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"talk": [ASKED, GOOD]}, "columns: {messages: talk}"),
        ({"conversations": [ASKED, GOOD]}, "columns: {messages: conversations}"),
        ({"talk": [{"from": "human", "value": "why?"}]}, "columns: {conversations: talk}"),
        ({"chosen": "Human: why? Assistant: so", "rejected": "no"}, "give both as messages"),
    ],
)
def test_rows_of_other_names_get_the_names_to_write(
    reader: Reader, tmp_path: Path, row: dict[str, Any], hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row]))
    assert hint in caught.value.hint


@pytest.mark.parametrize("row", [
    {"prompt": "why?", "completion": "because"},
    {"prompt": [ASKED], "completion": [GOOD]},
    {"prompt": [ASKED], "completion": GOOD},
])  # fmt: skip
def test_prompt_and_completion_are_question_and_answer(
    reader: Reader, tmp_path: Path, row: dict[str, Any]
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{**row, "system": "be kind"}])
    learned = prepare_files(reader, path).train.conversation(0)
    said = [(message.role, message.content) for message in learned.messages]
    assert said == [("system", "be kind"), ("user", "why?"), ("assistant", "because")]
    asked = prepare_files(reader, path, learn=Learn("prompt")).train.conversation(0)
    assert isinstance(asked, Prompt)
    assert ([m.content for m in asked.messages], asked.reference) == (
        ["be kind", "why?"],
        "because",
    )


def test_a_system_column_beside_messages_is_not_dropped(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [
        {"messages": [ASKED, GOOD], "system": "be kind"},
        {"messages": [{"role": "system", "content": "be brief"}, ASKED, GOOD], "system": "be kind"},
    ])  # fmt: skip
    train = prepare_files(reader, path).train
    firsts = [train.conversation(row).messages[0].content for row in range(2)]
    assert firsts == ["be kind", "be brief"]
    asked = FORMATS["prompts"].read({"prompt": "why?", "system": "be kind"}, {})
    assert asked.messages[0].content == "be kind"  # type: ignore[union-attr]
    assert isinstance(train.conversation(0), Conversation)


SYSTEM = {"role": "system", "content": "be short"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"messages": [SYSTEM, ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
            ["be short", "why?", "because"],
        ),
        (
            {"prompt": "how?", "messages": TALK, "chosen": "so", "rejected": "no"},
            ["why?", "because", "how?", "so"],
        ),
        (
            {"messages": [ASKED], "chosen": [GOOD], "rejected": "no"},
            ["why?", "because"],
        ),
        (
            {"prompt": "why?", "chosen": json.dumps([GOOD]), "rejected": json.dumps([BAD])},
            ["why?", "because"],
        ),
        (
            {"prompt": json.dumps([ASKED]), "chosen": "[1]", "rejected": "[2]"},
            ["why?", "[1]"],
        ),
    ],
)
def test_nothing_that_was_said_before_a_pair_is_left_out(
    reader: Reader, tmp_path: Path, row: dict[str, Any], said: list[str]
) -> None:
    splits = prepare_files(reader, write_rows(tmp_path / "a.jsonl", [row]), learn=PAIRS)
    source = splits.train.conversation(0)
    assert isinstance(source, Preference)
    assert [message.content for message in source.messages] == said


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"prompt": "2+2?", "completion": "so 4.", "answer": "4"}, "4"),
        ({"prompt": "2+2?", "completion": None, "answer": "4"}, "4"),
        ({"prompt": "2+2?", "completion": ""}, None),
        ({"prompt": "2+2?", "completion": "4"}, "4"),
    ],
)
def test_rewards_are_given_the_answer_and_else_the_completion(
    row: dict[str, Any], reference: str | None
) -> None:
    question = FORMATS["completion_prompts"].read(row, {})
    assert isinstance(question, Question)
    assert question.reference == reference


def test_a_bad_completion_is_not_learned_whatever_its_label_is_spelled(
    reader: Reader, tmp_path: Path
) -> None:
    rows = [{"prompt": "q", "completion": "bad", "label": label} for label in (0, "false", False)]
    good = {"prompt": "q", "completion": "good"}
    path = write_rows(tmp_path / "a.jsonl", [good, *rows])
    with pytest.raises(DataError, match="3 of 4 rows are bad"):
        prepare_files(reader, path, learn=Learn("conversation"))
