"""On a GPU a base in fewer bits learns, goes on after a stop, and multiplies what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.gpu.test_training import COMPUTE, losses, stop_at
from tunesmith.inference.load import open_sessions
from tunesmith.models.load import load_model
from tunesmith.recipe.quantize import FP4, NF4, Int8, Quantize
from tunesmith.training.train import resume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
KINDS = [NF4(), NF4(double=False), FP4(), Int8()]


@pytest.fixture(autouse=True)
def needed() -> None:
    pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "wide"
    return tiny.make_model(folder, hidden_size=256, intermediate_size=512)


@pytest.mark.parametrize("quantize", KINDS, ids=str)
def test_products_are_those_of_the_weights_put_together(
    wide_model: Path, quantize: Quantize
) -> None:
    from tunesmith.models.quantize.product import Whole

    device = torch.device("cuda")
    exact: Any = load_model(wide_model, dtype=torch.float32, device=device)
    model: Any = load_model(wide_model, dtype=torch.float32, device=device, quantize=quantize)
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Whole)]
    assert len(found) == 7 * model.config.num_hidden_layers
    for name, layer in found:
        weight, given = layer.whole(torch.float32), exact.get_submodule(name).weight.detach()
        assert 0.001 < float((weight - given).norm() / given.norm()) < 0.15
        ours = torch.randn(3, layer.in_features, device=device, requires_grad=True)
        theirs = ours.detach().clone().requires_grad_()
        one, other = layer(ours), torch.nn.functional.linear(theirs, weight, layer.bias)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        for x, y in ((ours, one), (theirs, other)):
            y.square().sum().backward()
            assert x.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_it_learns_goes_on_and_answers(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as patched:
        stop_at(15, patched)
        run = tiny.train_run(
            tmp_path,
            wide_model,
            model={"name": str(wide_model), "quantize": {"kind": kind}},
            compute=COMPUTE,
            optimizer={"learning_rate": 1e-2},
            run={"steps": 30, "save_every_steps": 15},
        )
    assert run.status().state == "stopped"
    resume(run)
    assert run.status().state == "done"
    assert losses(run)[-1] < 0.95 * losses(run)[0]
    (tuned,) = open_sessions(
        run.name, beside=None, system="", sampling={"max_tokens": 8, "temperature": 0.0}
    )
    assert isinstance("".join(tuned.ask("question 3")), str)
