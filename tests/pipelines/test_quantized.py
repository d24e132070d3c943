"""A run on a quantized base: trained, resumed to the bit, answering, exported on the full one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import packed, tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.inference.load import open_sessions
from tunesmith.inference.session import ChatSession
from tunesmith.models.adapter import load_adapter
from tunesmith.models.chat import ChatModel, find_subject, load_chat_model, load_subject
from tunesmith.models.load import load_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import resume, train

KINDS = [
    "nf4",
    "int8",
    pytest.param("hqq", marks=pytest.mark.proof),
    pytest.param("torchao", marks=pytest.mark.proof),
]
HELD_OUT: dict[str, Any] = {
    "data": {"validation_share": 0.2},
    "evaluate": {"every_steps": 2},
    "run": {"steps": 6, "save_every_steps": 2},
}


@pytest.fixture(autouse=True)
def needed() -> None:
    pytest.importorskip("bitsandbytes")


def write(folder: Path, model: Path, kind: str, **sections: Any) -> Path:
    data = tiny.write_pairs(folder / "pairs.jsonl")
    quantized = {"name": str(model), "quantize": {"kind": kind}}
    return tiny.write_recipe(folder / "r.json", model, data, model=quantized, **sections)


def train_on(folder: Path, model: Path, kind: str, **sections: Any) -> Run:
    return train(load_recipe(write(folder, model, kind, **{**HELD_OUT, **sections})))


def adapter(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "adapter_model.safetensors")


def logits(chat: ChatModel) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = chat.model(input_ids=torch.arange(5, 25)[None]).logits
    return out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, kind: str, precision: str
) -> None:
    compute = {"precision": precision}
    whole = adapter(train_on(tmp_path, tiny_model, kind, compute=compute))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        run = train_on(tmp_path, tiny_model, kind, compute=compute)
    assert run.status().state == "stopped"
    resume(run)
    assert run.status().identical
    going_on = adapter(run)
    assert whole.keys() == going_on.keys()
    assert all(torch.equal(whole[name], going_on[name]) for name in whole)
    assert any(bool(tensor.any()) for name, tensor in whole.items() if "lora_B" in name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_does_not_move(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, kind))
    device = torch.device("cpu")
    before = load_model(
        tiny_model, dtype=torch.float32, device=device, quantize=recipe.model.quantize
    )
    found: list[torch.nn.Module] = []
    with pytest.MonkeyPatch.context() as patch:
        from tunesmith.training import train as module

        def spy(prepared: Any) -> Any:
            roles = load(prepared)
            found.append(roles.policy)
            return roles

        load = module.load_policy
        patch.setattr(module, "load_policy", spy)
        train(recipe)
    after = found[0].get_base_model().state_dict()  # type: ignore[operator]
    moved = {name.replace(".base_layer", ""): value for name, value in after.items()}
    for name, value in before.state_dict().items():
        assert torch.equal(moved[name], value), name


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_on_the_base_it_was_trained_on(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    run = train_on(tmp_path, tiny_model, kind)
    quantize = run.recipe().model.quantize
    base = load_model(
        tiny_model, dtype=torch.float32, device=torch.device("cpu"), quantize=quantize
    )
    before = logits(load_chat_model(run.path, base_only=True, precision="fp32"))
    with torch.no_grad():
        assert torch.equal(before, base(input_ids=torch.arange(5, 25)[None]).logits)
    adapted = load_adapter(base, run.model, tiny_model)
    with torch.no_grad():
        wanted = adapted(input_ids=torch.arange(5, 25)[None]).logits
    assert torch.equal(logits(load_chat_model(run.path, precision="fp32")), wanted)
    (talk, _) = open_sessions(str(run.path), beside="base", system="", sampling={"max_tokens": 4})
    assert isinstance(talk, ChatSession)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_in_training_is_measured_again(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    run = train_on(tmp_path, tiny_model, kind)
    lines = map(json.loads, run.metrics_file.read_text("utf-8").splitlines())
    losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
    scores = evaluate(run.path, max_rows=1, max_tokens=4)
    assert scores.tuned.loss == pytest.approx(losses[-1], rel=1e-6)


@pytest.mark.parametrize("shape", ["qwen3", "gpt2"])
def test_an_export_is_the_adapter_on_the_full_base(
    tmp_path: Path, shape: str, command: Command
) -> None:
    model = tiny.make_model(tmp_path / "m", shape)
    run = train_on(tmp_path, model, "nf4")
    told = command("export", str(run.path), "--to", str(tmp_path / "out"))
    assert "from the quantized one" in told.out
    from dataclasses import replace

    full = load_subject(replace(find_subject(run.path), quantize=None), precision="fp32")
    merged = logits(load_chat_model(tmp_path / "out", precision="fp32"))
    assert torch.allclose(merged, logits(full), atol=1e-5)
    quantized = logits(load_chat_model(run.path, precision="fp32"))
    assert not torch.allclose(merged, quantized, atol=1e-5)
    report = json.loads((tmp_path / "out" / "parity.json").read_text("utf-8"))
    apart = report["from_quantized"]
    assert apart["num_tokens"] > 0
    assert apart["max_logit_difference"] > report["distance"]["max_logit_difference"]


def test_an_export_of_a_plain_run_says_nothing_of_it(tmp_path: Path, tiny_model: Path) -> None:
    run = tiny.train_run(tmp_path, tiny_model)
    assert export(run.path, tmp_path / "out").from_quantized is None


def test_the_version_of_the_package_is_noted(tmp_path: Path, tiny_model: Path) -> None:
    quantized = train_on(tmp_path, tiny_model, "nf4").environment()
    plain = tiny.train_run(tmp_path, tiny_model).environment()
    assert "bitsandbytes" in quantized["versions"]
    assert "bitsandbytes" not in plain["versions"]


def test_pairs_have_a_reference_of_their_own(tmp_path: Path, tiny_model: Path) -> None:
    """The first loss of preference training is log 2 on whatever base the reference was taken."""
    rows = [
        {"instruction": f"q{n}", "input": "", "chosen": f"It is {n}.", "rejected": "No idea."}
        for n in range(12)
    ]
    kept = []
    for kind in (None, "nf4", "int8"):
        data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
        model = {"name": str(tiny_model), "quantize": {"kind": kind} if kind else None}
        sections: dict[str, Any] = {"method": {"name": "dpo"}, "run": {"steps": 1}}
        path = tiny.write_recipe(tmp_path / "r.json", tiny_model, data, model=model, **sections)
        run = train(load_recipe(path))
        first = json.loads(run.metrics_file.read_text("utf-8").splitlines()[0])
        assert first["loss"] == pytest.approx(0.693147, abs=1e-4)
        kept.append(len(list((tmp_path / "cache" / "reference").iterdir())))
    assert kept == [1, 2, 3]


@pytest.mark.parametrize("method", ["gptq", pytest.param("aqlm", marks=pytest.mark.proof)])
def test_a_base_that_was_quantized_before_goes_all_the_way(
    tmp_path: Path, method: str, command: Command
) -> None:
    """Trained, stopped and resumed to the bit, measured, answering, and merged without a loss."""
    folder = packed.make_packed(tmp_path / "m", method)
    whole = adapter(tiny.train_run(tmp_path, folder, **HELD_OUT))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        run = tiny.train_run(tmp_path, folder, **HELD_OUT)
    resume(run)
    assert run.status().identical
    assert all(torch.equal(tensor, whole[name]) for name, tensor in adapter(run).items())
    scores = evaluate(run.path, max_rows=1, max_tokens=4)
    assert scores.tuned.loss < scores.base.loss
    trained = logits(load_chat_model(run.path, precision="fp32"))
    command("export", str(run.path), "--to", str(tmp_path / "out"), "--precision", "fp32")
    merged = load_chat_model(tmp_path / "out", precision="fp32")
    assert torch.allclose(logits(merged), trained, atol=1e-5)
    report = json.loads((tmp_path / "out" / "parity.json").read_text("utf-8"))
    assert report["from_quantized"]["max_logit_difference"] < 1e-4
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert "quantization_config" not in config


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"tuning": {"kind": "full"}}, "config.json"),
        ({"tuning": {"kind": "lora", "dora": True}}, "tuning.dora"),
        ({"compute": {"precision": "pure_bf16"}}, "compute.precision"),
        ({"model": {"quantize": {"kind": "hqq"}}}, "m"),
    ],
)
def test_what_needs_whole_weights_is_refused_before_a_run_is_made(
    tmp_path: Path, sections: dict[str, Any], where: str
) -> None:
    folder = packed.make_packed(tmp_path / "m", "gptq")
    with pytest.raises((ModelError, RecipeError)) as caught:
        tiny.train_run(tmp_path, folder, **sections)
    assert caught.value.where.endswith(where)
    assert "original model" in caught.value.hint or where == "compute.precision"
