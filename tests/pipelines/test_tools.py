"""A run on calls of tools learns them, resumes, answers and exports as any other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.unit.serving.spoken import connected
from tunesmith.data.prepare import prepare
from tunesmith.evaluation.rows import held_out_rows
from tunesmith.export.export import export
from tunesmith.inference.batching.build import build_engine
from tunesmith.methods import build_method
from tunesmith.models.reader import find_reader
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.samples import read_samples
from tunesmith.training.train import train

TOOL = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}


def talk(number: int, weight: float | None = None) -> dict[str, Any]:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": {"a": number}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"question {number}"},
        {"role": "assistant", "content": None, "tool_calls": [call], "weight": weight},
        {"role": "tool", "tool_call_id": "a", "content": str(number + 1)},
        {"role": "assistant", "content": f"It is {number + 1}."},
    ]
    return {"messages": messages, "tools": [TOOL]}


def train_on(folder: Path, model: Path, rows: list[dict[str, Any]], **sections: Any) -> Run:
    data = tiny.write_rows(folder / "talks.jsonl", rows)
    options = {"max_tokens": 600, **sections.pop("data", {})}
    recipe = tiny.write_recipe(
        folder / "r.json", model, data, data={"train": [str(data)], **options}, **sections
    )
    return train(load_recipe(recipe))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose positions reach to the end of a row with tools."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    return tiny.make_model(folder, max_position_embeddings=1024)


@pytest.mark.proof
def test_a_call_that_was_learned_is_served(tmp_path: Path, model: Path) -> None:
    rows = [talk(7) for _ in range(8)]
    options = {"learning_rate": 1e-2, "batch_size": 4}
    run = train_on(
        tmp_path, model, rows, optimizer=options, run={"steps": 140}, tuning={"kind": "full"}
    )
    asked: dict[str, Any] = {
        "model": "model",
        "messages": [{"role": "user", "content": "question 7"}],
        "tools": [{"type": "function", "function": TOOL}],
        "max_tokens": 100,
    }
    with connected(build_engine(run.path, precision="fp32", device="cpu").engine) as client:
        (choice,) = client.chat.completions.create(**asked).choices
        assert choice.finish_reason == "tool_calls", choice.message.content
        (call,) = choice.message.tool_calls or ()
        assert json.loads(call.function.arguments) == {"a": 7}
        answer = choice.message.model_dump(exclude_none=True)
        result = {"role": "tool", "tool_call_id": call.id, "content": "8"}
        asked["messages"] += [answer, result]
        (choice,) = client.chat.completions.create(**asked).choices
        assert choice.message.content == "It is 8."
        assert choice.finish_reason == "stop"


@pytest.mark.proof
def test_calls_are_learned_asked_for_and_exported(tmp_path: Path, model: Path) -> None:
    rows = [talk(n) for n in range(12)] + [talk_ending(n) for n in (20, 21)]
    held = {"validation_rows": 3}
    run = train_on(tmp_path, model, rows, data=held, run={"steps": 4, "name": "calls"})
    losses = [record["loss"] for record in run.metrics() if "loss" in record]
    assert losses[-1] < losses[0]
    probes = json.loads(run.probes_file.read_text("utf-8"))
    assert all(probe["tools"][0]["function"] == TOOL for probe in probes)
    assert read_samples(run)
    reader = find_reader(run.recipe().model.name)
    asked = held_out_rows(run, build_method(run.recipe().method).learn, reader).asked
    assert all(row.tools for row in asked)
    exported = export(run.name, tmp_path / "out")
    assert exported


def talk_ending(number: int) -> dict[str, Any]:
    """A talk that ends with the call."""
    return {**talk(number), "messages": talk(number)["messages"][:2]}


def test_the_first_loss_is_the_weighted_mean_of_transformers(tmp_path: Path, model: Path) -> None:
    rows = [talk(n, weight) for n, weight in enumerate((0.25, 0, None, 2.0))]
    run = train_on(tmp_path, model, rows, run={"steps": 1}, tuning={"kind": "full"})
    recipe = run.recipe()
    reader = find_reader(recipe.model.name)
    learn = build_method(recipe.method).learn
    found = prepare(recipe.data, learn, reader.tokenizer, reader.template, seed=1).train
    theirs = AutoModelForCausalLM.from_pretrained(str(model)).eval()
    total = weights = 0.0
    for row in range(len(found)):
        ids, labels = (torch.tensor([found[row][name]]) for name in ("input_ids", "labels"))
        losses = torch.nn.functional.cross_entropy(
            theirs(ids).logits[0, :-1].float(), labels[0, 1:], reduction="none"
        )[labels[0, 1:] != -100]
        count = torch.tensor(found[row].get("weights", [1.0] * len(losses)))
        total += float((losses * count).sum().detach())
        weights += float(count.sum())
    (first,) = [record["loss"] for record in run.metrics() if "loss" in record]
    assert math.isclose(first, total / weights, rel_tol=1e-4)
