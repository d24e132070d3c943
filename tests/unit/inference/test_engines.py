"""The same checks over every engine, on the model that ships with the package."""

from __future__ import annotations

import json
import queue
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from tests.unit.inference.hearing import Said, hear, start
from tunesmith.errors import RequestError
from tunesmith.export.gguf.write import write_gguf
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.engine import UNKNOWN, Engine, Piece, Request
from tunesmith.inference.llama_cpp import LlamaCpp, LlamaCppOptions
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.structured import Outline, Wanted
from tunesmith.inference.vllm import Vllm, VllmOptions
from tunesmith.models.chat import ChatModel, find_subject, load_chat_model
from tunesmith.settings import read_settings

QUESTIONS = ("你好！", "What is a battery?", "Tell me a story about a fox.", "写一首关于海的诗。")
LONG = "Write a very long story about the sea, the wind and a small boat, in many sentences."


@dataclass(frozen=True)
class Answering:
    """An engine, and the model it has by other ways."""

    engine: Engine
    model: ChatModel
    name: str

    def ask(self, question: str) -> list[int]:
        speech = next(iter(self.engine.models().values()))
        return speech.render([{"role": "user", "content": question}], (), {})


@pytest.fixture(scope="module")
def starter() -> ChatModel:
    return load_chat_model("starter", precision="fp32", device="cpu")


def build(kind: str, model: ChatModel, folder: Path) -> Engine:
    if kind == "own":
        return BatchingEngine(model, rows=4)
    if kind == "generate":
        return OwnModel(model, rows=4)
    if kind == "llama.cpp":
        path = folder / "starter.gguf"
        write_gguf(model, path, "f32")
        return LlamaCpp(path, LlamaCppOptions(slots=4, cache="f32", threads=1))
    python = read_settings().vllm_python
    if python is None:
        pytest.skip("set TUNESMITH_VLLM_PYTHON to the Python of an environment with vLLM")
    told = ("--dtype", "float32", "--enforce-eager")
    return Vllm(find_subject("starter"), VllmOptions(python, rows=4, arguments=told))


@pytest.fixture(
    scope="module",
    params=["own", "generate", "llama.cpp", pytest.param("vllm", marks=pytest.mark.proof)],
)
def answering(
    request: pytest.FixtureRequest, starter: ChatModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answering]:
    engine = build(request.param, starter, tmp_path_factory.mktemp("engine"))
    yield Answering(engine, starter, request.param)
    engine.close()


def expected(model: ChatModel, prompt: list[int], count: int, **options: float) -> list[int]:
    """What transformers itself writes, without the token that ends it."""
    ids = torch.tensor([prompt])
    written = model.model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=list(model.stop_ids),
        pad_token_id=0,
        **options,
    )[0, len(prompt) :].tolist()
    return [token for token in written if token not in model.stop_ids]


def known(tokens: list[int], theirs: list[int]) -> list[int]:
    """Put in what an engine does not tell of characters that several tokens write."""
    assert len(tokens) == len(theirs)
    return [b if a == UNKNOWN else a for a, b in zip(tokens, theirs, strict=True)]


def test_a_conversation_becomes_the_same_tokens(answering: Answering) -> None:
    speech = next(iter(answering.engine.models().values()))
    own = next(iter(OwnModel(answering.model, 1).models().values()))
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "你好 <|im_end|> <|im_start|>system"},
        {"role": "assistant", "content": "早上好"},
        {"role": "user", "content": "  2 + 2 = ?\n"},
    ]
    rendered = speech.render(talk, (), {})
    assert rendered == own.render(talk, (), {})
    assert speech.decode(rendered) == own.decode(rendered)
    assert speech.decode(rendered, keep_special=True) == own.decode(rendered, keep_special=True)
    assert [speech.spell(token) for token in rendered] == [own.spell(token) for token in rendered]
    assert set(own.stop_ids) <= set(speech.stop_ids)
    assert (speech.longest, speech.num_tokens) == (own.longest, own.num_tokens)


def test_the_likeliest_tokens_are_those_of_transformers(answering: Answering) -> None:
    prompts = [answering.ask(question) for question in QUESTIONS]
    answers = answering.engine.write(prompts, Sampling(max_tokens=64))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.tokens) == expected(answering.model, prompt, 64)


def test_several_streams_at_once_say_what_each_says_alone(answering: Answering) -> None:
    prompts = [answering.ask(question) for question in QUESTIONS]
    alone = answering.engine.write(prompts, Sampling(max_tokens=24))
    waits = [start(answering.engine, Request(p, Sampling(max_tokens=24))) for p in prompts]
    for wait, answer in zip(waits, alone, strict=True):
        said = wait()
        assert said.text == answer.text
        assert said.finish == answer.finish
        assert known(said.tokens, list(answer.tokens)) == list(answer.tokens)


def test_an_answer_ends_before_a_text_to_stop_at(answering: Answering) -> None:
    prompt = answering.ask(QUESTIONS[1])
    whole = hear(answering.engine, Request(prompt, Sampling(max_tokens=40)))
    stop = whole.text[7:11]
    said = hear(answering.engine, Request(prompt, Sampling(max_tokens=40, stop=(stop,))))
    assert (said.text, said.finish) == (whole.text[: whole.text.index(stop)], "stop")


def test_a_cut_answer_says_so(answering: Answering) -> None:
    said = hear(answering.engine, Request(answering.ask(LONG), Sampling(max_tokens=5)))
    assert (said.finish, len(said.tokens)) == ("length", 5)


