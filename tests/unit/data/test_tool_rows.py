"""Rows that offer tools and call them, as their users' files spell them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.tiny import write_rows
from tests.unit.data.preparing import check_counts, prepare_files, spell_learned
from tests.unit.data.tokenizers_of import make_byte_level
from tests.unit.templates import families
from tunesmith.data.check import check
from tunesmith.data.meaning import find_meaning, read_set
from tunesmith.data.rows import Call, Conversation, Learn, Message, Preference, Problem, Prompt
from tunesmith.data.show import render, show
from tunesmith.data.sources import RowSet
from tunesmith.data.tokens import encode
from tunesmith.errors import DataError
from tunesmith.templates import named_template

TOOL = {"name": "find", "description": "Find a shop", "parameters": {"type": "object"}}
FUNCTION = {"type": "function", "function": TOOL}
USER = {"role": "user", "content": "Where?"}
DONE = {"role": "assistant", "content": "There."}
TALK: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "tool", "tool_call_id": "a", "content": "Am Hof"},
    DONE,
]


def call(name: str = "find", arguments: Any = '{"city": "Rom"}', **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def talk(*calls: Any, results: tuple[dict[str, Any], ...] = ()) -> list[dict[str, Any]]:
    given = results or (TALK[2],)
    return [USER, {**TALK[1], "tool_calls": list(calls)}, *given, DONE]


def read(path: Path, fields: dict[str, Any], **source: Any) -> Conversation | Problem:
    rows = RowSet("rows", (write_rows(path / "rows.jsonl", [fields]),), **source)
    (row,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert isinstance(row, Conversation | Problem)
    return row


def kept(path: Path, fields: dict[str, Any], **source: Any) -> Conversation:
    row = read(path, fields, **source)
    assert isinstance(row, Conversation), str(row)
    return row


def fault(path: Path, fields: dict[str, Any]) -> str:
    row = read(path, fields)
    assert isinstance(row, Problem)
    return row.reason


def test_a_call_of_openai_is_read_with_its_result(tmp_path: Path) -> None:
    row = kept(tmp_path, {"messages": talk(call(id="a")), "tools": [FUNCTION]})
    assert row.tools == (FUNCTION,)
    assert row.messages[1] == Message("assistant", "", (Call("find", {"city": "Rom"}, "a"),))
    assert row.messages[2] == Message("tool", "Am Hof", call_id="a", name="find")
    assert row.as_dicts()[1:3] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call(arguments={"city": "Rom"}, id="a")],
        },
        {"role": "tool", "content": "Am Hof", "tool_call_id": "a", "name": "find"},
    ]


def test_parallel_calls_find_their_results_in_any_order(tmp_path: Path) -> None:
    results = tuple({"role": "tool", "tool_call_id": key, "content": key} for key in "ba")
    row = kept(tmp_path, {"messages": talk(call(id="a"), call(id="b"), results=results)})
    assert [(m.content, m.call_id) for m in row.messages[2:4]] == [("b", "b"), ("a", "a")]


def test_calls_without_ids_get_some(tmp_path: Path) -> None:
    result = {"role": "tool", "content": "x"}
    row = kept(tmp_path, {"messages": talk(call(), call("get"), results=(result, result))})
    assert [c.id for c in row.messages[1].calls] == ["call00001", "call00002"]
    named = [(m.call_id, m.name) for m in row.messages[2:4]]
    assert named == [("call00001", "find"), ("call00002", "get")]


def test_the_older_spelling_of_openai_is_read(tmp_path: Path) -> None:
    messages = [
        USER,
        {"role": "assistant", "function_call": {"name": "find", "arguments": "{}"}},
        {"role": "function", "name": "find", "content": "x"},
        DONE,
    ]
    row = kept(
        tmp_path, {"messages": messages, "functions": [TOOL]}, columns={"tools": "functions"}
    )
    assert row.messages[1].calls == (Call("find", {}, "call00001"),)
    assert row.tools == (FUNCTION,)
    said = fault(tmp_path, {"messages": messages, "functions": [TOOL]})
    assert said == "it offers `functions`; `columns: {tools: functions}` would read them"


CALLED = json.dumps({"name": "find", "arguments": {"city": "Rom"}})
SHAREGPT = [
    {"from": "human", "value": "Where?"},
    {"from": "function_call", "value": CALLED},
    {"from": "observation", "value": "Am Hof"},
    {"from": "gpt", "value": "There."},
]


def test_a_call_of_sharegpt_is_read_with_its_result(tmp_path: Path) -> None:
    row = kept(tmp_path, {"conversations": SHAREGPT, "tools": json.dumps([TOOL])})
    assert row.tools == (FUNCTION,)
    assert row.messages[1].calls == (Call("find", {"city": "Rom"}, "call00001"),)
    assert row.messages[2] == Message("tool", "Am Hof", call_id="call00001", name="find")


def test_one_observation_may_answer_several_calls(tmp_path: Path) -> None:
    several = [{"name": "find", "arguments": {}}, {"name": "get", "arguments": "{}"}]
    turns = [SHAREGPT[0], {**SHAREGPT[1], "value": json.dumps(several)}, *SHAREGPT[2:]]
    row = kept(tmp_path, {"conversations": turns})
    assert [c.name for c in row.messages[1].calls] == ["find", "get"]
    assert [m.role for m in row.messages] == ["user", "assistant", "tool", "assistant"]


def test_calls_after_a_text_or_a_thought_are_one_answer(tmp_path: Path) -> None:
    said = {"from": "gpt", "value": "I look."}
    row = kept(tmp_path, {"conversations": [SHAREGPT[0], said, *SHAREGPT[1:]]})
    assert (row.messages[1].content, len(row.messages[1].calls)) == ("I look.", 1)
    thought = {**SHAREGPT[1], "value": f"<think>\nhm\n</think>\n{CALLED}"}
    row = kept(tmp_path, {"conversations": [SHAREGPT[0], thought, *SHAREGPT[2:]]})
    assert (row.messages[1].content, len(row.messages[1].calls)) == ("<think>\nhm\n</think>", 1)


def test_parts_may_be_reasoning_and_calls(tmp_path: Path) -> None:
    parts = [
        {"type": "reasoning", "value": "hm"},
        {"type": "text", "value": "I look."},
        {"type": "tool_call", "value": CALLED},
    ]
    messages = [USER, {"role": "assistant", "content": parts}, {**TALK[2], "role": "tool"}, DONE]
    answer = kept(tmp_path, {"messages": messages}).messages[1]
    assert (answer.reasoning, answer.content, len(answer.calls)) == ("hm", "I look.", 1)


BROKEN: list[tuple[Any, str]] = [
    ({"messages": talk(call(arguments="{city"))}, "the arguments of find in message 2 is no JSON"),
    ({"messages": talk(call(arguments="[]"))}, "the arguments of find in message 2 are a list"),
    ({"messages": talk(call(name=""))}, "a call in message 2 has no `name`"),
    ({"messages": talk("find")}, "a call in message 2 is no JSON: 'find'"),
    ({"messages": talk(call(id="b"))}, "message 3 is the result of the call 'a', which waits"),
    (
        {"messages": talk(call(id="a"), call(id="b"))},
        "the call 'b' of message 2 has no result",
    ),
    ({"messages": [USER, TALK[2], DONE]}, "message 2 is the result of a tool, and no call stands"),
    (
        {"messages": [USER, {**TALK[1], "tool_calls": [call()]}, DONE]},
        "message 2 calls a tool, and message 3 is no result",
    ),
    (
        {"messages": talk(call(), results=(TALK[2], TALK[2]))},
        "message 4 is one result more than there are calls",
    ),
    ({"messages": [{**USER, "tool_calls": [call()]}, DONE]}, "message 1 calls a tool, and is of"),
    ({"messages": [USER, DONE], "tools": {"name": "f"}}, "`tools` is an object, not a list"),
    ({"messages": [USER, DONE], "tools": "find"}, "`tools` is no JSON: 'find'"),
    ({"messages": [USER, DONE], "tools": [1]}, "tool 1 of `tools` is a number, not an object"),
    ({"messages": [USER, DONE], "tools": [{}]}, "tool 1 of `tools` has no `name`"),
    ({"messages": talk(call(arguments={"n": 2**64}))}, "a call in message 2 holds the number"),
    (
        {"conversations": [SHAREGPT[0], {**SHAREGPT[1], "value": "find(Rom)"}, *SHAREGPT[2:]]},
        "the call in message 2 is no JSON: 'find(Rom)'",
    ),
    (
        {"conversations": [SHAREGPT[0], SHAREGPT[2], SHAREGPT[3]]},
        "message 2 is the result of a tool, and no call stands before it",
    ),
]


@pytest.mark.parametrize(("fields", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_call_is_named(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    assert fault(tmp_path, fields).startswith(reason)


def test_a_check_counts_good_and_broken_rows(tmp_path: Path) -> None:
    good = [{"messages": talk(call(id="a")), "tools": [TOOL]}, {"conversations": SHAREGPT}]
    bad = [fields for fields, _ in BROKEN]
    for name in ("messages", "conversations"):
        mine = [row for row in [*good, *bad] if name in row]
        report = check(write_rows(tmp_path / f"{name}.jsonl", mine))
        assert report.num_read == len(mine) == report.num_kept + report.num_reported
        assert report.num_kept == 1


def test_a_table_fills_objects_with_nulls_that_mean_nothing(tmp_path: Path) -> None:
    rows = [
        {"messages": talk(call(arguments={"city": "Rom"}, id="a")), "tools": [TOOL]},
        {
            "messages": talk(call("get", arguments={"shop": 3}, id="a")),
            "tools": [{"name": "get", "parameters": {"required": ["shop"]}}],
        },
    ]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    found = RowSet("rows", (path,))
    first, second = read_set(found, find_meaning(found, "auto"), "auto", None)
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert first.messages[1].calls[0].arguments == {"city": "Rom"}
    assert second.messages[1].calls[0].arguments == {"shop": 3}
    assert second.tools[0]["function"] == rows[1]["tools"][0]


def answer(**more: Any) -> dict[str, Any]:
    return {"messages": [USER, {**DONE, **more}, USER, DONE]}


@pytest.mark.parametrize(
    ("more", "weight"),
    [
        ({"weight": 0}, 0.0),
        ({"weight": 0.25}, 0.25),
        ({"loss_weight": 2.0}, 2.0),
        ({"loss": False}, 0.0),
        ({"train": True, "weight": None}, 1.0),
        ({}, 1.0),
    ],
)
def test_an_answer_is_weighed(tmp_path: Path, more: dict[str, Any], weight: float) -> None:
    assert kept(tmp_path, answer(**more)).messages[1].weight == weight


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            answer(weight=-1),
            "`weight` of message 2 is -1, neither 0 nor from 1e-06 to 1e+06",
        ),
        (
            answer(weight=1e39),
            "`weight` of message 2 is 1e+39, neither 0 nor from 1e-06 to 1e+06",
        ),
        (
            answer(weight=10**400),
            f"`weight` of message 2 is 1{'0' * 19}..., neither 0 nor from 1e-06 to 1e+06",
        ),
        (answer(weight="1"), "`weight` of message 2 is '1', not a number from 0"),
        (answer(weight=1, loss=False), "message 2 has several weights: weight, loss"),
        (
            {"messages": [{**USER, "train": True}, DONE]},
            "message 1 has a `train`, and only answers are weighed",
        ),
        (
            {"messages": [USER, {**DONE, "weight": 0.5}], "label": True},
            "its answer has a weight, and is judged whole",
        ),
    ],
)
def test_a_weight_that_means_nothing_is_refused(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    assert fault(tmp_path, fields) == reason


def test_calls_of_tools_that_are_not_offered_are_listed(tmp_path: Path) -> None:
    rows = [
        {"messages": talk(call("get", id="a")), "tools": [TOOL]},
        {"messages": talk(call("get", id="a"))},
        {"messages": talk(call(id="a")), "tools": [TOOL]},
    ]
    report = check(write_rows(tmp_path / "rows.jsonl", rows))
    assert (report.num_kept, report.num_unoffered) == (3, 1)
    assert [place.line for place in report.unoffered] == [1]
    assert report.to_dict()["unoffered"] == [str(report.unoffered[0])]


def test_rows_with_tools_are_kept_with_their_tokens(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "model", named_template("chatml"))
    thought = {**DONE, "reasoning_content": "so", "weight": 0.5}
    messages = [*talk(call(id="a"))[:-1], thought]
    data = write_rows(tmp_path / "rows.jsonl", [{"messages": messages, "tools": [FUNCTION]}])
    train = prepare_files(reader, data).train
    again = train.conversation(0)
    assert isinstance(again, Conversation)
    assert again.tools == (FUNCTION,)
    assert again.messages == kept(tmp_path, {"messages": messages}).messages
    assert again.messages[-1] == Message("assistant", "There.", reasoning="so", weight=0.5)
    found = train[0]
    learned = sum(label != -100 for label in found["labels"])
    assert len(found["weights"]) == learned
    assert set(found["weights"]) == {1.0, 0.5}


def test_a_call_may_be_preferred_to_an_answer(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "model", named_template("chatml"))
    row = {
        "conversations": SHAREGPT[:1],
        "chosen": SHAREGPT[1],
        "rejected": {"from": "gpt", "value": "No idea."},
        "tools": json.dumps([TOOL]),
    }
    data = write_rows(tmp_path / "rows.jsonl", [row])
    train = prepare_files(reader, data, learn=Learn("preference")).train
    pair = train.conversation(0)
    assert isinstance(pair, Preference)
    assert pair.messages[-1].calls == (Call("find", {"city": "Rom"}, "call00001"),)
    assert (pair.rejected.content, pair.tools) == ("No idea.", (FUNCTION,))
    spelled = spell_learned(reader, train, 0)
    assert spelled == (
        '<tool_call>\n{"name": "find", "arguments": {"city": "Rom"}}\n</tool_call><|im_end|>'
        "No idea.<|im_end|>"
    )


def test_both_answers_of_a_pair_are_offered_the_tools(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "model", named_template("chatml"))
    row = {
        "conversations": SHAREGPT[:1],
        "chosen": "There.",
        "rejected": "No idea.",
        "tools": json.dumps([TOOL]),
    }
    data = write_rows(tmp_path / "rows.jsonl", [row])
    train = prepare_files(reader, data, learn=Learn("preference")).train
    assert reader.template is not None
    asked = encode(reader.tokenizer, reader.template.render_prompt([USER], [FUNCTION]))
    assert train[0]["answers"][0] == len(asked)  # the question once, with the tools
    assert train[0]["input_ids"][: len(asked)] == asked


LED: list[dict[str, Any]] = [SHAREGPT[0], {"from": "gpt", "value": "I look."}, *SHAREGPT[1:]]


@pytest.mark.parametrize(
    ("fields", "last", "reference"),
    [
        ({"conversations": LED}, "tool", "There."),
        ({"conversations": LED[:4]}, "tool", None),
        ({"conversations": SHAREGPT[:2]}, "user", '["find", {"city": "Rom"}]'),
        ({"prompt": "Where?", "answer": "There."}, "user", "There."),
    ],
)
def test_a_question_is_read_with_its_tools(
    tmp_path: Path, fields: dict[str, Any], last: str, reference: str | None
) -> None:
    reader = make_byte_level(tmp_path / "model", named_template("chatml"))
    data = write_rows(tmp_path / "rows.jsonl", [{**fields, "tools": [TOOL]}])
    row = prepare_files(reader, data, learn=Learn("prompt", history=False)).train.conversation(0)
    assert isinstance(row, Prompt)
    assert (row.messages[-1].role, row.reference) == (last, reference)
    assert row.tools == (FUNCTION,)


def test_a_pair_may_follow_a_call_after_a_text(tmp_path: Path) -> None:
    row = {"conversations": LED[:4], "chosen": "There.", "rejected": "No idea."}
    pair = kept(tmp_path, row)
    assert isinstance(pair, Preference)
    assert [message.role for message in pair.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_row_whose_template_knows_no_tools_says_what_to_do(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "model", families.CHATML)
    rows = [{"messages": talk(call(id="a")), "tools": [TOOL]}, {"messages": [USER, DONE]}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"rows.jsonl:1:1: the chat template writes no tools; name"):
        prepare_files(reader, data)
    report = prepare_files(reader, data, on_bad_row="skip").report
    check_counts(report)
    assert (report.num_read, report.num_kept) == (2, 1)


def test_a_shown_row_marks_calls_and_not_results(tmp_path: Path) -> None:
    reader = make_byte_level(tmp_path / "model", named_template("chatml"))
    data = write_rows(tmp_path / "rows.jsonl", [{"messages": talk(call(id="a")), "tools": [TOOL]}])
    shown = render(
        show(data, 1, reader.tokenizer, reader.template, Learn("conversation")), marks=True
    ).plain.replace("⏎", "")
    assert '⟦<tool_call>\n{"name": "find", "arguments": {"city": "Rom"}}' in shown
    assert "<tool_response>\nAm Hof\n</tool_response>" in shown
    assert "⟦There.<|im_end|>⟧" in shown
    assert shown.count("⟦") == 2
