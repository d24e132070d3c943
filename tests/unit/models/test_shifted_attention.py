"""Shifted groups against softmax over a mask that says who sees whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import RecipeError
from tunesmith.models.load import load_model
from tunesmith.models.row_attention import Rule, Segment, as_mask, one_after_another
from tunesmith.models.shifted_attention import attend_shifted, split_groups, use_shifted_attention

GROUP = 8


def sees(asking: int, asked: int, shift: int) -> bool:
    """Whether a token sees another of its row, both counted from the first."""
    return asked <= asking and (asked - shift) // GROUP == (asking - shift) // GROUP


def plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, places: list[list[int]]
) -> torch.Tensor:
    """Attend row by row with every score written out.

    Args:
        places: tokens of each row, as they lie in the sequence.
    """
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    key, value = (given.repeat_interleave(groups, dim=1) for given in (key, value))
    out = torch.zeros_like(query)
    for row in places:
        for head in range(heads):
            shift = GROUP // 2 if head >= heads // 2 else 0
            mask = torch.tensor(
                [[sees(a, b, shift) for b in range(len(row))] for a in range(len(row))]
            )
            q, k, v = (given[0, head, row] for given in (query, key, value))
            scores = (q @ k.T / query.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
            out[0, head, row] = scores.softmax(-1) @ v
    return out


def places_of(segments: list[Segment]) -> list[list[int]]:
    return [[*range(before, until), *range(start, end)] for start, end, before, until in segments]


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1), (6, 3), (3, 1)])
@pytest.mark.parametrize(
    "segments",
    [
        one_after_another([21, 3, 8, 30]),
        [(0, 11, 0, 0), (11, 29, 0, 11), (29, 32, 0, 11), (32, 41, 32, 32)],
    ],
)
def test_groups_are_those_of_the_paper(heads: tuple[int, int], segments: list[Segment]) -> None:
    torch.manual_seed(0)
    size = segments[-1][1]
    given = [torch.randn(1, count, size, 8, requires_grad=True) for count in (*heads, heads[1])]
    ours = attend_shifted(*given, segments, Rule(8**-0.5), group=GROUP)
    theirs = plain(*given, places_of(segments))
    assert torch.allclose(ours, theirs, atol=1e-5)
    upper = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, given, upper), torch.autograd.grad(theirs, given, upper),
        strict=True,
    ):  # fmt: skip
        assert torch.allclose(one, other, atol=1e-5)


def test_groups_begin_where_a_row_does() -> None:
    assert split_groups([(5, 18, 5, 5)], 8, 0) == [(5, 13, 5, 5), (13, 18, 13, 13)]
    assert split_groups([(5, 18, 5, 5)], 8, 4) == [(5, 9, 5, 5), (9, 17, 9, 9), (17, 18, 17, 17)]


def test_a_model_shifts_while_it_trains_only(tiny_model: Path) -> None:
    model: Any = load_model(tiny_model, dtype=torch.float32, device=torch.device("cpu"))
    ids = torch.arange(3, 43)[None]
    given = {
        "input_ids": ids,
        "position_ids": torch.arange(40)[None],
        "attention_mask": as_mask(one_after_another([40])),
        "use_cache": False,
    }
    with torch.no_grad():
        whole = model.eval()(input_ids=ids).logits
        use_shifted_attention(model, GROUP)
        assert torch.allclose(model(**given).logits, whole, atol=1e-5)
        shifted = model.train()(**given).logits
    assert torch.allclose(shifted[:, : GROUP // 2], whole[:, : GROUP // 2], atol=1e-5)
    assert not torch.allclose(shifted[:, GROUP:], whole[:, GROUP:], atol=1e-3)


@pytest.mark.parametrize("shape", ["mistral", "gemma3", "mamba", "bloom"])
def test_windows_and_other_layers_are_refused(tmp_path: Path, shape: str) -> None:
    folder = tiny.make_model(tmp_path / "m", shape)
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(RecipeError, match="cannot attend within shifted groups"):
        use_shifted_attention(model, GROUP)
