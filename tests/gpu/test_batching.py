"""On a GPU many answers at once are those that transformers writes there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.asking import PROMPTS, Ear, ask, assert_same
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.models.chat import ChatModel, load_chat_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
LONG = [3 + number * 7 % 380 for number in range(200)]


@pytest.mark.parametrize("shape", ["qwen3", "llama", "mistral"])
def test_answers_in_a_mixed_batch_are_those_of_transformers(tmp_path: Path, shape: str) -> None:
    model = load(tmp_path / "model", shape)
    prompts = [*PROMPTS, LONG]
    expected = [reference(model, prompt) for prompt in prompts]
    engine = BatchingEngine(model, rows=4, memory=1.0)
    engine._batch.chunk = 64
    ears: list[Ear] = []
    for prompt in prompts:
        ears.append(ask(engine, prompt, max_tokens=32))
        ears[0].begun.wait(60)
    for prompt, ear, theirs in zip(prompts, ears, expected, strict=True):
        assert_same(model, prompt, ear.tokens(), theirs)
    again = ask(engine, LONG, max_tokens=32).tokens()
    assert engine._batch.prefixes.num_found == 192
    assert_same(model, LONG, again, expected[-1])
    drawn = {"max_tokens": 20, "temperature": 1.0, "top_p": 0.9, "seed": 3, "logprobs": 2}
    first, others = ask(engine, PROMPTS[0], **drawn), ask(engine, PROMPTS[1], max_tokens=20)
    assert ask(engine, PROMPTS[0], **drawn).tokens() == first.tokens()
    others.tokens()
    engine.close()


def load(folder: Path, shape: str) -> ChatModel:
    tiny.make_model(folder, shape, seed=3, initializer_range=0.2)
    return replace(load_chat_model(folder, precision="fp32", device="cuda"), stop_ids=())


def reference(model: ChatModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt], device="cuda")
    written = model.model.generate(  # type: ignore[operator]
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False
    )
    tokens: list[int] = written[0, len(prompt) :].tolist()
    return tokens
