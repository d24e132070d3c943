"""GPTQ keeps a layer's answers: checked against the paper's recursion and against rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests import packed
from tunesmith.models.quantize import gptq
from tunesmith.models.quantize.gptq import GPTQ, Bits
from tunesmith.models.quantize.grouped import Grouped, Groups
from tunesmith.models.quantize.packed import formats
from tunesmith.models.quantize.packed.gptq import pack
from tunesmith.models.quantize.packed.words import pack_words, unpack_words

OUT, WIDTH, GROUP = 32, 160, 32
BITS: tuple[Bits, ...] = (2, 3, 4, 8)


def make_layer(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and inputs that depend on each other and differ in size, [tokens, in]."""
    draw = torch.Generator().manual_seed(seed)
    causes = torch.randn(400, 40, generator=draw) @ torch.randn(40, WIDTH, generator=draw)
    inputs = causes + 0.3 * torch.randn(400, WIDTH, generator=draw)
    sizes = torch.rand(WIDTH, generator=draw) * 3 + 0.1
    return torch.randn(OUT, WIDTH, generator=draw) * 0.1, inputs * sizes


def whole(groups: Groups) -> torch.Tensor:
    scale = groups.scale.float().view(OUT, -1).repeat_interleave(groups.size, 1)
    zero = groups.zero.float().view(OUT, -1).repeat_interleave(groups.size, 1)
    return (groups.codes.float() - zero) * scale


def to_nearest(weight: torch.Tensor, groups: Groups) -> torch.Tensor:
    """Round each weight by itself, to the same numbers."""
    scale = groups.scale.float().view(OUT, -1).repeat_interleave(groups.size, 1)
    zero = groups.zero.float().view(OUT, -1).repeat_interleave(groups.size, 1)
    codes = (weight / scale + zero).round().clamp(0, 2**groups.bits - 1)
    return (codes - zero) * scale


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_those_of_the_paper_s_recursion(bits: Bits) -> None:
    """The slow form: after each column the inverse of what is left is computed anew."""
    weight, inputs = make_layer()
    squares = inputs.T @ inputs
    found = gptq.quantize(weight, squares, GPTQ(bits, GROUP))
    scale = found.scale.numpy().astype(np.float64).reshape(OUT, -1).repeat(GROUP, 1)
    zero = found.zero.numpy().astype(np.float64).reshape(OUT, -1).repeat(GROUP, 1)
    hessian = squares.numpy().astype(np.float64)
    hessian += np.eye(WIDTH) * 0.01 * hessian.diagonal().mean()
    left, meant = list(np.argsort(-hessian.diagonal())), weight.numpy().astype(np.float64)
    codes = np.zeros_like(meant)
    while left:
        inverse, at = np.linalg.inv(hessian[np.ix_(left, left)]), left[0]
        codes[:, at] = np.clip(np.rint(meant[:, at] / scale[:, at] + zero[:, at]), 0, 2**bits - 1)
        error = meant[:, at] - (codes[:, at] - zero[:, at]) * scale[:, at]
        meant[:, left] -= np.outer(error / inverse[0, 0], inverse[0])
        left = left[1:]
    assert (found.codes.numpy() == codes).mean() > 0.999  # fp32 may round a half otherwise


@pytest.mark.parametrize("bits", BITS)
def test_answers_stay_nearer_than_by_rounding_to_nearest(bits: Bits) -> None:
    weight, inputs = make_layer(1)
    fresh = inputs[200:]
    found = gptq.quantize(weight, inputs[:200].T @ inputs[:200], GPTQ(bits, GROUP))
    wanted = fresh @ weight.T
    errors = [
        float((fresh @ made.T - wanted).norm() / wanted.norm())
        for made in (whole(found), to_nearest(weight, found))
    ]
    assert errors[0] < 0.6 * errors[1]


def test_inputs_that_never_come_are_rounded_to_nearest() -> None:
    weight, inputs = make_layer(2)
    inputs[:, ::7] = 0
    found = gptq.quantize(weight, inputs.T @ inputs, GPTQ(4, GROUP))
    assert torch.allclose(whole(found)[:, ::7], to_nearest(weight, found)[:, ::7])


def test_one_token_is_enough_and_none_means_rounding() -> None:
    weight, inputs = make_layer(3)
    one = gptq.quantize(weight, inputs[:1].T @ inputs[:1], GPTQ(4, GROUP))
    none = gptq.quantize(weight, torch.zeros(WIDTH, WIDTH), GPTQ(4, GROUP))
    assert torch.isfinite(whole(one)).all()
    assert torch.allclose(whole(none), to_nearest(weight, none))


def test_eight_bits_are_near_and_zeros_of_fast_kernels_lie_in_the_middle() -> None:
    weight, inputs = make_layer(4)
    for bits in BITS:
        found = gptq.quantize(weight, inputs.T @ inputs, GPTQ(bits, GROUP))
        assert bool((found.zero == 2 ** (bits - 1)).all()) is (bits >= 4)
        assert int(found.zero.min()) >= 1
    assert float((whole(found) - weight).norm() / weight.norm()) < 0.02


@pytest.mark.parametrize("bits", BITS)
def test_words_are_those_of_one_long_number(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (7, 96))
    words = pack_words(codes.t(), bits)
    assert torch.equal(words, packed.words(codes, bits).t())
    assert torch.equal(unpack_words(words, bits).t(), codes.to(torch.uint8))


@pytest.mark.parametrize("bits", BITS)
def test_a_packed_layer_is_read_as_it_was_meant(bits: Bits) -> None:
    weight, inputs = make_layer(5)
    found = gptq.quantize(weight, inputs.T @ inputs, GPTQ(bits, GROUP))
    room = Grouped(WIDTH, OUT, bias=False, source_cls=torch.nn.Linear)
    unpack = formats()["gptq"].unpack
    assert unpack is not None
    layer: Any = unpack(room, pack(found), {"checkpoint_format": "gptq"})
    assert torch.equal(layer.whole(torch.float32), whole(found))
