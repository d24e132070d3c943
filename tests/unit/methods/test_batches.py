"""Rows end to end, or padded; an update in batches."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.methods.batches import (
    count_tokens,
    join,
    lay_end_to_end,
    pad,
    split_update,
)
from tunesmith.methods.method import Joining


def test_rows_lie_end_to_end_and_the_first_token_of_each_is_never_learned() -> None:
    batch = lay_end_to_end(
        [
            {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]},
            {"input_ids": [5], "labels": [5]},
            {"input_ids": [1, 2], "labels": [1, 2]},
        ]
    )
    assert batch["input_ids"].tolist() == [[7, 8, 9, 5, 1, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["predict_at"].tolist() == [0, 1, 4]
    assert batch["targets"].tolist() == [8, 9, 2]
    assert batch["segments"] == [(0, 3, 0, 0), (3, 4, 3, 3), (4, 6, 4, 4)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_coarse_sizes_are_few_and_cost_little(lengths: list[int]) -> None:
    rows = [{"input_ids": [5] * length, "labels": [5] * length} for length in lengths]
    plain, coarse = (join(rows, Joining(flat=True, coarse=coarse)) for coarse in (False, True))
    tokens, filled = plain["input_ids"].numel(), coarse["input_ids"].numel()
    assert tokens <= filled <= max(tokens * 17 / 16, tokens + 7)
    assert filled % 8 == 0
    assert filled >> max(filled.bit_length() - 5, 0) << max(filled.bit_length() - 5, 0) == filled
    assert coarse["input_ids"][:, :tokens].equal(plain["input_ids"])
    assert coarse["targets"].equal(plain["targets"])
    assert coarse["predict_at"].equal(plain["predict_at"])
    assert coarse["segments"][: len(lengths)] == plain["segments"]
    assert coarse["position_ids"].max() < max(lengths)


def test_padding_stands_on_the_right_and_is_neither_seen_nor_learned() -> None:
    long, short = (
        {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]},
        {"input_ids": [5], "labels": [5]},
    )
    batch = pad([long, short])
    assert batch["input_ids"].tolist() == [[7, 8, 9, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert (batch["predict_at"].tolist(), batch["targets"].tolist()) == ([0, 1], [8, 9])
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}


PAIR = {"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, -100, 3, 4, 5, 6], "answers": [2, 4]}


def test_two_answers_share_their_question() -> None:
    plain = {"input_ids": [9] * 3, "labels": [-100, 9, -100], "answers": [1, 2]}
    batch = lay_end_to_end([PAIR, plain])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 0, 1, 1]]
    assert batch["segments"] == [(0, 4, 0, 0), (4, 6, 0, 2), (6, 8, 6, 6), (8, 9, 6, 7)]
    assert batch["predict_at"].tolist() == [1, 2, 1, 4, 6]
    assert batch["targets"].tolist() == [3, 4, 5, 6, 9]
    assert batch["owner"].tolist() == [0, 0, 1, 1, 2]


def test_two_answers_to_nothing_begin_unlearned() -> None:
    batch = lay_end_to_end([{"input_ids": [1, 2, 3], "labels": [1, 2, 3], "answers": [0, 2]}])
    assert (batch["predict_at"].tolist(), batch["targets"].tolist()) == ([0], [2])


def test_two_answers_are_two_padded_rows() -> None:
    batch = pad([PAIR])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 0, 0, 0, 0], [1, 2, 5, 6, 0, 0, 0, 0]]
    assert batch["predict_at"].tolist() == [1, 2, 9, 10]
    assert batch["targets"].tolist() == [3, 4, 5, 6]
    assert batch["owner"].tolist() == [0, 0, 1, 1]
    assert [count_tokens(PAIR, Joining(flat=flat)) for flat in (True, False)] == [6, 8]


@pytest.mark.parametrize(("longest", "width"), [(1, 8), (8, 8), (9, 16), (24, 24)])
def test_batches_are_as_wide_as_the_longest_row_in_steps_of_eight(longest: int, width: int) -> None:
    ids = list(range(longest))
    rows = [{"input_ids": ids, "labels": ids}]
    assert join(rows, Joining(flat=False))["input_ids"].shape == (1, width)
    assert join(rows, Joining(flat=True))["input_ids"].shape == (1, longest)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 200), st.booleans())
def test_an_update_is_split_into_as_few_and_even_batches_as_can_be(
    lengths: list[int], tokens: int, flat: bool
) -> None:
    def size(part: list[int]) -> int:
        return sum(part) if flat else max(part) * len(part)

    lengths.sort(reverse=True)
    parts = [lengths[part] for part in split_update(lengths, tokens=tokens, flat=flat)]
    assert [length for part in parts for length in part] == lengths
    assert all(len(part) == 1 or size(part) <= tokens for part in parts)
    for edges in combinations(range(1, len(lengths)), len(parts) - 1):
        others = [lengths[start:end] for start, end in pairwise([0, *edges, len(lengths)])]
        assert max(map(size, others)) >= min(max(map(size, parts)), max(tokens, 1))
    if len(parts) > 1:
        for edges in combinations(range(1, len(lengths)), len(parts) - 2):
            fewer = [lengths[start:end] for start, end in pairwise([0, *edges, len(lengths)])]
            assert any(len(part) > 1 and size(part) > tokens for part in fewer)
