"""Answers are those of the model itself: one by one, in batches, and piece by piece."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import ModelError, RequestError
from tunesmith.inference.generate import (
    answer,
    check_room,
    encode_prompt,
    max_positions,
    stream_answer,
)
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.tuning import LoRA

QUESTIONS = [
    "what is it?",
    "请问营业时间是什么",
    "the quick brown fox jumps over the lazy dog " * 2,
    "hi",
    "question 7",
]


@pytest.fixture(scope="module", params=["qwen3", "llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = tmp_path_factory.mktemp("models") / request.param
    return load(tiny.make_model(folder, request.param, seed=3))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model for what does not depend on the architecture."""
    return load(tiny.make_model(tmp_path_factory.mktemp("models") / "one", seed=3))


def load(folder: Path) -> ChatModel:
    torch.set_num_threads(1)
    return load_chat_model(folder, precision="fp32", device="cpu")


def prompts(model: ChatModel) -> list[list[int]]:
    return [encode_prompt(model, [{"role": "user", "content": text}]) for text in QUESTIONS]


def test_equal_prompts_draw_for_themselves_and_a_seed_repeats_them_all(one: ChatModel) -> None:
    asked = prompts(one)[:1] * 6
    drawn = Sampling(max_tokens=8, temperature=1.0, seed=4)
    said = answer(one, asked, drawn, rows=2)
    assert len({given.tokens for given in said}) == 6
    assert answer(one, asked, drawn, rows=2) == said
    assert answer(one, asked, replace(drawn, seed=5), rows=2) != said


def test_what_was_written_includes_the_token_that_ended_it(one: ChatModel) -> None:
    asked = prompts(one)[0]
    end = likeliest(one, asked, 3)[2]
    (said,) = answer(replace(one, stop_ids=(end,)), [asked], Sampling(max_tokens=8))
    assert (said.written, said.end, said.finish) == ((*said.tokens, end), end, "stop")
    (cut,) = answer(replace(one, stop_ids=()), [asked], Sampling(max_tokens=2))
    assert (cut.written, cut.end, cut.finish) == (cut.tokens, None, "length")


