"""Rows laid end to end are attended to as each row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from tunesmith.models import row_attention
from tunesmith.models.row_attention import (
    CannotLieFlat,
    Rule,
    Segment,
    as_mask,
    attend_rows,
    one_after_another,
)

HEAD = 8


def states(seq: int, heads: int, shared: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Query, key and value, [1, heads, seq, head], as a model lays them out."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(1, seq, count, HEAD, generator=draw).transpose(1, 2).requires_grad_()
        for count in (heads, shared, shared)
    )


def plainly(given: tuple[torch.Tensor, ...], segments: list[Segment], rule: Rule) -> torch.Tensor:
    """The same in one product a segment, all scores written out."""
    query, key, value = given
    groups = query.shape[1] // key.shape[1]
    rows = []
    for start, end, before, until in segments:
        seen = [*range(before, until), *range(start, end)]
        q, k, v = query[:, :, start:end], key[:, :, seen], value[:, :, seen]
        scores = q @ k.repeat_interleave(groups, 1).transpose(2, 3) * rule.scale
        if rule.softcap is not None:
            scores = rule.softcap * torch.tanh(scores / rule.softcap)
        shared = until - before
        hidden = torch.ones(end - start, len(seen), dtype=torch.bool).triu(1 + shared)
        if rule.window is not None:
            hidden |= torch.ones_like(hidden).tril(shared - rule.window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        rows.append(weights @ v.repeat_interleave(groups, 1))
    return torch.cat(rows, dim=2)


RULES = {
    "causal": Rule(0.3),
    "window": Rule(0.3, window=3),
    "softcap": Rule(0.3, softcap=1.5),
    "both": Rule(0.3, window=4, softcap=1.5),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    heads=st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    sharing=st.integers(0, 63),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_rows_of_any_sizes_equal_the_scores_written_out(
    rule: Rule, sizes: list[int], heads: tuple[int, int], sharing: int, seed: int
) -> None:
    segments = one_after_another(sizes)
    for number in range(1, len(sizes)):
        if sharing >> number & 1:  # it goes on from the first part of the one before
            start, end, *_ = segments[number]
            before = segments[number - 1][0]
            segments[number] = start, end, before, before + 1 + seed % (start - before)
    given_ = states(sum(sizes), *heads, seed)
    ours, theirs = attend_rows(*given_, segments, rule), plainly(given_, segments, rule)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    upper = torch.randn_like(theirs)
    found = torch.autograd.grad(ours, given_, upper)
    for mine, expected in zip(found, torch.autograd.grad(theirs, given_, upper), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(5, 40), (450, 30), (500,)])
def test_bf16_goes_back_as_well_as_fp32_rounded(sizes: tuple[int, ...]) -> None:
    segments = one_after_another(sizes)
    exact = states(sum(sizes), 4, 2)
    half = tuple(one.detach().bfloat16().requires_grad_() for one in exact)
    upper = torch.randn(1, 4, sum(sizes), HEAD)
    found = torch.autograd.grad(
        attend_rows(*half, segments, RULES["causal"]), half, upper.bfloat16()
    )
    expected = torch.autograd.grad(attend_rows(*exact, segments, RULES["causal"]), exact, upper)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - theirs).norm() < 0.01 * theirs.norm()


def test_a_row_is_the_same_to_the_bit_whatever_lies_beside_it() -> None:
    given_ = states(30, 4, 2)
    other = tuple(
        torch.cat([given_[n][:, :, :10] * 3 + 1, given_[n][:, :, 10:]], 2) for n in (0, 1, 2)
    )
    segments, rule = one_after_another([10, 12, 8]), RULES["causal"]
    assert torch.equal(
        attend_rows(*given_, segments, rule)[:, :, 10:],
        attend_rows(*other, segments, rule)[:, :, 10:],
    )


def test_dropped_weights_and_values_of_another_size_take_the_stock_operator() -> None:
    query, key, value = states(12, 2, 2)
    wide = torch.cat([value, value], dim=3)
    rule = Rule(0.3)
    assert attend_rows(query, key, wide, one_after_another([5, 7]), rule).shape == (
        1,
        2,
        12,
        2 * HEAD,
    )
    torch.manual_seed(0)
    dropped = attend_rows(query, key, value, [(0, 12, 0, 0)], Rule(0.3, dropout=0.5))
    torch.manual_seed(0)
    expected = scaled_dot_product_attention(
        query, key, value, dropout_p=0.5, is_causal=True, scale=0.3
    )
    assert torch.equal(dropped, expected)


def test_without_edges_attention_is_what_it_was() -> None:
    given_ = states(9, 4, 4)
    module = torch.nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    found, _ = row_attention._attend_or_sdpa(module, *given_, None, scaling=0.3)
    expected = scaled_dot_product_attention(*given_, is_causal=True, scale=0.3)
    assert torch.equal(found, expected.transpose(1, 2))


@pytest.mark.parametrize("asked", [{"s_aux": torch.ones(4)}, {"position_bias": torch.ones(1)}])
def test_what_attention_is_asked_and_does_not_know_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(CannotLieFlat, match=next(iter(asked))):
        row_attention._attend_or_sdpa(
            torch.nn.Module(), *states(4, 2, 2), as_mask([(0, 4, 0, 0)]), **asked
        )
