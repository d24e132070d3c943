"""Answers written many at once are those that each would have had alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests import tiny
from tunesmith.errors import RequestError
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.batching.weights import OtherModel, take_weights
from tunesmith.inference.engine import Piece, Request, Work
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model

PROMPTS = [[7, 40, 301], list(range(20, 65)), [99], list(range(100, 230, 3))]
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
    "dynamic": ("qwen2", {"rope_parameters": {**STRETCHED, "rope_type": "dynamic", "factor": 8.0}}),
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
NEAR = 1e-4
"""Logits so close that rounding decides between them."""


class Ear:
    """Somebody who hears an answer."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.problem: Exception | None = None
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, told: Piece | Exception) -> None:
        if isinstance(told, Exception):
            self.problem = told
        else:
            self.pieces.append(told)
        self.begun.set()
        if isinstance(told, Exception) or told.finish:
            self.over.set()

    def tokens(self) -> list[int]:
        """Wait for the end, and return what was written."""
        assert self.over.wait(60)
        if self.problem:
            raise self.problem
        return [token.id for piece in self.pieces for token in piece.tokens]

    def text(self) -> str:
        self.tokens()
        return "".join(piece.text for piece in self.pieces)


def load(folder: Path, shape: str, **changes: Any) -> ChatModel:
    torch.set_num_threads(1)
    tiny.make_model(folder, shape, seed=3, initializer_range=0.2, **changes)
    return load_chat_model(folder, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model that never ends by itself."""
    return replace(load(tmp_path_factory.mktemp("models") / "one", "qwen3"), stop_ids=())


@pytest.fixture
def engine(one: ChatModel) -> Any:
    made = BatchingEngine(one, rows=8, memory=0.05)
    yield made
    made.close()


def ask(engine: BatchingEngine, prompt: Sequence[int], **sampling: Any) -> Ear:
    return begin(engine, prompt, **sampling)[0]


def begin(engine: BatchingEngine, prompt: Sequence[int], **sampling: Any) -> tuple[Ear, Work]:
    ear = Ear()
    return ear, engine.start(Request(prompt, Sampling(**sampling)), ear)


def reference(model: ChatModel, prompt: Sequence[int], count: int) -> list[int]:
    """Let transformers write the likeliest tokens."""
    ids = torch.tensor([list(prompt)])
    written = model.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=list(model.stop_ids) or None,
        pad_token_id=0,
    )
    tokens: list[int] = written[0, len(prompt) :].tolist()
    return [token for token in tokens if token not in model.stop_ids]


def assert_same(
    model: ChatModel, prompt: Sequence[int], ours: list[int], theirs: list[int]
) -> None:
    """Compare answers; they may part where two logits are nearly the same."""
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            ids = torch.tensor([[*prompt, *ours[:place]]])
            with torch.no_grad():
                best = model.model(input_ids=ids).logits[0, -1].topk(2).values
            assert best[0] - best[1] < NEAR, (place, ours, theirs)
            print(f"a near tie after {place} tokens: {best[0] - best[1]:.1e}")
            return
    assert len(ours) == len(theirs)


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


def wait_until_idle(engine: BatchingEngine) -> None:
    waited = threading.Event()
    for _ in range(500):
        if not (engine.load().running or engine.load().waiting):
            return
        waited.wait(0.01)
    raise AssertionError(engine.load())


def test_a_failing_step_is_told_to_all_and_the_engine_lives_on(
    engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, fails = type(engine._batch.forward).__call__, [True]

    def failing(self: Any, step: Any) -> torch.Tensor:
        if fails[0]:
            raise RuntimeError("out of something")
        return forward(self, step)

    monkeypatch.setattr(type(engine._batch.forward), "__call__", failing)
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
    with pytest.raises(RequestError, match="failed 3 times on end: out of something"):
        ask(engine, PROMPTS[0], max_tokens=4)


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


class Spelled:
    """The form of an answer that must be these tokens."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.place = list(ids), 0

    def mask(self) -> torch.Tensor:
        allowed = torch.zeros(390, dtype=torch.bool)
        allowed[self.ids[self.place]] = True
        return allowed

    def take(self, token: int) -> None:
        assert token == self.ids[self.place]
        self.place += 1

    def is_over(self) -> bool:
        return self.place == len(self.ids)


def test_a_form_that_fails_ends_its_answer_alone(engine: BatchingEngine) -> None:
    ear, fine = Ear(), ask(engine, PROMPTS[1], max_tokens=9)
    form = Spelled([5, 6])
    form.take = lambda token: None  # type: ignore[method-assign]  # it never goes on
    form.is_over = lambda: 1 / 0 > 1  # type: ignore[method-assign]
    engine.start(Request(PROMPTS[0], Sampling(max_tokens=9), form=form), ear)
    with pytest.raises(ZeroDivisionError):
        ear.tokens()
    assert len(fine.tokens()) == 9


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


def test_models_with_something_else_in_them_are_told_apart(tmp_path: Path) -> None:
    for shape in ("gemma2", "glm", "granite", "gpt2"):
        model = load(tmp_path / shape, shape)
        with pytest.raises(OtherModel, match="is none of llama, mistral, qwen2, qwen3"):
            take_weights(model.model)
    model = load(tmp_path / "hooked", "llama")
    model.model.model.layers[0].register_forward_hook(lambda *_: None)  # type: ignore[index,union-attr]
    with pytest.raises(OtherModel, match="something listens to model.layers.0"):
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
