"""What goes wrong with one answer is no other's, and nothing is left of any."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.asking import (
    PROMPTS,
    Ear,
    Spelled,
    ask,
    assert_same,
    begin,
    load,
    reference,
    wait_until_idle,
)
from tunesmith.errors import EngineError, NoOdds, RequestError
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.engine import Piece, Request
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel

if TYPE_CHECKING:
    import torch


def test_a_cancelled_answer_is_heard_of_no_more_and_its_place_is_free(
    engine: BatchingEngine,
) -> None:
    ear, work = begin(engine, PROMPTS[0], max_tokens=240)
    ear.begun.wait(60)
    work.cancel()
    heard = len(ear.pieces)
    ask(engine, PROMPTS[1], max_tokens=4).tokens()
    assert len(ear.pieces) <= heard + 1  # one that was being told
    assert not ear.over.is_set()
    wait_until_idle(engine)


def test_a_failing_step_is_told_to_all_and_the_engine_lives_on(
    engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, fails = type(engine._batch.forward).__call__, [True]

    def failing(self: Any, step: Any) -> torch.Tensor:
        if fails[0]:
            raise RuntimeError("out of something")
        return forward(self, step)

    monkeypatch.setattr(type(engine._batch.forward), "__call__", failing)
    engine.check()
    for ear in [ask(engine, PROMPTS[0], max_tokens=4)]:
        with pytest.raises(RuntimeError, match="out of something"):
            ear.tokens()
    fails[0] = False
    assert len(ask(engine, PROMPTS[0], max_tokens=4).tokens()) == 4
    fails[0] = True
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of something"):
            ask(engine, PROMPTS[0], max_tokens=4).tokens()
    engine._thread.join(60)
    for refuses in (lambda: ask(engine, PROMPTS[0], max_tokens=4), engine.check):
        with pytest.raises(EngineError, match="failed 3 times on end: out of something"):
            refuses()


def test_one_who_fails_to_hear_does_no_harm_to_others(engine: BatchingEngine) -> None:
    def deaf(told: Piece | Exception) -> None:
        raise ValueError("no ear")

    engine.start(Request(PROMPTS[0], Sampling(max_tokens=200)), deaf)
    assert len(ask(engine, PROMPTS[1], max_tokens=5).tokens()) == 5
    wait_until_idle(engine)


def test_closing_ends_all_work(one: ChatModel) -> None:
    engine = BatchingEngine(one, rows=1)
    ears = [ask(engine, PROMPTS[0], max_tokens=250) for _ in range(3)]
    ears[0].begun.wait(60)
    engine.close()
    for ear in ears:
        with pytest.raises(RequestError, match="the engine is closed"):
            ear.tokens()
    with pytest.raises(RequestError, match="the engine is closed"):
        ask(engine, PROMPTS[0])


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        ([], {}, "the prompt is empty"),
        ([400], {}, "prompt holds token ids that the model does not have"),
        ([-1], {}, "prompt holds token ids"),
        ([1], {"logit_bias": {400: 1.0}}, "logit_bias holds token ids"),
        ([1] * 256, {}, "the model takes 256"),
        ([1], {"min_p": 2.0}, "min_p cannot be 2.0"),
    ],
)
def test_what_cannot_be_answered_is_refused_at_once(
    engine: BatchingEngine, prompt: list[int], sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ask(engine, prompt, **sampling)


def test_an_unknown_model_is_refused_by_its_name(engine: BatchingEngine) -> None:
    with pytest.raises(RequestError, match="there is no model polite"):
        engine.start(Request([1], Sampling(), "polite"), Ear())


def test_a_form_that_fails_ends_its_answer_alone(engine: BatchingEngine) -> None:
    ear, fine = Ear(), ask(engine, PROMPTS[1], max_tokens=9)
    form = Spelled([5, 6])
    form.take = lambda token: None  # type: ignore[method-assign]  # it never goes on
    form.is_over = lambda: 1 / 0 > 1  # type: ignore[method-assign]
    engine.start(Request(PROMPTS[0], Sampling(max_tokens=9), form=form), ear)
    with pytest.raises(ZeroDivisionError):
        ear.tokens()
    assert len(fine.tokens()) == 9


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "seed": 1}])
def test_an_answer_whose_odds_are_no_numbers_fails_alone_and_leaves_none_behind(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    """Its place goes to others, whose masks would let what is no number through."""
    model = replace(load(tmp_path / "model", "untied"), stop_ids=())
    spoilt, count = 320, 40
    inner: Any = model.model
    inner.model.embed_tokens.weight[spoilt] = float("nan")
    expected = [reference(model, prompt, count) for prompt in PROMPTS[:2]]
    engine = BatchingEngine(model, rows=3)
    long = random.Random(1).choices(range(3, 320), k=150)
    fine = ask(engine, PROMPTS[0], max_tokens=count)
    for prompt in ([5, spoilt, 6], [spoilt, *long]):
        with pytest.raises(NoOdds, match="not a number"):
            ask(engine, prompt, max_tokens=9, **how).tokens()
    assert_same(model, PROMPTS[0], fine.tokens(), expected[0])
    ears = [ask(engine, PROMPTS[which], max_tokens=count) for which in (0, 1, 0)]  # in every place
    for which, ear in zip((0, 1, 0), ears, strict=True):
        assert_same(model, PROMPTS[which], ear.tokens(), expected[which])
    engine.check()
    engine.close()


def test_nothing_is_left_of_two_hundred_answers_some_of_them_cancelled(one: ChatModel) -> None:
    engine = BatchingEngine(one, rows=8, memory=0.01)
    process, chance = psutil.Process(), random.Random(3)

    def round_of(count: int) -> None:
        asked = []
        for _ in range(count):
            prompt = chance.choices(range(3, 390), k=chance.randrange(1, 120))
            asked.append(begin(engine, prompt, max_tokens=chance.randrange(1, 12)))
            if chance.random() < 0.4:
                chance.choice(asked)[1].cancel()
        for ear, work in asked:
            assert work.is_over or ear.tokens()  # type: ignore[attr-defined]
        wait_until_idle(engine)

    round_of(50)
    before = process.memory_info().rss
    round_of(150)
    assert process.memory_info().rss < before + 30 * 2**20
    batch = engine._batch
    assert not batch.slots
    assert not batch.waiting
    assert not batch.shelves.in_use()
    assert all(shelf.num_ready == 0 for shelf in batch.shelves.by_length.values())
    assert batch.prefixes.used <= batch.prefixes.limit
    assert batch.shelves.used <= batch.shelves.limit
    engine.close()
