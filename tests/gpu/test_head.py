"""On a GPU the loss in chunks is the loss of all logits at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tunesmith.models.head import Head, Targets, summed_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"
POSITIONS, HIDDEN, VOCAB = 1200, 64, 50_000


@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_equal_those_of_all_logits(
    dtype: torch.dtype, tuned: bool, softcap: float | None
) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(HIDDEN, VOCAB, bias=False, device=DEVICE, dtype=dtype)
    linear.requires_grad_(tuned)
    head = Head(linear, softcap=softcap)
    hidden = torch.randn(POSITIONS, HIDDEN, device=DEVICE, dtype=dtype).requires_grad_()
    targets = torch.randint(VOCAB, (POSITIONS,), device=DEVICE)
    wanted = [hidden, *linear.parameters()] if tuned else [hidden]

    whole = cross_entropy(head.logits(hidden), targets, reduction="sum") * 0.5
    expected = torch.autograd.grad(whole, wanted)
    chunked = summed_loss(head, hidden, Targets(targets)) * 0.5
    found = torch.autograd.grad(chunked, wanted)

    share = 1e-4 if dtype == torch.float32 else 2e-2
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=0)
    for mine, theirs in zip(found, expected, strict=True):
        apart = torch.linalg.vector_norm((mine - theirs).float())
        assert apart <= share * torch.linalg.vector_norm(theirs.float())


def test_memory_does_not_grow_with_the_vocabulary() -> None:
    linear = torch.nn.Linear(HIDDEN, VOCAB, bias=False, device=DEVICE, dtype=torch.bfloat16)
    linear.requires_grad_(False)
    hidden = torch.randn(8 * POSITIONS, HIDDEN, device=DEVICE, dtype=torch.bfloat16)
    targets = torch.randint(VOCAB, (8 * POSITIONS,), device=DEVICE)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    summed_loss(Head(linear), hidden.requires_grad_(), Targets(targets)).backward()
    assert torch.cuda.max_memory_allocated() - before < 8 * POSITIONS * VOCAB
