"""Advantages, values and losses of ppo, against the papers' equations worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tunesmith.methods.advantages import Moments, gained, moments_of, whiten
from tunesmith.methods.grpo import clipped_losses, k3
from tunesmith.methods.ppo import (
    PPOMethod,
    adapted,
    clipped_value_losses,
    explained,
    token_rewards,
)
from tunesmith.recipe.method import PPO


def rows_of(tokens: dict[str, list[list[float]]], rewards: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "reward": reward,
            "cut": False,
            "tokens": {name: values[place] for name, values in tokens.items()},
        }
        for place, reward in enumerate(rewards)
    ]


def test_advantages_follow_the_estimator_by_hand() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 0.6, 0.8]], dtype=torch.float64)
    found = gained(rewards, values, gamma=0.9, gae_lambda=0.5)
    last = 1.0 - 0.8
    middle = (0.9 * 0.8 - 0.6) + 0.45 * last
    first = (0.9 * 0.6 - 0.5) + 0.45 * middle
    torch.testing.assert_close(found, torch.tensor([[first, middle, last]], dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_trust_of_one_leaves_what_was_got_and_of_zero_one_surprise(gamma: float) -> None:
    torch.manual_seed(1)
    rewards, values = torch.randn(2, 3, 5, dtype=torch.float64)
    powers = gamma ** torch.arange(5, dtype=torch.float64)
    got = torch.stack([(rewards[:, t:] * powers[: 5 - t]).sum(1) for t in range(5)], dim=1)
    torch.testing.assert_close(gained(rewards, values, gamma=gamma, gae_lambda=1.0), got - values)
    following = torch.cat([values[:, 1:], torch.zeros(3, 1)], dim=1)
    surprise = rewards + gamma * following - values
    torch.testing.assert_close(gained(rewards, values, gamma=gamma, gae_lambda=0.0), surprise)


def test_what_lies_behind_the_end_of_an_answer_changes_nothing() -> None:
    rewards, values = torch.randn(2, 1, 3, dtype=torch.float64)
    alone = gained(rewards, values, gamma=0.9, gae_lambda=0.8)
    padded = (torch.nn.functional.pad(each, (0, 2)) for each in (rewards, values))
    longer = gained(*padded, gamma=0.9, gae_lambda=0.8)
    torch.testing.assert_close(longer[:, :3], alone)
    assert longer[:, 3:].tolist() == [[0.0, 0.0]]


def test_whitened_numbers_have_a_mean_of_zero_and_a_variance_of_one() -> None:
    numbers = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    moments = moments_of(numbers)
    assert (moments.mean, moments.variance) == (3.0, 7.0)
    root = math.sqrt(7 + 1e-8)
    expected = torch.tensor([-2 / root, -1 / root, 3 / root], dtype=torch.float64)
    torch.testing.assert_close(whiten(numbers, moments), expected)
    torch.testing.assert_close(whiten(numbers, moments, keep_mean=True), expected + 3)
    alike = torch.ones(4)
    assert whiten(alike, moments_of(alike)).tolist() == [0.0] * 4


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    numbers = torch.randn(10, dtype=torch.float64)
    parts = sum(map(moments_of, (numbers[:3], numbers[3:3], numbers[3:])), Moments())
    assert parts.count == 10
    assert parts.mean == pytest.approx(float(numbers.mean()))
    assert parts.deviation == pytest.approx(float(numbers.std()))


def test_each_token_pays_for_going_away_and_the_last_is_rewarded() -> None:
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.5, 9.0, 9.0]], dtype=torch.float64)
    within = torch.tensor([[True, True, True], [True, False, False]])
    scores = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = token_rewards(kl, scores, within, strength=0.5)
    expected = [[-0.05, -0.1, -0.15 + 1], [-0.25 + 2, 0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.1, 2.0, -2.2), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (0.5, -2.0, 1.6), (1.5, -2.0, 3.0)],
)
def test_probabilities_rise_and_fall_only_so_far(
    ratio: float, advantage: float, expected: float
) -> None:
    given = torch.tensor([ratio]), torch.tensor([advantage])
    torch.testing.assert_close(clipped_losses(*given, (0.2, 0.2)), torch.tensor([expected]))


@pytest.mark.parametrize(
    ("value", "room", "expected"),
    [
        (0.4, 0.0, 0.5 * 0.6**2),
        (0.4, 0.2, 0.5 * 0.8**2),  # held at 0.2, which is farther from 1
        (0.1, 0.2, 0.5 * 0.9**2),
        (-0.4, 0.2, 0.5 * 1.4**2),  # the larger of both errors
    ],
)
def test_values_move_only_so_far(value: float, room: float, expected: float) -> None:
    old, returns = torch.zeros(1), torch.ones(1)
    found = clipped_value_losses(torch.tensor([value]), old, returns, room=room)
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [(6.0, 0.2), (6.6, 0.2 * 1.01), (60.0, 0.2 * 1.02), (0.0, 0.2 * 0.98)],
)
def test_the_pull_follows_its_target(divergence: float, expected: float) -> None:
    assert adapted(0.2, divergence, target=6.0, gain=0.1) == pytest.approx(expected)


def test_estimates_of_a_divergence_average_to_it() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 5, dtype=torch.float64).log_softmax(dim=1)
    exact = float((ours.exp() * (ours - theirs)).sum())
    assert float((ours.exp() * k3(ours, theirs)).sum()) == pytest.approx(exact)
    assert float(k3(ours, theirs).min()) >= 0


def test_values_that_foresee_all_explain_all() -> None:
    returns = torch.tensor([1.0, 2.0, 4.0])
    assert explained(returns, returns) == 1.0
    assert explained(returns, torch.zeros(3)) == 0.0
    assert explained(returns, -returns) == -3.0
    assert explained(torch.ones(3), torch.zeros(3)) == 0.0


TOKENS = {
    "old_logps": [[-1.0, -2.0], [-0.5]],
    "old_values": [[0.2, 0.1], [0.4]],
    "reference_logps": [[-1.5, -1.0], [-0.5]],
}


def judged(memory: dict[str, float] | None = None, **options: Any) -> Any:
    method = PPOMethod(PPO(rewards=("json",), **options))
    return method.judge(rows_of(TOKENS, [1.0, 3.0]), {} if memory is None else memory)


def test_a_rollout_is_judged_as_by_hand() -> None:
    found = judged(beta=0.1, gae_lambda=1.0)
    kl = [[0.5, -1.0], [0.0]]
    returns = [[-0.05 + 0.1 + 1, 0.1 + 1], [3.0]]
    assert [row["tokens"]["returns"] for row in found.rows] == [
        pytest.approx(each) for each in returns
    ]
    raw = torch.tensor([returns[0][0] - 0.2, returns[0][1] - 0.1, returns[1][0] - 0.4])
    white = (raw - raw.mean()) / raw.std()
    told = [number for row in found.rows for number in row["tokens"]["advantages"]]
    torch.testing.assert_close(torch.tensor(told), white)
    assert found.figures["answer_kl"] == pytest.approx((sum(kl[0]) + sum(kl[1])) / 2)
    assert found.figures["kl_coefficient"] == 0.1
    assert set(found.rows[0]["tokens"]) == {"old_logps", "old_values", "advantages", "returns"}


def test_the_pull_is_remembered_and_adapts() -> None:
    memory: dict[str, float] = {}
    judged(memory, beta=0.1, kl_target=1.0, kl_horizon=10)
    assert memory["kl_coefficient"] == pytest.approx(0.1 * (1 - 0.2 * 2 / 10))
    found = judged(memory, beta=0.1, kl_target=1.0, kl_horizon=10)
    assert found.figures["kl_coefficient"] == pytest.approx(0.096)


def test_rewards_are_scaled_by_all_seen_so_far_and_clipped() -> None:
    memory: dict[str, float] = {}
    plain = {"beta": 0, "gae_lambda": 1.0, "scale_rewards": True}
    judged(memory, **plain)
    found = judged(memory, **plain)
    deviation = math.sqrt(4 / 3)  # of 1, 3, 1, 3, around 2
    last = [row["tokens"]["returns"][-1] for row in found.rows]
    assert last == [pytest.approx(-1 / deviation), pytest.approx(1 / deviation)]
    clipped = judged(**plain, clip_rewards=0.5)
    assert [row["tokens"]["returns"][-1] for row in clipped.rows] == [-0.5, 0.5]


def test_rewards_of_tokens_are_whitened_around_their_mean() -> None:
    found = judged(beta=0.1, gae_lambda=0.0, gamma=1e-9, whiten_rewards=True)
    raw = torch.tensor([-0.05, 0.1 + 1, 3.0])
    white = (raw - raw.mean()) / raw.std() + raw.mean()
    told = [number for row in found.rows for number in row["tokens"]["returns"]]
    torch.testing.assert_close(torch.tensor(told), white, atol=1e-5, rtol=1e-5)


def test_answers_that_do_not_end_are_punished() -> None:
    method = PPOMethod(PPO(rewards=("json",), cut_penalty=2.0))
    assert method.own_rewards([{"cut": True}, {"cut": False}]) == {"cut_penalty": [-2.0, -0.0]}
    assert PPOMethod(PPO(rewards=("json",))).own_rewards([{"cut": True}]) == {}


def test_a_process_without_answers_judges_nothing() -> None:
    method = PPOMethod(PPO(rewards=("json",), scale_rewards=True, whiten_rewards=True))
    assert method.judge([], {}).rows == []