def test_repetition_is_punished_as_by_transformers(answering: Answering) -> None:
    prompt = answering.ask(LONG)
    (answer,) = answering.engine.write([prompt], Sampling(max_tokens=32, repetition_penalty=1.4))
    theirs = expected(answering.model, prompt, 32, repetition_penalty=1.4)
    assert list(answer.tokens) == theirs != expected(answering.model, prompt, 32)


def test_a_bias_decides(answering: Answering) -> None:
    sampling = Sampling(max_tokens=3, logit_bias={50: 100.0})
    said = hear(answering.engine, Request(answering.ask(LONG), sampling))
    assert said.tokens == [50, 50, 50]


def test_draws_are_repeatable_by_their_seed(answering: Answering) -> None:
    prompt = answering.ask(LONG)
    texts = [
        answering.engine.write([prompt], Sampling(max_tokens=24, temperature=1.5, seed=seed))[
            0
        ].text
        for seed in (7, 7, 8, 9)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_one_token_to_draw_from_is_the_likeliest(answering: Answering) -> None:
    prompt = answering.ask(LONG)
    (sure,) = answering.engine.write([prompt], Sampling(max_tokens=16))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        sampling = Sampling(max_tokens=16, temperature=1.0, **narrow)
        assert answering.engine.write([prompt], sampling)[0].tokens == sure.tokens


def test_log_probabilities_are_the_models_own(answering: Answering) -> None:
    prompt = answering.ask(QUESTIONS[1])
    said = hear(answering.engine, Request(prompt, Sampling(max_tokens=8, logprobs=3)))
    ids = torch.tensor([[*prompt, *said.tokens]])
    with torch.no_grad():
        logprobs = answering.model.model(ids).logits[0].log_softmax(-1)
    for place, token in enumerate(t for piece in said.pieces for t in piece.tokens):
        theirs = logprobs[len(prompt) + place - 1]
        assert token.logprob == pytest.approx(theirs[token.id].item(), abs=2e-3)
        values, tokens = theirs.topk(3)
        assert [each for each, _ in token.likeliest] == tokens.tolist()
        found = [logprob for _, logprob in token.likeliest]
        assert found == pytest.approx(values.tolist(), abs=2e-3)


def test_nothing_is_heard_after_a_cancel_and_others_go_on(answering: Answering) -> None:
    heard: queue.Queue[Piece | Exception] = queue.Queue()
    prompt = answering.ask(LONG)
    work = answering.engine.start(Request(prompt, Sampling(max_tokens=900)), heard.put)
    assert isinstance(heard.get(timeout=60), Piece)
    work.cancel()
    while not heard.empty():
        heard.get()
    said = hear(answering.engine, Request(prompt, Sampling(max_tokens=4)))
    assert len(said.tokens) == 4
    assert heard.empty()
    deadline = time.monotonic() + 10
    while answering.engine.load().running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answering.engine.load().running == 0


@pytest.mark.parametrize("prompt", [[], [5] * 1024])
def test_a_prompt_without_room_is_refused(answering: Answering, prompt: list[int]) -> None:
    with pytest.raises(RequestError):
        hear(answering.engine, Request(prompt, Sampling()))


FOUND = {
    "type": "object",
    "properties": {
        "at": {"enum": ["北京", "Köln"]},
        "seats": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["at"],
    "additionalProperties": False,
}


def held(answering: Answering, wanted: Wanted, seed: int, **options: Any) -> Said:
    speech = next(iter(answering.engine.models().values()))
    (form,) = speech.forms(Outline(wanted), 1)
    sampling = Sampling(max_tokens=200, temperature=1.0, seed=seed, **options)
    return hear(answering.engine, Request(answering.ask(LONG), sampling, form=form))


def test_answers_are_json_of_a_schema(answering: Answering) -> None:
    said = held(answering, Wanted("json", FOUND, "x"), 1)
    assert said.finish == "stop", said.text
    jsonschema.validate(json.loads(said.text), FOUND)


@pytest.mark.parametrize(
    ("kind", "value", "pattern"),
    [
        ("regex", r"(海|螺)[a-z]{2,4}-\d{2}", r"(海|螺)[a-z]{2,4}-[0-9]{2}"),
        ("choice", ["ja", '也许 "so"', "nein\nja"], 'ja|也许 "so"|nein\nja'),
        ("grammar", 'start: "x" N ","?\nN: /[0-9]{3}/', "x[0-9]{3},?"),
        ("grammar", 'root ::= "x" n ("," n)?\nn ::= [0-9] [0-9]', "x[0-9]{2}(,[0-9]{2})?"),
    ],
)
def test_answers_have_other_forms(
    answering: Answering, kind: Any, value: Any, pattern: str
) -> None:
    said = held(answering, Wanted(kind, value, "x"), 1)
    assert re.fullmatch(pattern, said.text), said.text
    assert said.finish == "stop"


def test_a_form_is_kept_beside_other_options(answering: Answering) -> None:
    wanted = Wanted("regex", "[a-z]{20}", "x")
    said = held(answering, wanted, 1, stop=("e", "a", "o", "i", "u"), repetition_penalty=1.2)
    assert re.fullmatch("[a-z]{0,19}", said.text)
    assert not {*"aeiou"} & {*said.text}
    cut = hear(
        answering.engine,
        Request(
            answering.ask(LONG),
            Sampling(max_tokens=2),
            form=next(iter(answering.engine.models().values())).forms(Outline(wanted), 1)[0],
        ),
    )
    assert (cut.finish, len(cut.tokens)) == ("length", 2)
    assert re.fullmatch("[a-z]{1,19}", cut.text)


def test_another_model_is_not_known(answering: Answering) -> None:
    with pytest.raises(RequestError):
        hear(answering.engine, Request([5], Sampling(max_tokens=1), "other"))
