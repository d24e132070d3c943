"""Curves are read as somebody with experience would."""

from __future__ import annotations

import math

import pytest

from tunesmith.training.advice import advise
from tunesmith.training.curves import draw_curves, smooth


def losses(values: list[float], held_out: dict[int, float] | None = None):  # type: ignore[no-untyped-def]
    records = [
        {"step": n, "loss": loss, "learning_rate": 1e-3, "tokens_per_second": 9.0}
        for n, loss in enumerate(values, 1)
    ]
    return [*records, *({"step": s, "eval_loss": v} for s, v in (held_out or {}).items())]


FALLING = [4 * math.exp(-n / 60) for n in range(60)]
SETTLED = [1 + 3 * math.exp(-n / 5) for n in range(60)]
SLOW = [4 - n * 1e-3 for n in range(60)]
CLIMBED = [0.1 + 4 * math.exp(-n / 5) for n in range(40)] + [0.1 + n / 5 for n in range(15)]
DIVERGED = [4 * math.exp(-n / 10) for n in range(30)] + [1 + n for n in range(10)]


@pytest.mark.parametrize(
    ("curve", "kind"),
    [
        (FALLING, "falling"),
        (SETTLED, "settled"),
        (SLOW, "slow"),
        (DIVERGED, "diverged"),
        (CLIMBED, "diverged"),
    ],
)
def test_a_curve_gets_its_advice(curve: list[float], kind: str) -> None:
    (advice,) = advise(losses(curve))
    assert advice.kind == kind
    assert advice.seen
    assert advice.do


def test_noise_does_not_change_the_advice() -> None:
    noisy = [loss + 0.05 * (-1) ** n for n, loss in enumerate(SETTLED)]
    assert advise(losses(noisy))[0].kind == "settled"


def test_a_held_out_loss_that_rises_names_the_best_step() -> None:
    (advice,) = advise(losses(FALLING, {20: 2.0, 40: 1.5, 60: 1.9}))
    assert (advice.kind, advice.step) == ("overfits", 40)
    assert "step 40" in advice.do


def test_a_held_out_loss_that_falls_is_no_overfitting() -> None:
    assert advise(losses(SETTLED, {20: 2.0, 40: 1.5, 60: 1.4}))[0].kind == "settled"


def test_few_losses_are_no_curve() -> None:
    assert advise(losses([3.0, 2.0]))[0].kind == "short"
    assert advise([])[0].kind == "short"


def test_a_short_run_still_hears_that_it_overfits() -> None:
    assert advise(losses([3.0, 2.0], {1: 1.0, 2: 2.0}))[0].kind == "overfits"


def test_smoothing_starts_at_the_first_value_and_follows() -> None:
    assert smooth([2.0])[0] == pytest.approx(2.0)
    assert smooth([1.0] * 50)[-1] == pytest.approx(1.0)
    assert 0 < smooth([0.0] * 20 + [1.0] * 5)[-1] < 1


def test_curves_are_drawn_as_a_png_whatever_there_is() -> None:
    for records in ([], losses([2.0]), losses(FALLING, {30: 1.0})):
        assert draw_curves(records).startswith(b"\x89PNG")