def likeliest(model: ChatModel, prompt: list[int], count: int) -> list[int]:
    """Write on, one likeliest token after the other, without cache, padding or `generate`."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in model.stop_ids:
            break
    return ids[len(prompt) :]


def ended(model: ChatModel, tokens: list[int]) -> list[int]:
    return [token for token in tokens if token not in model.stop_ids]


def test_answers_alone_are_the_likeliest_tokens(model: ChatModel) -> None:
    for prompt in prompts(model):
        (given,) = answer(model, [prompt], Sampling(max_tokens=20))
        expected = likeliest(model, prompt, 20)
        assert list(given.tokens) == ended(model, expected)
        assert given.text == model.tokenizer.decode(given.tokens, skip_special_tokens=True)
        assert given.num_prompt_tokens == len(prompt)


def test_answers_in_a_batch_of_mixed_lengths_are_the_same_in_the_same_order(
    model: ChatModel,
) -> None:
    asked = prompts(model)
    alone = [answer(model, [prompt], Sampling(max_tokens=20))[0] for prompt in asked]
    assert answer(model, asked, Sampling(max_tokens=20)) == alone
    assert answer(model, asked[::-1], Sampling(max_tokens=20)) == alone[::-1]


def test_answers_equal_those_of_transformers(model: ChatModel) -> None:
    for prompt in prompts(model):
        ids = torch.tensor([prompt])
        theirs = model.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=list(model.stop_ids),
            pad_token_id=0,
        )
        (given,) = answer(model, [prompt], Sampling(max_tokens=20))
        assert list(given.tokens) == ended(model, theirs[0, len(prompt) :].tolist())


def test_more_prompts_than_a_batch_holds_are_all_answered(one: ChatModel) -> None:
    asked = [[token] * (1 + token % 7) for token in range(40, 80)]
    given = answer(one, asked, Sampling(max_tokens=4))
    assert [entry.num_prompt_tokens for entry in given] == [len(prompt) for prompt in asked]
    for place in (0, 17, 39):
        assert [given[place]] == answer(one, [asked[place]], Sampling(max_tokens=4))


def test_no_prompts_have_no_answers(one: ChatModel) -> None:
    assert answer(one, []) == []


@pytest.mark.parametrize("count", [1, 2, 9])
def test_answers_are_cut_at_the_limit(one: ChatModel, count: int) -> None:
    (given,) = answer(one, prompts(one)[:1], Sampling(max_tokens=count))
    assert (len(given.tokens), given.finish) == (count, "length")


def test_an_answer_ends_at_a_token_that_ends_answers(one: ChatModel) -> None:
    (prompt, *_) = prompts(one)
    tokens = likeliest(one, prompt, 8)
    stops = replace(one, stop_ids=(399, tokens[5]))
    end = tokens.index(tokens[5])
    (given,) = answer(stops, [prompt], Sampling(max_tokens=8))
    assert (list(given.tokens), given.finish) == (tokens[:end], "stop")
    stream = stream_answer(stops, prompt, Sampling(max_tokens=8))
    assert ("".join(stream), stream.finish) == (given.text, "stop")
    assert stream.num_tokens == end


def test_an_answer_ends_before_a_stop_text(one: ChatModel) -> None:
    (prompt, *_) = prompts(one)
    (whole,) = answer(one, [prompt], Sampling(max_tokens=12))
    stop = whole.text[3:5]
    sampling = Sampling(max_tokens=12, stop=(stop,))
    (given,) = answer(one, [prompt], sampling)
    assert (given.text, given.finish) == (whole.text[: whole.text.find(stop)], "stop")
    stream = stream_answer(one, prompt, sampling)
    assert ("".join(stream), stream.finish) == (given.text, "stop")
    assert stream.num_tokens < 12


def test_streamed_pieces_joined_are_the_answer(model: ChatModel) -> None:
    for prompt in prompts(model):
        (given,) = answer(model, [prompt], Sampling(max_tokens=20))
        stream = stream_answer(model, prompt, Sampling(max_tokens=20))
        pieces = list(stream)
        assert "".join(pieces) == given.text
        assert (stream.finish, stream.num_tokens) == (given.finish, len(given.tokens))
        assert stream.num_prompt_tokens == len(prompt)
        assert all(pieces)


def test_the_same_seed_draws_the_same_answer_and_others_others(one: ChatModel) -> None:
    (prompt, *_) = prompts(one)
    drawn = [
        answer(one, [prompt], Sampling(max_tokens=12, temperature=1.0, seed=seed))[0].tokens
        for seed in (1, 1, 2, None, None)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_a_stream_draws_what_an_answer_draws(one: ChatModel) -> None:
    (prompt, *_) = prompts(one)
    sampling = Sampling(max_tokens=12, temperature=1.0, top_k=50, top_p=0.9, seed=5)
    (given,) = answer(one, [prompt], sampling)
    assert "".join(stream_answer(one, prompt, sampling)) == given.text


def test_a_seed_of_an_answer_leaves_other_draws_alone(one: ChatModel) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    answer(one, prompts(one)[:1], Sampling(max_tokens=3, temperature=1.0, seed=9))
    assert torch.equal(torch.rand(3), expected)


def test_one_token_to_draw_from_is_the_likeliest(one: ChatModel) -> None:
    (prompt, *_) = prompts(one)
    (greedy,) = answer(one, [prompt], Sampling(max_tokens=10))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        (drawn,) = answer(one, [prompt], Sampling(max_tokens=10, temperature=1.0, **narrow))
        assert drawn == greedy


def test_a_penalty_keeps_from_repeating(one: ChatModel) -> None:
    prompt = [50] * 6
    (plain,) = answer(one, [prompt], Sampling(max_tokens=30))
    (varied,) = answer(one, [prompt], Sampling(max_tokens=30, repetition_penalty=5.0))
    assert len(set(varied.tokens)) > len(set(plain.tokens))


def test_nothing_else_of_the_makers_settings_changes_an_answer(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", seed=3)
    expected = answer(load(folder), prompts(load(folder))[:2], Sampling(max_tokens=12))
    settings = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.1,
        "max_length": 20,
        "min_new_tokens": 3,
        "num_beams": 3,
        "no_repeat_ngram_size": 2,
        "suppress_tokens": [expected[0].tokens[0]],
        "num_return_sequences": 2,
        "return_dict_in_generate": True,
        "bos_token_id": 5,
        "use_cache": False,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    model = load(folder)
    adapted = replace(load(folder), model=add_lora(load(folder).model, LoRA(rank=2)).eval())
    for asked in (model, adapted):
        assert answer(asked, prompts(model)[:2], Sampling(max_tokens=12)) == expected
        stream = stream_answer(asked, prompts(model)[0], Sampling(max_tokens=12))
        assert "".join(stream) == expected[0].text
    assert model.model.generation_config.num_beams == 3


def test_cancelling_ends_the_work(one: ChatModel) -> None:
    before = threading.active_count()
    stream = stream_answer(one, [50], Sampling(max_tokens=200))
    next(iter(stream))
    stream.cancel()
    rest = list(stream)
    assert stream.num_tokens < 200
    assert len(rest) < 199
    wait_for_threads(before)


def test_leaving_a_stream_ends_the_work(one: ChatModel) -> None:
    before = threading.active_count()
    pieces = iter(stream_answer(one, [50], Sampling(max_tokens=200)))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_closing_a_stream_waits_until_the_model_rests(one: ChatModel) -> None:
    before = threading.active_count()
    stream = stream_answer(one, [50], Sampling(max_tokens=200))
    next(iter(stream))
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
    stream.close()


def test_closing_a_stream_that_never_began_is_fine(one: ChatModel) -> None:
    stream = stream_answer(one, [50], Sampling(max_tokens=5))
    stream.close()
    assert list(stream) == []


def test_what_goes_wrong_in_the_thread_is_raised_to_whoever_reads(one: ChatModel) -> None:
    before = threading.active_count()
    with pytest.raises(IndexError):
        list(stream_answer(one, [10**6], Sampling(max_tokens=5)))
    wait_for_threads(before)


def wait_for_threads(count: int) -> None:
    deadline = time.monotonic() + 5
    while threading.active_count() > count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_longest_text_is_known_by_every_name(model: ChatModel) -> None:
    assert max_positions(model) == 256


def test_a_prompt_that_fills_the_model_is_refused_at_once(model: ChatModel) -> None:
    for ask in (
        lambda prompt: answer(model, [[5], prompt]),
        lambda prompt: stream_answer(model, prompt, Sampling()),
    ):
        with pytest.raises(RequestError) as caught:
            ask([7] * 256)
        assert caught.value.message == (
            "the prompt has 256 tokens, the model takes 256 with its answer"
        )
        assert caught.value.hint == "shorten the messages"
        assert caught.value.where == "messages"


def test_an_empty_prompt_is_refused_at_once(one: ChatModel) -> None:
    for ask in (lambda: answer(one, [[]]), lambda: stream_answer(one, [], Sampling())):
        with pytest.raises(RequestError, match="the prompt is empty"):
            ask()


@pytest.mark.parametrize("temperature", [1e-40, 9e-6])
def test_next_to_no_temperature_is_none(one: ChatModel, temperature: float) -> None:
    cold, none = (
        answer(one, [[5, 60]], Sampling(max_tokens=8, temperature=degree))
        for degree in (temperature, 0.0)
    )
    assert cold == none


def test_answers_end_where_the_model_is_full(model: ChatModel) -> None:
    assert check_room(model, [7] * 250) == 6
    (given,) = answer(model, [[7] * 250], Sampling(max_tokens=50))
    stream = stream_answer(model, [7] * 250, Sampling(max_tokens=50))
    assert "".join(stream) == given.text
    assert (len(given.tokens), given.finish) == (6, "length")


def test_a_long_prompt_takes_no_room_from_others_of_its_batch(model: ChatModel) -> None:
    asked = [[7] * 250, [50], [60, 61], [8] * 240]
    together = answer(model, asked, Sampling(max_tokens=30))
    assert together == [answer(model, [prompt], Sampling(max_tokens=30))[0] for prompt in asked]
    assert [len(given.tokens) for given in together] == [6, 30, 30, 16]


def test_a_model_without_a_template_cannot_be_asked(tmp_path: Path) -> None:
    model = load(tiny.make_model(tmp_path / "base", template=None))
    with pytest.raises(ModelError, match="has no chat template") as caught:
        encode_prompt(model, [{"role": "user", "content": "hello"}])
    assert "model.template" in caught.value.hint
    (given,) = answer(model, [model.tokenizer.encode("the quick")], Sampling(max_tokens=3))
    assert given.tokens


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"temperature": -1.0}, {"stop": ("",)}])
def test_options_that_mean_nothing_are_refused_at_once(
    one: ChatModel, options: dict[str, Any]
) -> None:
    with pytest.raises(RequestError):
        answer(one, [[5]], Sampling(**options))
    with pytest.raises(RequestError):
        stream_answer(one, [5], Sampling(**options))
