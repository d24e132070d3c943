"""Rewards that are worked out from the answer alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from tunesmith.errors import TrainingError
from tunesmith.methods.rewards import Sample, build_rewards
from tunesmith.recipe.rewards import Rewards as RewardOptions

CPU = torch.device("cpu")


def sample(completion: str, reference: str | None = None, *, cut: bool = False) -> Sample:
    return Sample(
        messages=[{"role": "user", "content": "what?"}],
        prompt="<q>what?<a>",
        completion=completion,
        written=completion + "<end>",
        completion_ids=list(range(len(completion) // 2)),
        reference=reference,
        cut=cut,
    )


def judge(option: Any, *samples: Sample) -> list[float]:
    options = TypeAdapter(RewardOptions).validate_python(option)
    found: list[float] = build_rewards(options, device=CPU).score(samples)[:, 0].tolist()
    return found


def test_an_exact_match_forgives_spaces_around_it_only() -> None:
    answers = [sample(" Ten o'clock\n", "Ten o'clock"), sample("ten o'clock", "Ten o'clock")]
    assert judge("exact_match", *answers) == [1.0, 0.0]
    assert judge({"kind": "exact_match", "ignore_case": True}, *answers) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("completion", "reference", "expected"),
    [
        ("3 + 4 is 7", "#### 7", 1.0),
        ("7, or rather 8", "7", 0.0),
        ("it costs 1,250.50 yuan.", "1250.5", 1.0),
        ("一共１２元", "12", 1.0),
        ("-3", "3", 0.0),
        ("none", "3", 0.0),
    ],
)
def test_the_last_number_counts(completion: str, reference: str, expected: float) -> None:
    assert judge("number", sample(completion, reference)) == [expected]


def test_numbers_may_be_apart_as_far_as_asked() -> None:
    option = {"kind": "number", "tolerance": 0.01}
    assert judge(option, sample("3.14", "3.1416"), sample("3.1", "3.1416")) == [1.0, 0.0]


def test_a_pattern_is_found_in_a_part_or_describes_the_whole() -> None:
    answers = [sample("A: yes"), sample("well, A: yes")]
    option = {"kind": "regex", "pattern": "A: (yes|no)"}
    assert judge(option, *answers) == [1.0, 1.0]
    assert judge({**option, "match": "whole"}, *answers) == [1.0, 0.0]


def test_length_is_worth_less_the_farther_it_is_off() -> None:
    at_most = {"kind": "length", "limit": 4, "unit": "characters"}
    answers = [sample("ab"), sample("abcd"), sample("abcde"), sample("a" * 9)]
    assert judge(at_most, *answers) == [1.0, 1.0, 0.75, 0.0]
    assert judge({**at_most, "aim": "exactly"}, *answers) == [0.5, 1.0, 0.75, 0.0]
    assert judge({"kind": "length", "limit": 1}, sample("abcd")) == [0.0]


def test_json_is_json_and_has_its_keys() -> None:
    answers = [sample('{"a": 1}'), sample("[1]"), sample('so {"a": 1}'), sample('{"a": NaN}')]
    assert judge("json", *answers) == [1.0, 1.0, 0.0, 0.0]
    assert judge({"kind": "json", "keys": ["a"]}, *answers) == [1.0, 0.0, 0.0, 0.0]


def test_language_is_a_share_of_letters() -> None:
    answers = [sample("你好 ok"), sample("12!"), sample("Größe")]
    assert judge({"kind": "language", "language": "zh"}, *answers) == [0.5, 0.0, 0.0]
    assert judge({"kind": "language", "language": "en"}, *answers) == [0.5, 0.0, 1.0]


def test_rewards_are_weighed_and_added_and_named_apart() -> None:
    option = [
        {"kind": "regex", "pattern": "a"},
        {"kind": "regex", "pattern": "b", "weight": 2},
        {"kind": "json", "weight": -0.5},
    ]
    rewards = build_rewards(TypeAdapter(RewardOptions).validate_python(option), device=CPU)
    assert rewards.names == ("regex", "regex_2", "json")
    scores = rewards.score([sample("ab"), sample("1")])
    assert scores.tolist() == [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert scores.dtype == torch.float32
    assert rewards.total(scores).tolist() == [3.0, -0.5]


def test_a_row_without_an_answer_cannot_be_compared() -> None:
    with pytest.raises(TrainingError, match=r"exact_match failed.*no answer of its own.*'hello'"):
        judge("exact_match", sample("hello", "hello"), sample("hello"))
