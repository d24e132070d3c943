"""Every method that learns from pairs: losses by hand, and the same gradient in any batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.unit.methods.test_dpo import SIZES, check_same, gradients, pairs
from tunesmith.methods import build_method
from tunesmith.methods.batches import count_tokens, split_update
from tunesmith.methods.cpo import cpo_loss
from tunesmith.methods.dpo import dpo_loss
from tunesmith.methods.learned import answer_lengths
from tunesmith.methods.method import Joining
from tunesmith.methods.orpo import log_odds, odds_ratio_loss
from tunesmith.methods.pairs import say
from tunesmith.methods.simpo import simpo_loss
from tunesmith.models.load import load_model
from tunesmith.recipe.method import CPO, DPO, ORPO, Preference, SimPO

METHODS: dict[str, Preference] = {
    "dpo": DPO(),
    "hinge": DPO(loss="hinge"),
    "ipo": DPO(loss="ipo"),
    "robust": DPO(loss="robust", label_smoothing=0.2),
    "cautious": DPO(label_smoothing=0.2),
    "a token, with sft": DPO(length_normalize=True, sft_weight=0.5),
    "no reference": DPO(reference="none"),
    "orpo": ORPO(),
    "simpo": SimPO(),
    "cpo": CPO(label_smoothing=0.1),
}
FLAT = Joining(flat=True)
ODDS = torch.tensor([[0.3, 0.1], [-1.0, 1.0]], dtype=torch.float64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny.make_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu")).eval()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_losses_of_dpo_by_hand() -> None:
    def losses(**options: Any) -> list[float]:
        return dpo_loss(ODDS, beta=0.5, **options).tolist()

    right, wrong = [softplus(-0.1), softplus(1.0)], [softplus(0.1), softplus(-1.0)]
    assert losses(loss="sigmoid") == pytest.approx(right)
    assert losses(loss="hinge") == pytest.approx([0.9, 2.0])
    assert losses(loss="ipo") == pytest.approx([0.8**2, 3.0**2])
    cautious = [0.9 * r + 0.1 * w for r, w in zip(right, wrong, strict=True)]
    assert losses(loss="sigmoid", smoothing=0.1) == pytest.approx(cautious)
    robust = [(0.9 * r - 0.1 * w) / 0.8 for r, w in zip(right, wrong, strict=True)]
    assert losses(loss="robust", smoothing=0.1) == pytest.approx(robust)


def test_robust_is_right_on_average_where_a_share_of_the_labels_is_wrong() -> None:
    turned = ODDS.flip(1)
    smoothed = [dpo_loss(o, loss="robust", beta=0.5, smoothing=0.3) for o in (ODDS, turned)]
    plain = dpo_loss(ODDS, loss="sigmoid", beta=0.5)
    torch.testing.assert_close(0.7 * smoothed[0] + 0.3 * smoothed[1], plain)


def test_the_losses_without_a_reference_by_hand() -> None:
    rewards = ODDS
    assert simpo_loss(rewards, gamma=0.5).tolist() == pytest.approx([softplus(0.3), softplus(2.5)])
    assert cpo_loss(rewards).tolist() == pytest.approx([softplus(-0.2), softplus(2.0)])
    cautious = [0.9 * softplus(-0.2) + 0.1 * softplus(0.2), 0.9 * softplus(2) + 0.1 * softplus(-2)]
    assert cpo_loss(rewards, smoothing=0.1).tolist() == pytest.approx(cautious)
    means = torch.tensor([[0.8, 0.5]], dtype=torch.float64).log()
    odds = log_odds(means)
    assert odds.exp().tolist() == [pytest.approx([4.0, 1.0])]
    assert odds_ratio_loss(odds, beta=0.5).tolist() == pytest.approx([0.5 * math.log(1.25)])


def test_certain_answers_have_odds_that_are_numbers() -> None:
    means = torch.tensor([[0.0, -1e-20], [-700.0, -0.5]], dtype=torch.float64, requires_grad=True)
    loss = odds_ratio_loss(log_odds(means), beta=1.0).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert means.grad is not None
    assert torch.isfinite(means.grad).all()


@pytest.mark.parametrize("flat", [True, False])
def test_lengths_are_those_of_each_answer(model: Any, flat: bool) -> None:
    batch = build_method(DPO()).collate(pairs(), Joining(flat=flat))
    expected = [[chosen, rejected] for _, chosen, rejected in SIZES]
    expected[3][0] -= 1  # nothing predicts the first token of a text without a question
    expected[3][1] -= 1
    assert answer_lengths(batch).tolist() == expected
    said = say(model, batch)
    torch.testing.assert_close(said.means * said.lengths, said.logps)


@pytest.mark.parametrize("name", METHODS)
@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 9), st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=5
    ),
    tokens=st.integers(1, 60),
    flat=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_pairs_in_any_batches_give_the_same_gradient(
    model: Any, name: str, sizes: list[tuple[int, int, int]], tokens: int, flat: bool
) -> None:
    method, rows, how = build_method(METHODS[name]), pairs(tuple(sizes)), Joining(flat=flat)
    whole = method.loss(model, method.collate(rows, FLAT))
    lengths = [count_tokens(row, how) for row in rows]
    parts = [rows[part] for part in split_update(lengths, tokens=tokens, flat=flat)]
    split = [method.loss(model, method.collate(part, how)) for part in parts]
    assert sum(each.count for each in split) == whole.count == len(rows)
    for measure, value in whole.measures.items():
        found = sum(float(each.measures[measure]) for each in split)
        assert found == pytest.approx(float(value), rel=1e-4, abs=1e-6)
        assert not value.requires_grad
    total = sum(each.total for each in split)
    check_same(gradients(model, total), gradients(model, whole.total), floor=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_only_a_reference_is_asked_for_where_it_is_needed(name: str) -> None:
    needs = build_method(METHODS[name]).needs_reference
    assert needs == (name not in ("no reference", "orpo", "simpo", "cpo"))


def test_sft_asks_for_no_reference(tmp_path: Path) -> None:
    from tunesmith.recipe.method import SFT

    with pytest.raises(NotImplementedError, match="SFTMethod needs no reference"):
        build_method(SFT()).logps(None, {})  # type: ignore[arg-type]
