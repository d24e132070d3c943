"""LoftQ begins with what few bits leave out, found by quantizing and completing in turns."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tunesmith.models.load import load_model
from tunesmith.models.loftq import find_start, nearest
from tunesmith.models.quantize.anew import hold
from tunesmith.models.quantize.product import Whole
from tunesmith.recipe.quantize import HQQ, NF4, Quantize

RANK, BLOCK = 8, 64
CPU = torch.device("cpu")
BELOW = -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500
ABOVE = 0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0
LEVELS = np.array([*BELOW, 0.0, *ABOVE])
"""The sixteen numbers of NF4 (arXiv:2305.14314, appendix E)."""


def round_to_nf4(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    blocks = weight.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    nearest_level = np.abs(blocks[:, :, None] / scale[:, :, None] - LEVELS).argmin(axis=2)
    found: np.ndarray[Any, Any] = (LEVELS[nearest_level] * scale).reshape(weight.shape)
    return found


def by_hand(weight: np.ndarray[Any, Any], rounds: int) -> tuple[Any, Any]:
    """Algorithm 1 of the paper."""
    adds = np.zeros_like(weight)
    for _ in range(rounds):
        kept = round_to_nf4(weight - adds)
        left, lengths, right = np.linalg.svd(weight - kept)
        adds = (left[:, :RANK] * lengths[:RANK]) @ right[:RANK]
    return kept, adds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(
        tmp_path_factory.mktemp("m") / "wide", hidden_size=128, intermediate_size=192
    )


def layers_of(folder: Path, quantize: Quantize | None) -> dict[str, Any]:
    model = load_model(folder, dtype=torch.float32, device=CPU, quantize=quantize)
    kind = Whole if quantize is not None else torch.nn.Linear
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kind)}


def error(weight: torch.Tensor, kept: torch.Tensor, adds: torch.Tensor) -> float:
    return float((weight - kept - adds).norm() / weight.norm())


@pytest.mark.parametrize("rounds", [1, 3])
def test_it_is_what_the_papers_algorithm_gives_by_hand(folder: Path, rounds: int) -> None:
    quantize = NF4(double=False)
    name = "model.layers.0.self_attn.q_proj"
    weight = layers_of(folder, None)[name].weight.detach()
    layer = layers_of(folder, quantize)[name]
    start = find_start(adapted(layer), weight, quantize, rounds)
    kept, adds = by_hand(weight.double().numpy(), rounds)
    ours = layer.whole(torch.float32).double().numpy()
    assert np.linalg.norm(ours - kept) / np.linalg.norm(kept) < 1e-3
    assert np.linalg.norm((start.adds[0] @ start.adds[1]).numpy() - adds) < 2e-2 * np.linalg.norm(
        adds
    )
    assert error(weight, torch.from_numpy(kept), torch.from_numpy(adds)) == pytest.approx(
        error(weight, layer.whole(torch.float32), start.adds[0] @ start.adds[1]), rel=1e-3
    )


def adapted(layer: Any) -> Any:
    return SimpleNamespace(base_layer=layer, r={"default": RANK}, scaling={"default": 2.0})


@pytest.mark.parametrize("quantize", [NF4(), NF4(double=False), HQQ(bits=4), HQQ(bits=2)], ids=str)
def test_every_round_leaves_less_out(folder: Path, quantize: Quantize) -> None:
    name = "model.layers.1.mlp.up_proj"
    weight = layers_of(folder, None)[name].weight.detach()
    layer = layers_of(folder, quantize)[name]
    plain = error(weight, layer.whole(torch.float32), torch.zeros(()))
    errors = [plain]
    for rounds in (1, 2, 5):
        start = find_start(adapted(layer), weight, quantize, rounds)
        errors.append(error(weight, layer.whole(torch.float32), start.adds[0] @ start.adds[1]))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.88 * plain


@pytest.mark.parametrize("quantize", [NF4(), HQQ(bits=3)], ids=str)
def test_a_layer_holds_another_weight_as_if_it_had_been_read(
    folder: Path, quantize: Quantize
) -> None:
    whole, read, other = (layers_of(folder, each) for each in (None, quantize, quantize))
    for name, layer in read.items():
        weight = whole[name].weight.detach()
        hold(other[name], weight * 3 + 1, quantize)
        assert not torch.equal(other[name].whole(torch.float32), layer.whole(torch.float32))
        hold(other[name], weight, quantize)
        assert torch.equal(other[name].whole(torch.float32), layer.whole(torch.float32))


def test_the_nearest_product_is_found_in_large_matrices_too() -> None:
    random = torch.Generator().manual_seed(0)
    left, right = (torch.randn(600, 40, generator=random) for _ in range(2))
    weight = (left * 0.7 ** torch.arange(40)) @ right.t()
    b, a = nearest(weight, RANK)
    exact = torch.linalg.svdvals(weight.double())
    assert float((weight - b @ a).norm()) == pytest.approx(float(exact[RANK:].norm()), rel=1e-3)
    assert b.norm(dim=0).tolist() == pytest.approx(a.norm(dim=1).tolist(), rel=1e-3)


@pytest.mark.parametrize("shape", [(20, 48), (48, 20)])
def test_ranks_that_a_matrix_has_not_are_zeros(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    b, a = nearest(weight, 32)
    assert (b.shape, a.shape) == ((shape[0], 32), (32, shape[1]))
    torch.testing.assert_close(b @ a, weight)
    wide = torch.randn(520, 530, generator=torch.Generator().manual_seed(0))
    assert nearest(wide, 510)[0].shape == (520, 510)  # more probes than there are directions
