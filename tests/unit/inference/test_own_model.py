"""Models that transformers writes with are asked together, each answer by its own options."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.asking import PROMPTS, Ear, Spelled, load, reference
from tunesmith.errors import RequestError
from tunesmith.inference.engine import Request
from tunesmith.inference.generate import answer
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    loaded = load(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")
    return replace(loaded, stop_ids=())


@pytest.fixture
def engine(model: ChatModel) -> Iterator[OwnModel]:
    made = OwnModel(model, rows=8)
    yield made
    made.close()


def ask(engine: OwnModel, prompt: list[int], **options: Any) -> Ear:
    ear = Ear()
    engine.start(Request(prompt, Sampling(**options)), ear)
    return ear


def test_answers_asked_together_are_each_as_alone(engine: OwnModel, model: ChatModel) -> None:
    first = ask(engine, PROMPTS[0], max_tokens=40)
    first.begun.wait(60)
    ears = [ask(engine, prompt, max_tokens=6 + 9 * n) for n, prompt in enumerate(PROMPTS)]
    assert engine.load().waiting == len(PROMPTS)
    for number, (prompt, ear) in enumerate(zip(PROMPTS, ears, strict=True)):
        assert ear.tokens() == reference(model, prompt, 6 + 9 * number)
        assert ear.pieces[-1].finish == "length"
    assert first.tokens() == reference(model, PROMPTS[0], 40)


@pytest.mark.parametrize(
    "options",
    [
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"logit_bias": {7: 4.0, 9: 3.9}, "frequency_penalty": 0.2},
        {"repetition_penalty": 1.4},
        {"stop": ("a", "e")},
    ],
)
def test_options_do_the_same_however_it_is_asked(
    engine: OwnModel, model: ChatModel, options: dict[str, Any]
) -> None:
    sampling = Sampling(max_tokens=24, **options)
    plain = answer(model, PROMPTS, Sampling(max_tokens=24))
    expected = answer(model, PROMPTS, sampling)
    assert expected != plain
    ears = [ask(engine, prompt, max_tokens=24, **options) for prompt in PROMPTS]
    assert [ear.text() for ear in ears] == [given.text for given in expected]


def test_min_p_of_one_leaves_the_likeliest_token(model: ChatModel) -> None:
    drawn = Sampling(max_tokens=12, temperature=2.0, seed=1)
    greedy = answer(model, PROMPTS[:2], Sampling(max_tokens=12))
    assert answer(model, PROMPTS[:2], replace(drawn, min_p=1.0)) == greedy
    assert answer(model, PROMPTS[:2], drawn) != greedy


def test_forms_and_log_probabilities_are_kept(engine: OwnModel) -> None:
    form, ear = Ear(), ask(engine, PROMPTS[1], max_tokens=3, logprobs=2)
    engine.start(Request(PROMPTS[0], Sampling(max_tokens=9), form=Spelled([5, 6, 7])), form)
    assert form.tokens() == [5, 6, 7]
    ear.tokens()
    told = [token for piece in ear.pieces for token in piece.tokens]
    assert [len(token.likeliest) for token in told] == [2, 2, 2]
    assert told[0].logprob == told[0].likeliest[0][1]


def test_a_text_alone_tells_no_log_probabilities(model: ChatModel) -> None:
    with pytest.raises(RequestError, match="tells no log-probabilities"):
        answer(model, PROMPTS, Sampling(logprobs=1))


def test_a_cancelled_answer_gives_way_within_a_step(engine: OwnModel) -> None:
    ear = Ear()
    work = engine.start(Request(PROMPTS[0], Sampling(max_tokens=250)), ear)
    ear.begun.wait(60)
    work.cancel()
    heard = len(ear.pieces)
    assert len(ask(engine, PROMPTS[0], max_tokens=2).tokens()) == 2
    assert len(ear.pieces) <= heard + 1


def test_prompts_are_written_to_when_the_model_is_free(engine: OwnModel) -> None:
    said: list[Any] = []
    writing = threading.Thread(
        target=lambda: said.extend(engine.write(PROMPTS[:1], Sampling(max_tokens=2)))
    )
    with engine._turns.turn:
        writing.start()
        writing.join(0.3)
        assert not said
    writing.join(60)
    assert len(said) == 1


def test_cancelled_answers_do_not_pile_up_behind_a_long_turn(engine: OwnModel) -> None:
    with engine._turns.turn:
        ears = [ask(engine, PROMPTS[0], max_tokens=2)]
        for _ in range(9):
            engine.start(Request(PROMPTS[0], Sampling()), Ear()).cancel()
        ears.append(ask(engine, PROMPTS[0], max_tokens=2))
        assert engine.load().waiting <= 3
    assert [len(ear.tokens()) for ear in ears] == [2, 2]


def test_what_goes_wrong_is_told_and_the_next_is_answered(
    engine: OwnModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            type(engine.model.model),
            "forward",
            lambda *_, **__: (_ for _ in ()).throw(OSError("x")),
        )
        with pytest.raises(OSError, match="x"):
            ask(engine, PROMPTS[0], max_tokens=2).tokens()
    assert len(ask(engine, PROMPTS[0], max_tokens=2).tokens()) == 2


def test_closing_ends_all_work(model: ChatModel) -> None:
    engine = OwnModel(model, rows=1)
    ears = [ask(engine, PROMPTS[0], max_tokens=250) for _ in range(2)]
    ears[0].begun.wait(60)
    engine.close()
    for ear in ears:
        with pytest.raises(RequestError, match="the engine is closed"):
            ear.tokens()
    with pytest.raises(RequestError, match="the engine is closed"):
        ask(engine, PROMPTS[0])
    assert threading.active_count() < 20
    assert torch.is_grad_enabled()


def test_what_is_written_behind_a_stop_text_is_no_part_of_an_answer(
    engine: OwnModel, model: ChatModel
) -> None:
    (whole,) = engine.write([PROMPTS[0]], Sampling(max_tokens=40))
    stop = whole.text[len(whole.text) // 2 :][:2]
    (cut,) = engine.write([PROMPTS[0]], Sampling(max_tokens=40, stop=(stop,)))
    assert (cut.text, cut.finish) == (whole.text[: whole.text.index(stop)], "stop")
    assert list(cut.tokens) == ask(engine, PROMPTS[0], max_tokens=40, stop=(stop,)).tokens()
    assert len(cut.tokens) < len(whole.tokens)
    assert cut.end is None
