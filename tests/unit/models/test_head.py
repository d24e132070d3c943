"""The loss in chunks is the loss of all logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunesmith.models import head as module
from tunesmith.models.head import Head, Targets, summed_loss
from tunesmith.models.token_losses import token_losses

POSITIONS, HIDDEN, VOCAB = 37, 16, 50
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "softcap": {"softcap": 2.0},
    "factor": {"factor": 0.25},
    "both": {"softcap": 2.0, "factor": 3.0},
}


def draw(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(POSITIONS, HIDDEN, generator=random).requires_grad_()
    return hidden, torch.randint(VOCAB, (POSITIONS,), generator=random)


@pytest.fixture(autouse=True, params=[1, 7, POSITIONS, 1000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute so many positions at once."""
    monkeypatch.setattr(module, "CHUNK_POSITIONS", request.param)
    monkeypatch.setattr(module, "CHUNK_BYTES", 0)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_loss_and_gradients_equal_those_of_all_logits(
    options: dict[str, Any], bias: bool, tuned: bool
) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(HIDDEN, VOCAB, bias=bias).requires_grad_(tuned)
    head = Head(linear, **options)
    hidden, targets = draw()
    wanted = [hidden, *linear.parameters()] if tuned else [hidden]
    whole = cross_entropy(head.logits(hidden), targets, reduction="sum") * 0.5
    expected = torch.autograd.grad(whole, wanted)
    chunked = summed_loss(head, hidden, Targets(targets)) * 0.5
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    for mine, theirs in zip(torch.autograd.grad(chunked, wanted), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("weighted", "smoothing"), [(True, 0.0), (False, 0.1), (True, 0.3)])
def test_positions_may_count_differently_and_targets_be_smoothed(
    options: dict[str, Any], tuned: bool, weighted: bool, smoothing: float
) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(HIDDEN, VOCAB, bias=False).requires_grad_(tuned)
    head = Head(linear, **options)
    hidden, targets = draw()
    weights = torch.rand(POSITIONS) if weighted else None
    wanted = [hidden, *linear.parameters()] if tuned else [hidden]
    alone = cross_entropy(head.logits(hidden), targets, reduction="none", label_smoothing=smoothing)
    whole = (alone if weights is None else alone * weights).sum()
    expected = torch.autograd.grad(whole, wanted)
    chunked = summed_loss(head, hidden, Targets(targets, weights, smoothing))
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    for mine, theirs in zip(torch.autograd.grad(chunked, wanted), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_measured_loss_needs_no_gradient() -> None:
    linear = torch.nn.Linear(HIDDEN, VOCAB, bias=False)
    hidden, targets = draw()
    with torch.no_grad():
        for head in (Head(linear), Head(linear, softcap=2.0)):
            expected = cross_entropy(head.logits(hidden), targets, reduction="sum")
            torch.testing.assert_close(summed_loss(head, hidden, Targets(targets)), expected)


@pytest.mark.parametrize(
    "head",
    [
        Head(torch.nn.Linear(HIDDEN, VOCAB, bias=False)),
        Head(torch.nn.Linear(HIDDEN, VOCAB), softcap=1.0),
    ],
)
def test_no_position_is_no_loss(head: Head) -> None:
    hidden, targets = draw()
    total = summed_loss(head, hidden[:0], targets[:0])
    total.backward()
    assert total.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


@pytest.mark.parametrize("tuned", [False, True])
def test_under_bf16_products_are_bf16_and_the_sum_is_not(tuned: bool) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(HIDDEN, VOCAB, bias=False).requires_grad_(tuned)
    hidden, targets = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = summed_loss(Head(linear), hidden, Targets(targets))
        expected = cross_entropy(linear(hidden).float(), targets, reduction="sum")
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
    total.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
    assert (linear.weight.grad is not None) is tuned


@pytest.mark.parametrize(
    ("softcap", "tuned"), [(None, False), (None, True), (30.0, False)], ids=str
)
@pytest.mark.parametrize("each", [False, True])
def test_small_shares_do_not_vanish_in_fp16(each: bool, softcap: float | None, tuned: bool) -> None:
    """Each other token has a share of 1e-8, which fp16 does not hold; together they say a lot."""
    random = torch.Generator().manual_seed(0)
    weight = torch.full((2000, HIDDEN), -0.3) + 0.01 * torch.randn(2000, HIDDEN, generator=random)
    weight[0] = 0.85
    targets = torch.zeros(3, dtype=torch.long)
    half = torch.ones(3, HIDDEN).half().requires_grad_()
    linear = torch.nn.Linear(HIDDEN, 2000, bias=False).requires_grad_(tuned)
    linear.weight.data = weight.clone()
    head = Head(linear, softcap=softcap)
    with torch.autocast("cpu", torch.float16):
        loss = (
            token_losses(head, half, targets).sum()
            if each
            else summed_loss(head, half, Targets(targets))
        )
    exact = torch.ones(3, HIDDEN).double().requires_grad_()
    logits = exact @ weight.double().t()
    logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
    wanted = cross_entropy(logits, targets, reduction="sum")
    (mine,) = torch.autograd.grad(loss * 65536.0, half)
    (theirs,) = torch.autograd.grad(wanted * 65536.0, exact)
    # fp32 itself is off by 0.05 here, and fp16 unscaled by 0.27
    assert float((mine - theirs).norm() / theirs.norm()) < 0.08
