"""On a GPU training in fp16 scales its losses, goes on to the same scale, and learns as fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.gpu.test_training import losses, stop_at
from tests.pipelines.test_fp16 import TOO_LARGE, begins_too_large, told
from tunesmith.models.head import Head, Targets, summed_loss
from tunesmith.runs.run import Run
from tunesmith.training.train import resume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
__all__ = ["begins_too_large"]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"tuning": {"kind": "lora"}},
    "full": {"tuning": {"kind": "full"}},
    "nf4": {"tuning": {"kind": "lora"}, "quantize": {"kind": "nf4"}},
    "hqq": {"tuning": {"kind": "lora"}, "quantize": {"kind": "hqq", "bits": 3}},
}


def train(folder: Path, model: Path, kind: str, precision: str = "fp16") -> Run:
    options = KINDS[kind]
    rate = 1e-3 if kind == "full" else 1e-2
    return tiny.train_run(
        folder,
        model,
        model={"name": str(model), "quantize": options.get("quantize")},
        tuning=options["tuning"],
        compute={"device": "cuda", "precision": precision, "threads": 1},
        optimizer={"learning_rate": rate, "warmup": 0},
        run={"steps": 14, "save_every_steps": 5},
    )


@pytest.mark.parametrize("kind", ["lora", "full", "nf4", "hqq"])
def test_it_learns_what_fp32_learns(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    half, exact = (train(tmp_path, tiny_model, kind, each) for each in ("fp16", "fp32"))
    assert half.environment()["precision"] == "fp16"
    assert losses(half) == pytest.approx(losses(exact), rel=2e-3)
    assert losses(half)[-1] < 0.96 * losses(half)[0]


@pytest.mark.usefixtures("begins_too_large")
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_updates_that_overflow_are_left_out_and_a_resume_keeps_the_scale(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path, tiny_model, kind)
    left_out = int(sum(told(whole, "updates_left_out")))
    assert 5 < left_out < 13
    with monkeypatch.context() as patched:
        stop_at(5, patched)
        run = train(tmp_path, tiny_model, kind)
    assert run.status().state == "stopped"
    assert told(run, "loss_scale") == [TOO_LARGE / 2**n for n in range(1, 6)]
    resume(run)
    assert told(run, "loss_scale") == told(whole, "loss_scale")
    assert told(run, "learning_rate") == told(whole, "learning_rate")
    # Flash attention adds up the gradient of queries in no fixed order.
    assert losses(run) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.parametrize("tuned", [False, True])
def test_small_shares_and_large_sums_of_the_head_are_exact(tuned: bool) -> None:
    positions, width, vocab = 4096, 64, 512
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, width, generator=random).half()
    weight = torch.randn(vocab, width, generator=random).half() * 0.3
    targets = torch.randint(vocab, (positions,), generator=random)
    found = []
    for device, dtype in (("cuda", torch.float16), ("cpu", torch.float32)):
        given = hidden.to(device, dtype).requires_grad_()
        linear = torch.nn.Linear(width, vocab, bias=False).to(device, torch.float32)
        linear.weight.data.copy_(weight)
        linear.requires_grad_(tuned)
        wanted = [given, linear.weight] if tuned else [given]
        with torch.autocast("cuda", torch.float16, enabled=device == "cuda"):
            loss = summed_loss(Head(linear), given, Targets(targets.to(device)))
        found.append([g.float().cpu() for g in torch.autograd.grad(loss * 8.0, wanted)])
    for mine, theirs in zip(*found, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 2e-3
