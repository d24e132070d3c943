"""Rows are dealt out evenly, each once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import TrainingError
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.models.fingerprint import weight_sums
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import Roles
from tunesmith.training.gradients import BUCKET_BYTES, sum_gradients
from tunesmith.training.train import check_alike
from tunesmith.training.updates import deal

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@given(SIZES, st.integers(1, 9))
def test_every_row_is_dealt_once_and_nobody_has_more_than_a_row_over_the_mean(
    sizes: list[int], hands: int
) -> None:
    sizes = sorted(sizes, reverse=True)
    dealt = deal(sizes, hands)
    assert len(dealt) == hands
    assert sorted(row for rows in dealt for row in rows) == list(range(len(sizes)))
    assert all(rows == sorted(rows) for rows in dealt)
    held = [sum(sizes[row] for row in rows) for rows in dealt]
    assert max(held) <= sum(sizes) // hands + sizes[0]
    assert dealt[0]  # the first process always has the longest row


class Doubling(Ranks):
    """As if another process had the same of everything."""

    def total(self, given: torch.Tensor) -> torch.Tensor:
        return given.mul_(2)


def test_gradients_are_summed_in_place_and_unused_weights_keep_none() -> None:
    shapes = [(3,), (2, 2), (BUCKET_BYTES // 4 + 1,), (5,)]
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    half = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    unused = torch.nn.Parameter(torch.zeros(3))
    frozen = torch.nn.Parameter(torch.zeros(3), requires_grad=False)
    for weight in (*weights, half):
        weight.grad = torch.ones_like(weight)
    weights[1].grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()
    sum_gradients([*weights, unused, half, frozen], Doubling())
    for weight in (weights[0], *weights[2:], half):
        assert weight.grad is not None
        assert bool((weight.grad == 2).all())
    assert weights[1].grad is not None
    assert weights[1].grad.tolist() == [[2, 6], [4, 8]]
    assert unused.grad is None
    assert frozen.grad is None


class Neighbour(Ranks):
    """As if the first process had something else in one place."""

    def first(self, given: torch.Tensor) -> torch.Tensor:
        given[0] += 1
        return given


def test_models_that_differ_in_a_bit_are_not_trained_together(tiny_model: Path) -> None:
    reader = find_reader(str(tiny_model), None)
    roles = Roles(torch.nn.Linear(2, 2), reader, "fp32", torch.device("cpu"))
    check_alike(roles, ALONE)
    with pytest.raises(TrainingError, match="process 1 has loaded other weights"):
        check_alike(roles, Neighbour(1, 2))


def test_any_bit_of_a_weight_changes_its_sum() -> None:
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    before = weight_sums(model)
    model.weight.data.view(torch.int16)[1, 1] += 1
    assert (weight_sums(model) - before).tolist() == [1, 0]


def test_a_process_alone_asks_nobody() -> None:
    given = torch.tensor([1.0, 2.0])
    assert ALONE.total(given) is given
    assert ALONE.first(given) is given
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.totals({"loss": 0.5}) == {"loss": 0.5}


@dataclass(frozen=True)
class Together(Ranks):
    """Processes that are threads of one."""

    table: list[Any] = field(default_factory=list)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    def total(self, given: torch.Tensor) -> torch.Tensor:
        self.table[self.rank] = given.clone()
        self.barrier.wait(10)
        summed = sum(self.table)
        self.barrier.wait(10)
        return given.copy_(summed)


def test_processes_may_have_measured_other_things_in_another_order() -> None:
    shared: tuple[list[Any], threading.Barrier] = ([None, None], threading.Barrier(2))
    figures = ({"loss": 1.0, "kl": 2.0, ("reward", "total"): 4.0}, {("reward", "total"): 0.5})
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(Together(rank, 2, *shared).totals, told)
            for rank, told in enumerate(figures)
        ]
        first, second = (each.result() for each in asked)
    assert first == {"loss": 1.0, "kl": 2.0, ("reward", "total"): 4.5}
    assert second == {("reward", "total"): 4.5}
