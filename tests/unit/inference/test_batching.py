"""Answers written many at once are those that each would have had alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.asking import PROMPTS, Ear, Spelled, ask, assert_same, load, reference
from tunesmith.errors import RequestError
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.batching.weights import OtherModel, take_weights
from tunesmith.inference.engine import Request
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel

STRETCHED: dict[str, Any] = {"original_max_position_embeddings": 32, "rope_theta": 1e4}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "untied": ("untied", {}),
    "qwen2": ("qwen2", {}),
    "llama": ("llama", {}),
    "mistral": ("mistral", {}),
    "biased": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "mixed windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "yarn": ("qwen3", {"rope_parameters": {**STRETCHED, "rope_type": "yarn", "factor": 8.0}}),
    "linear": ("qwen3", {"rope_parameters": {**STRETCHED, "rope_type": "linear", "factor": 8.0}}),
    "llama3": (
        "llama",
        {
            "rope_parameters": {
                **STRETCHED,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            }
        },
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_in_a_mixed_batch_are_those_of_transformers(tmp_path: Path, shape: str) -> None:
    family, changes = SHAPES[shape]
    model = load(tmp_path / "model", family, **changes)
    count = 64 if shape == family else 24
    expected = [reference(model, prompt, count) for prompt in PROMPTS]
    assert len({tuple(each) for each in expected}) == len(PROMPTS)
    engine = BatchingEngine(model, rows=3)
    ears = []
    for prompt in PROMPTS:  # the last one waits for a place
        ears.append(ask(engine, prompt, max_tokens=count))
        ears[0].begun.wait(60)
    for prompt, ear, theirs in zip(PROMPTS, ears, expected, strict=True):
        assert_same(model, prompt, ear.tokens(), theirs)
    engine.close()
    assert reference(model, PROMPTS[1], 4) == expected[1][:4]  # its own layers still work


def test_a_long_prompt_is_read_in_parts_while_others_are_written(one: ChatModel) -> None:
    engine = BatchingEngine(one, rows=4)
    engine._batch.chunk = 40
    writing = ask(engine, PROMPTS[0], max_tokens=60)
    writing.begun.wait(60)
    long = random.Random(1).choices(range(3, 390), k=190)
    heard_before = len(writing.pieces)
    reading = ask(engine, long, max_tokens=20)
    reading.begun.wait(60)
    assert len(writing.pieces) >= min(heard_before + 3, 50)
    assert_same(one, long, reading.tokens(), reference(one, long, 20))
    assert_same(one, PROMPTS[0], writing.tokens(), reference(one, PROMPTS[0], 60))
    engine.close()


def test_a_short_prompt_waits_for_no_long_one_before_it(one: ChatModel) -> None:
    engine, heard = BatchingEngine(one, rows=4), []
    engine._batch.chunk = 64
    longs = [random.Random(seed).choices(range(3, 390), k=235) for seed in range(2)]
    ears = [Ear() for _ in range(3)]
    asked = [*longs, PROMPTS[0]]
    requests = [
        (
            Request(prompt, Sampling(max_tokens=9)),
            lambda told, n=n: (heard.append(n), ears[n](told)),
        )
        for n, prompt in enumerate(asked)
    ]
    engine._send(requests)  # type: ignore[arg-type]
    for prompt, ear in zip(asked, ears, strict=True):
        assert_same(one, prompt, ear.tokens(), reference(one, prompt, 9))
    assert list(dict.fromkeys(heard)) == [2, 0, 1]
    engine.close()


def test_a_prompt_may_end_one_token_after_a_part(one: ChatModel) -> None:
    engine = BatchingEngine(one, rows=4)
    engine._batch.chunk = 10
    for size in (10, 11, 21):
        prompt = list(range(30, 30 + size))
        assert_same(
            one, prompt, ask(engine, prompt, max_tokens=3).tokens(), reference(one, prompt, 3)
        )
    engine.close()


def test_texts_that_begin_alike_are_read_once_and_answered_the_same(engine: BatchingEngine) -> None:
    one = engine._model
    head = random.Random(2).choices(range(3, 390), k=100)
    first = ask(engine, [*head, 5, 6], max_tokens=40)
    written = first.tokens()
    found = engine._batch.prefixes.num_found
    assert found == 0
    again = ask(engine, [*head, 5, 6], max_tokens=40).tokens()
    assert engine._batch.prefixes.num_found == 96
    other = [*head[:70], 9, 8, 7]
    assert_same(one, other, ask(engine, other, max_tokens=20).tokens(), reference(one, other, 20))
    assert engine._batch.prefixes.num_found == 96 + 64
    assert_same(one, [*head, 5, 6], again, reference(one, [*head, 5, 6], 40))
    longer = [*head, 5, 6, *written, 11]  # a conversation goes on
    assert_same(one, longer, ask(engine, longer, max_tokens=8).tokens(), reference(one, longer, 8))
    assert engine._batch.prefixes.num_found == 96 + 64 + 128


def test_beginnings_that_were_not_used_for_longest_are_forgotten(engine: BatchingEngine) -> None:
    prefixes = engine._batch.prefixes
    prefixes.limit = 3 * 32 * engine._batch.forward.weights.token_bytes
    texts = [random.Random(seed).choices(range(3, 390), k=70) for seed in range(3)]
    for text in texts:
        ask(engine, text, max_tokens=2).tokens()
        assert prefixes.used <= prefixes.limit
    before = prefixes.num_found
    ask(engine, texts[0], max_tokens=2).tokens()
    assert prefixes.num_found == before
    ask(engine, texts[0], max_tokens=2).tokens()
    assert prefixes.num_found == before + 64


def test_a_seed_draws_the_same_whatever_else_is_written(engine: BatchingEngine) -> None:
    drawn = {"max_tokens": 30, "temperature": 1.0, "seed": 5}
    alone = ask(engine, PROMPTS[0], **drawn).tokens()
    others = [ask(engine, prompt, max_tokens=50, temperature=2.0) for prompt in PROMPTS]
    ears = [ask(engine, PROMPTS[0], **drawn) for _ in range(2)]
    other = ask(engine, PROMPTS[0], **{**drawn, "seed": 6})
    assert [ear.tokens() for ear in ears] == [alone, alone]
    assert other.tokens() != alone
    for ear in others:
        ear.tokens()


def test_prompts_that_are_written_to_together_draw_for_themselves(engine: BatchingEngine) -> None:
    sampling = Sampling(max_tokens=8, temperature=1.0, seed=4)
    said = engine.write([PROMPTS[0]] * 12, sampling)
    assert len({given.tokens for given in said}) == 12
    assert engine.write([PROMPTS[0]] * 12, sampling) == said
    assert engine.write([PROMPTS[0]] * 12, replace(sampling, seed=5)) != said
    assert engine.write([], sampling) == []


def test_texts_end_together_where_slots_and_windows_end(tmp_path: Path) -> None:
    model = load(tmp_path / "model", "mistral")
    engine = BatchingEngine(replace(model, stop_ids=()), rows=4)
    prompts = [random.Random(size).choices(range(3, 390), k=size) for size in (249, 245, 237)]
    said = engine.write(prompts, Sampling(max_tokens=20))
    endless = replace(model, stop_ids=())
    for prompt, given in zip(prompts, said, strict=True):
        theirs = reference(endless, prompt, min(20, 256 - len(prompt)))
        assert_same(endless, prompt, list(given.tokens), theirs)
    engine.close()


def test_of_a_text_that_is_too_long_to_keep_its_beginning_is_kept(engine: BatchingEngine) -> None:
    prefixes = engine._batch.prefixes
    prefixes.limit = 2 * 32 * engine._batch.forward.weights.token_bytes
    text = random.Random(3).choices(range(3, 390), k=130)
    for found in (0, 64, 128):
        ask(engine, text, max_tokens=2).tokens()
        assert prefixes.num_found == found


def test_texts_that_outgrow_their_slots_go_on(tmp_path: Path) -> None:
    model = load(tmp_path / "model", "llama", max_position_embeddings=1024)
    model = replace(model, stop_ids=())
    engine = BatchingEngine(model, rows=4)
    prompts = [random.Random(seed).choices(range(3, 390), k=248) for seed in range(3)]
    ears = [ask(engine, prompt, max_tokens=20) for prompt in prompts]
    for prompt, ear in zip(prompts, ears, strict=True):
        assert_same(model, prompt, ear.tokens(), reference(model, prompt, 20))
    assert {shelf.length for shelf in engine._batch.shelves.by_length.values()} == {256, 512}
    engine.close()


def test_without_room_the_youngest_waits_and_reads_again(tmp_path: Path) -> None:
    model = replace(load(tmp_path / "model", "llama", max_position_embeddings=1024), stop_ids=())
    engine = BatchingEngine(model, rows=4)
    shelves = engine._batch.shelves
    shelves.limit = 1000 * shelves.weights.token_bytes
    prompts = [random.Random(seed).choices(range(3, 390), k=250) for seed in range(3)]
    ears = [ask(engine, prompt, max_tokens=20) for prompt in prompts]
    for prompt, ear in zip(prompts, ears, strict=True):
        assert_same(model, prompt, ear.tokens(), reference(model, prompt, 20))
    assert shelves.used <= shelves.limit
    with pytest.raises(RequestError, match="no memory for a text of 1,020 tokens"):
        ask(engine, list(range(3, 373)) * 2 + list(range(3, 283)), max_tokens=2).tokens()
    engine.close()


def test_characters_come_whole_and_stop_texts_not_at_all(engine: BatchingEngine) -> None:
    tokenizer = engine._model.tokenizer
    ids = tokenizer.encode("龘靐 to 营业齉", add_special_tokens=False)
    assert len(ids) > 12  # of bytes
    ear = Ear()
    form = Spelled(ids)
    engine.start(Request(PROMPTS[0], Sampling(max_tokens=99), form=form), ear)
    assert ear.text() == "龘靐 to 营业齉"
    assert all("\ufffd" not in piece.text for piece in ear.pieces)
    assert ear.pieces[-1].finish == "stop"
    ear = Ear()
    stopped = Sampling(max_tokens=99, stop=("o 营",))
    engine.start(Request(PROMPTS[0], stopped, form=Spelled(ids)), ear)
    assert ear.text() == "龘靐 t"
    assert ear.pieces[-1].finish == "stop"


def test_models_with_something_else_in_them_are_told_apart(tmp_path: Path) -> None:
    for shape in ("gemma2", "glm", "granite", "gpt2"):
        model = load(tmp_path / shape, shape)
        with pytest.raises(OtherModel, match="is none of llama, mistral, qwen2, qwen3"):
            take_weights(model.model)
    model = load(tmp_path / "hooked", "llama")
    model.model.model.layers[0].register_forward_hook(lambda *_: None)  # type: ignore[index,union-attr]
    with pytest.raises(OtherModel, match=r"something listens to model\.layers\.0"):
        take_weights(model.model)
    model = load(tmp_path / "mixed", "llama")
    model.model.lm_head.half()  # type: ignore[operator,union-attr]
    with pytest.raises(OtherModel, match="several kinds"):
        take_weights(model.model)


def test_weights_are_held_once(tmp_path: Path) -> None:
    model = load(tmp_path / "model", "llama")
    weights = take_weights(model.model)
    attention = model.model.model.layers[1].self_attn  # type: ignore[index,union-attr]
    joined = weights.layers[1].qkv.weight
    assert attention.q_proj.weight.data_ptr() == joined.data_ptr()
    assert (
        attention.v_proj.weight.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()
    )
