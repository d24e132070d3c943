"""Adapters over adapters: trained one over the other, and added to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests import tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_tunings import HELD_OUT, adapter, close, logits, watched
from tunesmith.errors import ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.models.adapter import merge_adapters
from tunesmith.models.beneath import Beneath
from tunesmith.models.chat import find_subject, load_chat_model, put_together
from tunesmith.models.load import load_model, load_scorer
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import list_runs
from tunesmith.training.train import resume, train


def run_on(folder: Path, model: Path, start: int = 0, /, **sections: Any) -> Run:
    folder.mkdir(exist_ok=True)
    data = tiny.write_pairs(folder / "pairs.jsonl", 20, start)
    given = {"tuning": {"kind": "lora", "rank": 4}, **HELD_OUT, **sections}
    return train(load_recipe(tiny.write_recipe(folder / "r.json", model, data, **given)))


def plain(model: Path) -> Any:
    return load_model(model, dtype=torch.float32, device=torch.device("cpu"))


def merged(model: Any, *folders: Path) -> Any:
    """Add adapters one after another as PEFT alone does."""
    for folder in folders:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return model


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["lora", "oft", "full"])
def test_training_begins_on_adapters_that_were_added(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_on(tmp_path / "a", tiny_model, tuning={"kind": "lora", "rank": 4, "tokens": [7]})
    second = run_on(tmp_path / "b", tiny_model, 20)
    seen = watched(monkeypatch)
    beneath = {"adapters": [first.name, str(second.model)]}
    options = {"oft": {"block_size": 8}, "lora": {"rank": 4}, "full": {}}[kind]
    tuning = {"kind": kind, **options}
    run = run_on(tmp_path / "c", tiny_model, 40, tuning=tuning, model=beneath)
    base = merged(plain(tiny_model), first.model, second.model)
    weights = dict(base.named_parameters())
    for name, weight in seen["before"].items():
        known = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if known in weights:
            assert close(weight, weights[known], 1e-6), name
    loaded = load_chat_model(run.path, precision="fp32", device="cpu")
    assert close(logits(loaded.model), seen["logits"])
    exported = load_chat_model(
        export(run.path, tmp_path / "out").folder, precision="fp32", device="cpu"
    )
    assert close(logits(exported.model), seen["logits"])
    before = load_chat_model(run.path, base_only=True, precision="fp32", device="cpu")
    assert close(logits(before.model), logits(base))
    assert evaluate(run.path) is not None


@pytest.mark.proof
def test_a_stop_and_a_resume_leave_the_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_on(tmp_path / "a", tiny_model)
    beneath = {"adapters": [str(first.model)]}
    whole = run_on(tmp_path / "b", tiny_model, 20, model=beneath)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        stopped = run_on(tmp_path / "b", tiny_model, 20, model=beneath)
    assert stopped.status().state == "stopped"
    resume(stopped)
    one, other = adapter(whole.model), adapter(stopped.model)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.proof
def test_sums_in_bf16_are_rounded_once(tmp_path: Path, tiny_model: Path) -> None:
    first = run_on(tmp_path / "a", tiny_model)
    found = load_chat_model(
        put_together(str(tiny_model), [str(first.model), str(first.model)], None, None),
        precision="bf16",
        device="cpu",
    )
    lies = found.model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight  # type: ignore[union-attr]
    half = plain(tiny_model).bfloat16().float()
    wanted = merged(half, first.model).model.layers[0].mlp.up_proj.weight
    assert lies.dtype == torch.bfloat16
    assert torch.equal(lies, wanted.bfloat16())


def test_a_head_that_scores_begins_on_adapters_of_a_model_that_writes(
    tmp_path: Path, tiny_model: Path
) -> None:
    first = run_on(tmp_path / "a", tiny_model)
    where = {"dtype": torch.float32, "device": torch.device("cpu"), "new_head": True}
    beneath = Beneath((first.model,))
    added = merge_adapters(load_scorer(tiny_model, **where), tiny_model, beneath)
    wanted = dict(merged(plain(tiny_model), first.model).named_parameters())
    for name, weight in added.named_parameters():
        assert name == "score.weight" or close(weight.detach(), wanted[name].detach(), 1e-6), name


def test_an_adapter_lies_on_the_base_it_was_trained_on(tmp_path: Path, tiny_model: Path) -> None:
    first = run_on(tmp_path / "a", tiny_model)
    over = run_on(tmp_path / "b", tiny_model, 20, model={"adapters": [str(first.model)]})
    beside = run_on(tmp_path / "c", tiny_model, 40)
    count = len(list_runs())
    for adapters, said in (
        ([str(over.model)], "another base"),
        ([str(beside.model), str(over.model)], "another base"),
        (["nothing"], "no adapter"),
    ):
        with pytest.raises((ModelError, RecipeError), match=said):
            run_on(tmp_path / "d", tiny_model, model={"adapters": adapters})
    other = {"model": {"adapters": [str(first.model)], "quantize": {"kind": "nf4"}}}
    with pytest.raises(RecipeError, match="whole weights"):
        run_on(tmp_path / "d", tiny_model, **other)
    assert len(list_runs()) == count
    elsewhere = str(tiny.make_model(tmp_path / "elsewhere", seed=9))
    with pytest.raises(ModelError, match="another base"):
        put_together(elsewhere, [beside.name], None, None)
    bare = tmp_path / "bare"
    over.model.rename(bare)
    with pytest.raises(ModelError, match="another base"):
        load_chat_model(put_together(str(tiny_model), [str(bare)], None, None))
    found = put_together(str(tiny_model), [str(first.model), str(bare)], None, None)
    three = merged(plain(tiny_model), first.model, bare)
    assert close(logits(load_chat_model(found, precision="fp32").model), logits(three))
    tiny.change_json(first.model / "adapter_config.json", lora_alpha=3)
    with pytest.raises(ModelError, match="another base"):
        load_chat_model(found)


def test_adapters_are_added_with_weights(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    one = run_on(tmp_path / "a", tiny_model)
    two = run_on(tmp_path / "b", tiny_model, 20, tuning={"kind": "lora", "rank": 6})
    to = tmp_path / "out"
    also = f"{two.name}=-0.5"
    told = command("export", one.name, "--to", to, "--also", also, "--weight", "0.75")
    assert told.code == 0, told.err
    reference = PeftModel.from_pretrained(plain(tiny_model), str(one.model), "one")
    reference.load_adapter(str(two.model), "two")
    reference.add_weighted_adapter(["one", "two"], [0.75, -0.5], "sum", combination_type="cat")
    reference.set_adapter("sum")
    exported = load_chat_model(to, precision="fp32", device="cpu")
    assert close(logits(exported.model), logits(reference), 1e-4)
    alone = load_chat_model(one.path, precision="fp32", device="cpu")
    assert not close(logits(exported.model), logits(alone.model), 1e-2)


@pytest.mark.proof
def test_what_adds_no_products_is_not_added(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    one = run_on(tmp_path / "a", tiny_model)
    dora = run_on(tmp_path / "b", tiny_model, tuning={"kind": "lora", "rank": 4, "dora": True})
    oft = run_on(tmp_path / "c", tiny_model, tuning={"kind": "oft", "block_size": 8})
    full = run_on(tmp_path / "d", tiny_model, tuning={"kind": "full"})
    for name, also, said in (
        (one, f"{dora.name}=1", "dora"),
        (one, f"{oft.name}=1", "oft"),
        (oft, f"{one.name}=1", "oft"),
        (full, f"{one.name}=1", "whole weights"),
        (one, f"{one.name}=1", "twice"),
        (one, "nothing=1", "no adapter"),
        (one, f"{oft.name}", "write NAME=0.5"),
        (one, f"{oft.name}=nan", "write NAME=0.5"),
    ):
        to = tmp_path / "out"
        told = command("export", name.name, "--to", to, "--also", also)
        assert told.code == 2
        assert said in told.err
        assert not to.exists()
    assert find_subject(one.path).blend is None
