"""On a GPU a base of few bits trains, goes on after a stop, answers and is merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import packed, tiny
from tests.gpu.test_training import losses, stop_at
from tunesmith.doctor.abilities import try_abilities
from tunesmith.export.export import export
from tunesmith.inference.load import open_sessions
from tunesmith.models.load import load_model
from tunesmith.models.quantize.product import Whole
from tunesmith.recipe.quantize import HQQ
from tunesmith.runs.run import Run
from tunesmith.training.train import resume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
KINDS: list[dict[str, Any]] = [
    {"kind": "hqq", "bits": 3},
    {"kind": "hqq", "bits": 8},
    {"kind": "torchao", "bits": 4},
]


def train(folder: Path, model: Path, quantize: dict[str, Any] | None, precision: str) -> Run:
    if quantize is not None and quantize["kind"] == "torchao":
        pytest.importorskip("torchao")
    return tiny.train_run(
        folder,
        model,
        model={"name": str(model), "quantize": quantize},
        compute={"device": "cuda", "precision": precision, "threads": 1},
        optimizer={"learning_rate": 3e-2},
        run={"steps": 8, "save_every_steps": 4},
    )


def weights(run: Run) -> dict[str, torch.Tensor]:
    return tiny.weights(run)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("quantize", KINDS, ids=str)
def test_it_goes_on_to_the_same_bits_and_answers(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantize: dict[str, Any],
    precision: str,
) -> None:
    whole = train(tmp_path, tiny_model, quantize, precision)
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        run = train(tmp_path, tiny_model, quantize, precision)
    assert run.status().state == "stopped"
    resume(run)
    assert losses(run) == losses(whole)
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(run).items())
    talk, _ = open_sessions(str(run.path), beside="base", system="", sampling={"max_tokens": 4})
    assert isinstance("".join(talk.ask("question 3")), str)


@pytest.mark.parametrize("method", ["gptq", "awq", "aqlm"])
def test_a_folder_that_was_quantized_before_is_trained_and_merged(
    tmp_path: Path, method: str
) -> None:
    folder = packed.make_packed(tmp_path / "m", method)
    run = train(tmp_path, folder, None, "bf16")
    exported = export(run.path, tmp_path / "out")
    assert exported.from_quantized is not None
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert "quantization_config" not in config


def test_few_bits_are_the_same_on_gpu_and_cpu(tiny_model: Path) -> None:
    found = []
    for kind in ("cpu", "cuda"):
        model = load_model(
            tiny_model, dtype=torch.float32, device=torch.device(kind), quantize=HQQ(bits=4)
        )
        layers = [layer for layer in model.modules() if isinstance(layer, Whole)]
        found.append([layer.whole(torch.float32).cpu() for layer in layers])
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm() / one.norm()) < 0.02  # a zero may be averaged otherwise


@pytest.mark.parametrize(
    ("precision", "frozen"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("pure_bf16", torch.bfloat16)],
)
def test_each_precision_keeps_weights_as_it_says(
    tmp_path: Path, tiny_model: Path, precision: str, frozen: torch.dtype
) -> None:
    from tunesmith.training import train as module

    seen: list[Any] = []
    load = module.load_policy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_policy", lambda given: seen.append(load(given)) or seen[-1])
        run = train(tmp_path, tiny_model, None, precision)
    assert run.environment()["precision"] == precision
    learned = torch.bfloat16 if precision == "pure_bf16" else torch.float32
    for weight in seen[0].policy.parameters():
        assert weight.dtype == (learned if weight.requires_grad else frozen)


def test_the_doctor_can_do_on_a_gpu_what_needs_no_further_package() -> None:
    for ability in try_abilities():
        assert ability.merges or "not installed" in ability.why_not, ability
