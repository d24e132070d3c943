"""Real sets are read to the last row, counted independently with the json module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.files import read
from tests.unit.data.preparing import PACKED, check_counts, prepare_files
from tunesmith.data.check import check
from tunesmith.data.meaning import find_meaning, read_set
from tunesmith.data.rows import Conversation, Judged, Message, Preference, Problem, media_of
from tunesmith.data.sources import RowSet, find_sets
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data

pytestmark = pytest.mark.proof


@pytest.fixture
def folder(shared: Path) -> Path:
    """The folder of LLaMA-Factory's own sets."""
    return shared / "data" / "hiyouga+LLaMA-Factory" / "data"


def load(path: Path) -> Any:
    """Load a file with the json module alone."""
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return json.loads(text)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries whose file is here."""
    described = load(folder / "dataset_info.json")
    return {
        name: entry
        for name, entry in described.items()
        if (folder / entry.get("file_name", "none")).is_file()
    }


def find(folder: Path, name: str) -> RowSet:
    options = Data(train=(name,), info=folder)
    (rows,) = find_sets(options.train, options, "conversation")
    return rows


def is_learned(entry: dict[str, Any]) -> bool:
    """Whether an entry holds questions and answers, all of text."""
    unlearned = {"images", "videos", "audios", "chosen", "rejected", "kto_tag"}
    columns = set(entry.get("columns", {}))
    return not entry.get("ranking") and not columns & unlearned and columns != {"prompt"}


def expect_alpaca(row: dict[str, Any]) -> list[str]:
    question = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
    past = [text for turn in row.get("history") or [] for text in turn]
    return [*past, question, row["output"]]


def spell_theirs(message: Message) -> object:
    if message.calls:
        (call,) = message.calls
        return {"name": call.name, "arguments": call.arguments}
    return message.content


def test_every_set_of_questions_and_answers_is_read_whole(folder: Path) -> None:
    seen = []
    for name, entry in entries(folder).items():
        if not is_learned(entry) or entry["file_name"].endswith(".txt"):
            continue
        expected = load(folder / entry["file_name"])
        rows = find(folder, name)
        found = list(read_set(rows, find_meaning(rows, "auto"), "auto", None))
        assert len(found) == len(expected)
        for row, own in zip(found, expected, strict=True):
            if isinstance(row, Conversation) and "instruction" in own:
                assert [message.content for message in row.messages] == expect_alpaca(own)
            elif isinstance(row, Problem):
                sides = [message["from"] for message in own["conversations"]]
                assert sides[1:3] == ["gpt", "observation"], "the one fault that these sets have"
                assert "message 3 is the result of a tool, and no call stands" in row.reason
            else:
                assert isinstance(row, Conversation)
                said = [spell_theirs(message) for message in row.messages]
                assert said[-len(own["conversations"]) :] == [
                    json.loads(m["value"]) if m["from"] == "function_call" else m["value"]
                    for m in own["conversations"]
                ]
                names = [tool["function"]["name"] for tool in row.tools]
                assert names == [tool["name"] for tool in json.loads(own.get("tools") or "[]")]
        seen.append(name)
    assert {"identity", "alpaca_en_demo", "alpaca_zh_demo", "glaive_toolcall_zh_demo"} <= set(seen)


@pytest.mark.parametrize("name", ["dpo_zh_demo", "dpo_en_demo"])
@pytest.mark.parametrize("described", [True, False])
def test_every_pair_is_read_whole(folder: Path, name: str, described: bool) -> None:
    expected = load(folder / f"{name}.json")
    options = Data(train=(name,), info=folder)
    if not described:
        options = Data(train=(str(folder / f"{name}.json"),))
    (rows,) = find_sets(options.train, options, "preference")
    found = list(read_set(rows, find_meaning(rows, "auto"), "auto", None))
    assert len(found) == len(expected)
    for row, own in zip(found, expected, strict=True):
        assert isinstance(row, Preference)
        said = [message["value"] for message in [*own["conversations"], own["chosen"]]]
        assert [message.content for message in row.messages][-len(said) :] == said
        assert row.rejected.content == own["rejected"]["value"]


@pytest.mark.parametrize("described", [True, False])
def test_every_judged_answer_is_read_whole(folder: Path, described: bool) -> None:
    expected = load(folder / "kto_en_demo.json")
    options = Data(train=("kto_en_demo",), info=folder)
    if not described:
        options = Data(train=(str(folder / "kto_en_demo.json"),))
    (rows,) = find_sets(options.train, options, "judged")
    found = list(read_set(rows, find_meaning(rows, "auto"), "auto", None))
    assert len(found) == len(expected)
    for row, own in zip(found, expected, strict=True):
        assert isinstance(row, Judged)
        assert row.good is own["label"]
        said = [message["content"] for message in own["messages"]]
        assert [message.content for message in row.messages][-len(said) :] == said


def test_their_rows_that_show_images_are_read_with_them(folder: Path) -> None:
    expected = load(folder / "mllm_demo.json")
    bare = Data(train=(str(folder / "mllm_demo.json"),))
    for rows in (find(folder, "mllm_demo"), *find_sets(bare.train, bare, "conversation")):
        found = list(read_set(rows, find_meaning(rows, "auto"), "auto", None))
        for row, own in zip(found, expected, strict=True):
            assert isinstance(row, Conversation)
            assert [medium.source for medium in media_of(row)] == own["images"]
            said = [message["content"] for message in own["messages"]]
            assert [message.spell() for message in row.messages] == said


def test_every_json_file_is_read_as_the_json_module_reads_it(shared: Path) -> None:
    count = 0
    for path in sorted((shared / "data").rglob("*.json*")):
        if path.suffix not in (".json", ".jsonl"):
            continue
        expected = load(path)
        expected = expected if isinstance(expected, list) else [expected]
        found = read(path)
        rows = [row for row in expected if isinstance(row, dict)]
        assert found.rows == rows, path
        assert len(found.problems) == len(expected) - len(rows), path
        count += len(expected)
    assert count > 5000


def test_plain_texts_are_read_line_by_line_without_loss(folder: Path) -> None:
    lines = (folder / "wiki_demo.txt").read_text("utf-8").split("\n")
    found = read(folder / "wiki_demo.txt")
    assert [row["text"] for row in found.rows] == [line for line in lines if line.strip()]
    assert found.problems == []


def test_texts_in_json_lines_are_read_whole(folder: Path) -> None:
    assert read(folder / "c4_demo.jsonl").rows == load(folder / "c4_demo.jsonl")


@pytest.mark.parametrize("name", ["alpaca_zh_demo", "alpaca_en_demo"])
def test_real_rows_are_prepared_and_accounted_for(reader: Reader, folder: Path, name: str) -> None:
    splits = prepare_files(reader, name, info=folder, validation_share=0.1, max_tokens=4096)
    check_counts(splits.report)
    expected = len(load(folder / f"{name}.json"))
    assert splits.report.num_read == splits.report.num_kept == expected
    assert splits.report.num_train + splits.report.num_validation == expected


def test_real_texts_are_packed_without_losing_a_token(reader: Reader, folder: Path) -> None:
    splits = prepare_files(reader, "wiki_demo", info=folder, learn=PACKED, max_tokens=256)
    texts = (folder / "wiki_demo.txt").read_text("utf-8").split("\n")
    backend = reader.tokenizer.backend_tokenizer
    expected = sum(
        len(backend.encode(text, add_special_tokens=False).ids) + 1
        for text in texts
        if text.strip()
    )
    assert splits.report.num_tokens == splits.report.num_learned == expected
    assert set(splits.train.lengths[:-1].tolist()) == {256}


def test_thoughts_and_calls_in_parts_are_read_whole(folder: Path) -> None:
    path = folder / "reason_tool_use_demo_50.jsonl"
    report = check(path)
    assert (report.num_read, report.num_kept, report.num_reported) == (50, 50, 0)
    rows = RowSet("rows", (path,))
    found = list(read_set(rows, find_meaning(rows, "auto"), "auto", None))
    for row, line in zip(found, path.read_text("utf-8").splitlines(), strict=True):
        assert isinstance(row, Conversation)
        parts = [part for message in json.loads(line)["messages"] for part in message["content"]]
        calls = [json.loads(p["value"]) for p in parts if p["type"] == "tool_call"]
        assert [c.name for m in row.messages for c in m.calls] == [c["name"] for c in calls]
        thoughts = [part["value"] for part in parts if part["type"] == "reasoning"]
        assert [m.reasoning for m in row.messages if m.reasoning] == thoughts
