"""On a GPU rows laid end to end are attended to as each row alone."""

from __future__ import annotations

import pytest
import torch

from tunesmith.models.row_attention import Rule, attend_rows, one_after_another

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
SIZES = [5, 128, 1, 466]
SEGMENTS = [*one_after_another(SIZES), (600, 700, 134, 300)]
"""Rows of several sizes, and an answer that goes on from a part of the last."""
SEQ = 700
RULES = {
    "causal": Rule(0.1),
    "window": Rule(0.1, window=40),
    "softcap": Rule(0.1, softcap=5.0),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("shared", [8, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_equal_those_of_the_processor(rule: Rule, shared: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    exact = [
        torch.randn(1, SEQ, heads, 64).transpose(1, 2).requires_grad_()
        for heads in (8, shared, shared)
    ]
    there = [one.detach().to("cuda", dtype).requires_grad_() for one in exact]
    expected = attend_rows(exact[0], exact[1], exact[2], SEGMENTS, rule)
    found = attend_rows(there[0], there[1], there[2], SEGMENTS, rule)
    upper = torch.randn_like(expected)
    share = 1e-4 if dtype == torch.float32 else 2e-2
    assert (found.cpu().float() - expected).norm() < share * expected.norm()
    mine = torch.autograd.grad(found, there, upper.to("cuda", dtype))
    for one, other in zip(mine, torch.autograd.grad(expected, exact, upper), strict=True):
        assert (one.cpu().float() - other).norm() < share * other.norm()
