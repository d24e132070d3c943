"""On a GPU adapters begin by rows and by what few bits leave out, and go on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.gpu.test_training import losses, stop_at
from tunesmith.export.export import export
from tunesmith.runs.run import Run
from tunesmith.training.train import resume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "eva": ({"init": "eva", "eva_rows": 8}, None),
    "loftq nf4": ({"init": "loftq", "loftq_rounds": 2}, {"kind": "nf4"}),
    "loftq hqq": ({"init": "loftq", "loftq_rounds": 2}, {"kind": "hqq", "bits": 3}),
}


def train(folder: Path, model: Path, kind: str) -> Run:
    tuning, quantize = KINDS[kind]
    return tiny.train_run(
        folder,
        model,
        model={"name": str(model), "quantize": quantize},
        tuning={"kind": "lora", "rank": 4, **tuning},
        compute={"device": "cuda", "precision": "bf16", "threads": 1},
        optimizer={"learning_rate": 1e-2},
        run={"steps": 8, "save_every_steps": 4},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_as_it_began_and_is_exported(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = train(tmp_path, tiny_model, kind)
    with monkeypatch.context() as patched:
        stop_at(4, patched)
        run = train(tmp_path, tiny_model, kind)
    resume(run)
    assert losses(run) == pytest.approx(losses(whole), rel=2e-3)
    assert losses(run)[-1] < losses(run)[0]
    exported = export(run.path, tmp_path / "out", precision="fp32")
    if exported.from_quantized is not None:
        assert exported.from_quantized.max_logit_difference < 1e-2
