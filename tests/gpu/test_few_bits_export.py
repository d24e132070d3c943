"""On a GPU an export in few bits says what it says on a CPU, to us and to transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.export.export import export
from tunesmith.export.order import Form
from tunesmith.models.load import load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
IDS = torch.tensor([[1, 40, 50, 60, 2, 1, 70]])


def logits(model: Any, device: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS.to(device)).logits.float().cpu()
    return found


@pytest.mark.parametrize("kind", ["gptq-4", "gptq-3", "nf4", "int8"])
def test_it_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("TUNESMITH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    base = tiny.make_model(tmp_path / "base", hidden_size=64, intermediate_size=128)
    run = tiny.train_run(tmp_path, base)
    folder = export(run.path, tmp_path / kind, form=Form("safetensors", kind)).folder
    said = [
        logits(load_model(folder, dtype=torch.float32, device=torch.device(device)), device)
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(said[0], said[1], rtol=1e-3, atol=1e-3)
    if kind.startswith("gptq"):
        return
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map={"": "cuda"}
    )
    assert (logits(theirs, "cuda") - said[1]).abs().max() < 0.02 * said[1].abs().max()
