"""Tokens are chosen as transformers chooses them, each answer by its own options."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunesmith.errors import NoOdds, RequestError
from tunesmith.inference.choosing import Way, choose, likeliest
from tunesmith.inference.engine import Token
from tunesmith.inference.sampling import Sampling

VOCAB = 500
DRAWS = 1500


class Fixed(Way):
    """Draws a given number."""

    number = 0.0

    def chance(self) -> float:
        return self.number


def logits_of(seed: int, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * spread


def tokens_of(ways: list[Way], logits: torch.Tensor) -> list[Token]:
    chosen = choose(ways, logits)
    assert all(isinstance(token, Token) for token in chosen)
    return [token for token in chosen if isinstance(token, Token)]


def histogram(logits: torch.Tensor, **options: Any) -> torch.Tensor:
    """Draw with evenly spread numbers, all at once; return how often each token came."""
    ways: list[Way] = []
    for draw in range(DRAWS):
        way = Fixed([1, 2, 3], Sampling(**options))
        way.number = (draw + 0.5) / DRAWS
        ways.append(way)
    drawn = torch.tensor([token.id for token in tokens_of(ways, logits.expand(DRAWS, -1))])
    return torch.bincount(drawn, minlength=VOCAB) / DRAWS


@pytest.mark.parametrize(
    ("options", "spread"),
    [
        ({"temperature": 1.0}, 2.0),
        ({"temperature": 0.6}, 2.0),
        ({"temperature": 1.5, "top_k": 7}, 2.0),
        ({"temperature": 1.0, "top_p": 0.8}, 2.0),
        ({"temperature": 1.0, "top_p": 0.95}, 0.1),  # more tokens than are looked at first
        ({"temperature": 1.0, "min_p": 0.1}, 2.0),
        ({"temperature": 1.3, "top_k": 40, "top_p": 0.7, "min_p": 0.05}, 2.0),
        ({"temperature": 1.0, "top_k": 10**9, "repetition_penalty": 1.7}, 2.0),
        ({"temperature": 1.0, "top_p": 1e-6}, 2.0),
    ],
)
def test_draws_follow_the_odds_of_transformers(options: dict[str, Any], spread: float) -> None:
    logits = logits_of(1, spread)
    steps: list[Any] = []
    if "repetition_penalty" in options:
        steps.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    steps.append(TemperatureLogitsWarper(options["temperature"]))
    if 0 < options.get("top_k", 0) < VOCAB:
        steps.append(TopKLogitsWarper(options["top_k"]))
    if "top_p" in options:
        steps.append(TopPLogitsWarper(options["top_p"]))
    if "min_p" in options:
        steps.append(MinPLogitsWarper(options["min_p"]))
    theirs = LogitsProcessorList(steps)(torch.tensor([[1, 2, 3]]), logits[None].clone())
    expected = theirs.softmax(-1)[0]
    found = histogram(logits, **options)
    assert (found - expected).abs().max() <= 1.01 / DRAWS
    assert not found[expected == 0].any()


def test_penalties_are_those_of_openai() -> None:
    options = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={9: 3.0, 4: -1.0})
    way = Way([5, 5, 5], options)
    for token in (4, 4, 7):
        way.take(token)
    assert way.added() == {9: 3.0, 4: -1.0 - 0.5 - 0.5, 7: -0.75}  # nothing for the prompt
    logits = torch.zeros(2, 10)
    logits[:, 4], logits[:, 7] = 2.9, 1.0
    (mine, plain) = tokens_of([way, Way([5], Sampling())], logits)
    assert (mine.id, plain.id) == (9, 4)


def test_a_bias_may_be_a_whole_number() -> None:
    way = Way([5], Sampling(logit_bias={9: 3, 4: -1}))
    (token,) = tokens_of([way], torch.zeros(1, 10))
    assert token.id == 9


def test_the_penalty_on_repetition_counts_prompt_and_answer_as_transformers_does() -> None:
    way = Way([3, 8], Sampling(repetition_penalty=2.0, logprobs=5))
    way.take(6)
    logits = torch.tensor([[0.0, 1.0, -1.0, 3.0, 0.5, 0.2, 2.5, 1.4, -0.5, 1.45]])
    theirs = RepetitionPenaltyLogitsProcessor(2.0)(torch.tensor([[3, 8, 6]]), logits.clone())
    (token,) = tokens_of([way], logits)
    assert token.id == int(theirs.argmax())
    raw = logits.log_softmax(-1)[0]
    assert token.logprob == pytest.approx(float(raw[3 if token.id == 3 else token.id]))
    assert [number for number, _ in token.likeliest] == [3, 6, 9, 7, 1]  # before any penalty
    assert token.likeliest[0][1] == pytest.approx(float(raw[3]))


def test_log_probabilities_are_told_only_to_who_asks() -> None:
    logits = torch.stack([logits_of(seed) for seed in range(4)])
    ways = [Way([1], Sampling(logprobs=count)) for count in (None, 0, 3, 20)]
    tokens = tokens_of(ways, logits)
    assert [token.id for token in tokens] == logits.argmax(-1).tolist()
    assert [len(token.likeliest) for token in tokens] == [0, 0, 3, 20]
    assert tokens[0].logprob is None
    assert math.isclose(
        tokens[1].logprob or 0, float(logits[1].log_softmax(-1).max()), abs_tol=1e-5
    )


def test_the_same_seed_draws_the_same_beside_any_others() -> None:
    logits = torch.stack([logits_of(seed) for seed in range(3)])
    drawn = Sampling(temperature=1.0, seed=11)

    def draw(*others: Sampling) -> list[int]:
        way = Way([1], drawn)
        ways = [way, *(Way([1], other) for other in others)]
        return [tokens_of(ways, logits[[step % 3] * len(ways)])[0].id for step in range(20)]

    alone = draw()
    assert len(set(alone)) > 5
    assert draw(Sampling(temperature=1.0, top_k=3), Sampling(), Sampling(temperature=2.0)) == alone
    assert draw(drawn, Sampling(temperature=0.5, top_p=0.5)) == alone


class Only:
    """A form that allows some tokens."""

    def __init__(self, *allowed: int) -> None:
        self.allowed = allowed

    def mask(self) -> torch.Tensor:
        mask = torch.zeros(VOCAB - 100, dtype=torch.bool)
        mask[list(self.allowed)] = True
        return mask

    def take(self, token: int) -> None: ...

    def is_over(self) -> bool:
        return False


def test_a_form_allows_nothing_else_and_one_that_allows_nothing_fails_alone() -> None:
    logits = logits_of(2).expand(4, -1).clone()
    logits[:, VOCAB - 1] = 50.0  # past the mask
    drawn = Sampling(temperature=2.0, seed=1)
    ways = [
        Way([1], Sampling(), Only(30, 31)),
        Way([1], drawn, Only(32)),
        Way([1], drawn, Only()),
        Way([1], Sampling()),
    ]
    chosen = choose(ways, logits)
    best = 30 if logits[0, 30] > logits[0, 31] else 31
    assert [getattr(each, "id", None) for each in chosen] == [best, 32, None, VOCAB - 1]
    assert isinstance(chosen[2], RequestError)
    assert "no token goes on the answer" in str(chosen[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_likeliest_token_is_found_however_logits_lie(dtype: torch.dtype) -> None:
    logits = torch.stack([logits_of(seed) for seed in range(9)]).to(dtype)
    expected = logits.argmax(-1).tolist()
    assert likeliest(logits) == expected
    assert likeliest(logits.t().contiguous().t()) == expected


WAYS: dict[str, dict[str, Any]] = {
    "likeliest": {},
    "all tokens": {"temperature": 1.0},
    "some tokens": {"temperature": 1.0, "top_k": 5},
    "enough tokens": {"temperature": 1.0, "top_p": 0.9, "min_p": 0.01},
    "told": {"temperature": 0.7, "logprobs": 2},
    "likeliest, told": {"logprobs": 1, "repetition_penalty": 1.2},
}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_row_of_what_are_no_numbers_fails_alone(wrong: float) -> None:
    """Whatever is asked of it, and of the others beside it."""
    logits = torch.stack([logits_of(seed) for seed in range(2 * len(WAYS))])
    spoilt = logits.clone()
    spoilt[::2, 7] = wrong  # one number is enough

    def ways() -> list[Way]:
        return [Way([1], Sampling(seed=3, **how)) for how in WAYS.values() for _ in range(2)]

    expected, found = choose(ways(), logits), choose(ways(), spoilt)
    assert found[1::2] == expected[1::2]
    for problem in found[::2]:
        assert isinstance(problem, NoOdds)
        assert "not a number" in problem.message
    for place in range(0, len(spoilt), 2):  # and by itself
        assert isinstance(choose(ways()[place : place + 1], spoilt[place : place + 1])[0], NoOdds)
