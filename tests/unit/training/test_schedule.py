"""Rates rise and fall as transformers' schedules do."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from transformers import optimization as theirs
from transformers.optimization import get_scheduler

from tunesmith.recipe.optimizer import AdamW, Scheduled, ScheduleFree
from tunesmith.training.schedule import describe_schedule

NUM_STEPS, WARMUP, PEAK = 40, 4, 0.5
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "cosine": ({}, lambda o: theirs.get_cosine_schedule_with_warmup(o, WARMUP, NUM_STEPS)),
    "linear": ({}, lambda o: theirs.get_linear_schedule_with_warmup(o, WARMUP, NUM_STEPS)),
    "constant": ({}, lambda o: theirs.get_constant_schedule_with_warmup(o, WARMUP)),
    "warmup_stable_decay": (
        {"decay": 0.25, "min_rate": 0.1},
        lambda o: theirs.get_wsd_schedule(o, WARMUP, 10, NUM_STEPS, min_lr_ratio=0.1),
    ),
    "inverse_sqrt": ({}, lambda o: theirs.get_inverse_sqrt_schedule(o, WARMUP)),
    "polynomial": (
        {"power": 2.0, "min_rate": 0.1},
        lambda o: theirs.get_polynomial_decay_schedule_with_warmup(
            o, WARMUP, NUM_STEPS, lr_end=0.05, power=2.0
        ),
    ),
    "cosine_with_restarts": (
        {"cycles": 3},
        lambda o: theirs.get_cosine_with_hard_restarts_schedule_with_warmup(
            o, WARMUP, NUM_STEPS, num_cycles=3
        ),
    ),
    "cosine_with_min_lr": (
        {"min_rate": 0.1},
        lambda o: theirs.get_cosine_with_min_lr_schedule_with_warmup(
            o, WARMUP, NUM_STEPS, min_lr_rate=0.1
        ),
    ),
}


def curve(build: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = build(optimizer)
    rates = []
    for _ in range(NUM_STEPS):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return [*rates, float(schedule.get_last_lr()[0])]


def ours(options: Any) -> list[float]:
    told = describe_schedule(options, NUM_STEPS)
    return curve(
        lambda optimizer: get_scheduler(
            told["lr_scheduler_type"],
            optimizer,
            num_warmup_steps=WARMUP,
            num_training_steps=NUM_STEPS,
            scheduler_specific_kwargs=told.get("lr_scheduler_kwargs", {}),
        )
    )


def test_every_schedule_is_compared_here() -> None:
    assert set(get_args(Scheduled.model_fields["scheduler"].annotation)) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_rates_are_those_of_transformers(name: str) -> None:
    options, build = CASES[name]
    asked = AdamW(learning_rate=PEAK, scheduler=name, **options)  # type: ignore[arg-type]
    assert ours(asked) == curve(build)


def test_the_options_bend_the_curves_as_they_say() -> None:
    def shaped(**options: Any) -> list[float]:
        return [rate / PEAK for rate in ours(AdamW(learning_rate=PEAK, **options))]

    stable = shaped(scheduler="warmup_stable_decay", decay=0.25, min_rate=0.2)
    assert stable[WARMUP:31] == [1.0] * 27
    assert stable[31] < 1
    assert stable[-1] == pytest.approx(0.2)
    assert shaped(scheduler="polynomial", min_rate=0.2)[-1] == pytest.approx(0.2)
    assert shaped(scheduler="polynomial", min_rate=0.2)[22] == pytest.approx(0.6)
    assert shaped(scheduler="cosine_with_min_lr", min_rate=0.3)[-1] == pytest.approx(0.3)
    short = shaped(scheduler="warmup_stable_decay", decay=0.95, warmup=WARMUP)
    assert short[WARMUP] == 1.0
    assert short[-1] == 0.0
    restarted = shaped(scheduler="cosine_with_restarts", cycles=2)
    assert restarted[22] == pytest.approx(1.0)
    assert restarted[21] < 0.1
    assert shaped(scheduler="inverse_sqrt")[16] == pytest.approx(0.5)


def test_what_has_no_schedule_keeps_its_rate_after_warm_up() -> None:
    rates = ours(ScheduleFree(learning_rate=PEAK))
    assert rates[: WARMUP + 1] == [PEAK * step / WARMUP for step in range(WARMUP + 1)]
    assert set(rates[WARMUP:]) == {PEAK}
