"""What cannot be packed truly is not published, and nothing of it stays visible."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.unit.export.test_refusals import files_no_larger_than, refusal
from tunesmith.errors import ExportError, MissingPackage
from tunesmith.export.few_bits import export as few_bits
from tunesmith.export.few_bits import kinds, pack
from tunesmith.export.few_bits.kinds import KINDS
from tunesmith.export.order import Calibration, Form
from tunesmith.export.parity import Limits
from tunesmith.models.load import load_model
from tunesmith.runs.run import Run

CPU = torch.device("cpu")
EVEN = {"num_key_value_heads": 4}


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    torch.set_num_threads(1)
    base = tiny.make_model(root / "base")
    data = {"train": [str(tiny.write_pairs(root / "few.jsonl", 4))]}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return tiny.train_run(root, base, data=data, run={"steps": 2})


def form(quantize: str, **calibration: Any) -> Form:
    return Form("safetensors", quantize, Calibration(**calibration) if calibration else None)


@pytest.mark.parametrize("name", ["gptq-4", "nf4"])
def test_over_the_limit_it_names_the_layer_that_changes_most(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(KINDS, name, replace(KINDS[name], limits=Limits(0.0, 1.0)))
    problem = refusal(run.path, to, form=form(name))
    assert isinstance(problem, ExportError)
    assert problem.message.startswith(f"in {name} the model moves too far")
    assert "; the layer model.layers." in problem.message
    assert "changes most, by " in problem.message
    assert problem.hint == f"export with --quantize {KINDS[name].nearer}"


def test_a_layer_that_is_spoilt_is_the_one_that_is_named(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize, count = pack.quantize, 0

    def spoil_one(weight: torch.Tensor, squares: torch.Tensor, options: Any) -> Any:
        nonlocal count
        count += 1
        groups = quantize(weight, squares, options)
        return replace(groups, codes=groups.codes.flip(0)) if count == 12 else groups

    monkeypatch.setattr(pack, "quantize", spoil_one)
    monkeypatch.setitem(KINDS, "gptq-8", replace(KINDS["gptq-8"], limits=Limits(1e-9, 1.0)))
    problem = refusal(run.path, to, form=form("gptq-8"))
    assert "the layer model.layers.1.mlp.gate_proj changes most" in problem.message


@pytest.mark.parametrize("name", ["gptq", "gptq-5", "q4_k_m", "awq", "torchao", "NF4"])
def test_a_kind_that_is_not_there_is_answered_with_those_that_are(
    run: Run, to: Path, name: str
) -> None:
    problem = refusal(run.path, to, form=form(name))
    assert problem.message == f"there are no safetensors in {name}"
    assert "gptq-4" in problem.hint
    assert "nf4" in problem.hint
    assert "--format gguf" in problem.hint


def test_without_bitsandbytes_the_extra_is_named(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str, *, extra: str) -> None:
        raise MissingPackage(f"{package} is missing", hint=f"pip install 'tunesmith[{extra}]'")

    monkeypatch.setattr(kinds, "require", missing)
    assert "tunesmith[quant]" in refusal(run.path, to, form=form("nf4")).hint


@pytest.mark.parametrize(
    "asked",
    [Form("safetensors", "nf4", Calibration()), Form("safetensors", None, Calibration())],
    ids=str,
)
def test_rows_that_nothing_looks_at_are_refused(run: Run, to: Path, asked: Form) -> None:
    problem = refusal(run.path, to, form=asked)
    assert "no rows are looked at" in problem.message
    assert problem.where == "--calibrate"


def test_rows_that_are_gone_are_missed_before_anything_is_loaded(
    run: Run, to: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(few_bits, "load_merged", never)
    (root / "few.jsonl").rename(root / "elsewhere.jsonl")
    try:
        problem = refusal(run.path, to, form=form("gptq-4"))
    finally:
        (root / "elsewhere.jsonl").rename(root / "few.jsonl")
    assert problem.message.startswith("GPTQ is calibrated on rows, and these cannot be read")
    assert "few.jsonl" in problem.message + problem.where
    problem = refusal(run.path, to, form=form("gptq-4", file=to.with_name("none.txt")))
    assert problem.message == "there is no such file"


def test_conversations_are_no_texts_to_calibrate_on(run: Run, to: Path, root: Path) -> None:
    problem = refusal(run.path, to, form=form("gptq-4", file=root / "few.jsonl"))
    assert "the rows are conversations" in problem.message
    assert problem.hint == "name a file of plain texts, or leave out --calibrate-on"


def test_what_scores_is_refused(run: Run, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_bits, "is_scorer", lambda _: True)
    problem = refusal(run.path, to, form=form("int8"))
    assert problem.message == "a model that scores is not written in few bits"


@pytest.mark.parametrize("name", ["gptq-4", "int8"])
def test_what_the_disk_refuses_is_not_published(run: Run, to: Path, name: str) -> None:
    with files_no_larger_than(10_000):
        problem = refusal(run.path, to, form=form(name))
    assert problem.message.startswith("the export cannot be written: ")


@pytest.mark.parametrize(
    ("shape", "changes", "why"),
    [
        ("qwen2", {"intermediate_size": 72, **EVEN}, "model.layers.0.mlp.gate_proj is [72, 32]"),
        ("mixture", {}, "holds experts"),
    ],
)
def test_layers_that_gptq_folders_cannot_hold_are_named(
    tmp_path: Path, shape: str, changes: dict[str, int], why: str
) -> None:
    folder = tiny.make_model(tmp_path / "base", shape, **changes)
    model = load_model(folder, dtype=torch.float32, device=CPU)
    with pytest.raises(ExportError) as caught:
        pack.pack_gptq(model, KINDS["gptq-4"], [[1, 2, 3]])
    assert why in caught.value.message
    assert "gguf" in caught.value.hint


def test_a_model_that_hands_on_more_than_states_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "base", "llama")
    model: Any = load_model(folder, dtype=torch.float32, device=CPU)

    def double(_: Any, given: Any) -> Any:
        return (given[0] * 2, *given[1:])

    model.model.layers[1].register_forward_pre_hook(double)
    with pytest.raises(ExportError, match="something is done between its blocks"):
        pack.pack_gptq(model, KINDS["gptq-4"], [[1, 2, 3]])


def test_bits_of_bitsandbytes_that_are_missing_are_missed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from tunesmith.errors import ModelError

    folder = tiny.make_model(tmp_path / "base", "llama")
    model = load_model(folder, dtype=torch.float32, device=CPU)
    layers = pack.pack_bnb(model, KINDS["nf4"], torch.float32)
    model.save_pretrained(str(tmp_path / "nf4"), state_dict=layers.state(model))
    tiny.change_json(tmp_path / "nf4" / "config.json", quantization_config=layers.described)
    weights = tmp_path / "nf4" / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    for part in (f"{name}.quant_map", f"{name}.quant_state.bitsandbytes__nf4", name):
        kept = {each: tensor for each, tensor in tensors.items() if each != part}
        save_file(kept, weights, {"format": "pt"})
        with pytest.raises(ModelError, match=r"missing: model\.layers\.1\.mlp\.up_proj"):
            load_model(tmp_path / "nf4", dtype=torch.float32, device=CPU)
    for part in (name, f"{name}.absmax"):
        save_file({**tensors, part: tensors[part][:-1].clone()}, weights, {"format": "pt"})
        with pytest.raises(ModelError, match=r"of another shape: .*layers\.1\.mlp\.up_proj"):
            load_model(tmp_path / "nf4", dtype=torch.float32, device=CPU)
    told = json.loads((tmp_path / "nf4" / "config.json").read_text("utf-8"))
    odd = {**told["quantization_config"], "bnb_4bit_quant_storage": "bfloat16"}
    tiny.change_json(tmp_path / "nf4" / "config.json", quantization_config=odd)
    with pytest.raises(ModelError, match="in numbers of bfloat16"):
        load_model(tmp_path / "nf4", dtype=torch.float32, device=CPU)
