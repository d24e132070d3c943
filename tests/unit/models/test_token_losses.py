"""The loss of every token is that of all logits at once, and so is its gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunesmith.models import head as heads
from tunesmith.models.head import Head
from tunesmith.models.token_losses import token_losses

HEADS = {
    "plain": {},
    "softcap": {"softcap": 2.0},
    "scaled": {"factor": 0.3, "divisor": 2.0},
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_BYTES", 4 * 50 * 3)
    monkeypatch.setattr(heads, "CHUNK_POSITIONS", 3)


@pytest.mark.parametrize("learns", [False, True], ids=["frozen", "learning"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_any_weights_of_positions_give_the_gradient_of_all_logits(
    options: dict[str, float], bias: bool, learns: bool
) -> None:
    torch.manual_seed(0)
    ours = torch.nn.Linear(8, 50, bias=bias).requires_grad_(learns)
    theirs = copy.deepcopy(ours)
    hidden = torch.randn(10, 8, requires_grad=True)
    other = hidden.detach().clone().requires_grad_()
    targets, weights = torch.randint(0, 50, (10,)), torch.randn(10)

    found = token_losses(Head(ours, **options), hidden, targets)
    expected = cross_entropy(Head(theirs, **options).logits(other), targets, reduction="none")
    (found * weights).sum().backward()
    (expected * weights).sum().backward()

    torch.testing.assert_close(found, expected)
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, other.grad)
    for mine, one in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None) == (not learns)
        if learns:
            torch.testing.assert_close(mine.grad, one.grad)


def test_no_position_has_no_loss_and_a_gradient_of_nothing() -> None:
    hidden = torch.randn(0, 8, requires_grad=True)
    found = token_losses(Head(torch.nn.Linear(8, 50)), hidden, torch.zeros(0, dtype=torch.long))
    found.sum().backward()
    assert found.shape == (0,)
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, 8)


def test_nothing_is_kept_where_nothing_learns() -> None:
    head = Head(torch.nn.Linear(8, 50).requires_grad_(False))
    found = token_losses(head, torch.randn(5, 8), torch.zeros(5, dtype=torch.long))
    assert not found.requires_grad
