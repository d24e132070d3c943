"""Positions that turn by a text's length turn as they would for that text alone, in a new model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.asking import load
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.inference.batching.weights import OtherModel, take_weights
from tunesmith.inference.generate import answer, max_positions, stream_answer
from tunesmith.inference.sampling import Sampling
from tunesmith.methods.batches import count_tokens, join, joining_of, lay_end_to_end, split_answers
from tunesmith.methods.learned import answer_logps
from tunesmith.methods.method import Joining
from tunesmith.methods.next_token import next_token_loss
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model
from tunesmith.models.rope_by_length import turns_by_length

SHORT = 16
"""Tokens of the longest text that no model here stretches."""
DYNAMIC: dict[str, Any] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": SHORT,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
}
STILL = {"rope_type": "default", "rope_theta": 1e4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_parameters": DYNAMIC}),
    "half of a head": (
        "glm",
        {"rope_parameters": {**DYNAMIC, "partial_rotary_factor": 0.5}},
    ),
    "by kind of layer": (
        "gemma3",
        {"rope_parameters": {"full_attention": DYNAMIC, "sliding_attention": STILL}},
    ),
    "complex": ("DeepSeek 2", {"rope_parameters": DYNAMIC}),
    "padded": ("masked", {"rope_parameters": DYNAMIC}),
    "longrope": ("Phi 3, 4", {"rope_parameters": LONG, "max_position_embeddings": 64}),
}
LENGTHS = (40, 9, 64, 17, 16)
CPU: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}


def make(folder: Path, case: str) -> Path:
    shape, changes = CASES[case]
    given = {"max_position_embeddings": SHORT, "initializer_range": 0.2, **changes}
    return tiny.make_model(folder, shape, **given)


def new_model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).train()


def rows() -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    made = [torch.randint(3, 400, (length,), generator=draw).tolist() for length in LENGTHS]
    return [{"input_ids": ids, "labels": ids} for ids in made]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_learned_as_by_a_new_model_that_sees_it_alone(
    tmp_path: Path, case: str
) -> None:
    folder = make(tmp_path / "m", case)
    ours: Any = load_model(folder, **CPU).train()
    assert find_layout(ours).is_flat is (case != "padded")
    summed = next_token_loss(ours, join(rows(), joining_of(ours))).total
    summed.backward()
    total, expected = 0.0, dict.fromkeys(gradients(ours), torch.zeros(()))
    for row in rows():
        theirs = new_model(folder)
        ids = torch.tensor([row["input_ids"]])
        loss = cross_entropy(theirs(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        loss.backward()
        total += float(loss.detach())
        expected = {name: expected[name] + grad for name, grad in gradients(theirs).items()}
    assert float(summed.detach()) == pytest.approx(total, rel=1e-6)
    for name, grad in gradients(ours).items():
        assert torch.allclose(grad, expected[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("case", ["llama", "longrope"])
def test_what_stands_beside_or_came_before_changes_no_bit(tmp_path: Path, case: str) -> None:
    model: Any = load_model(make(tmp_path / "m", case), **CPU).eval()
    find_layout(model)
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows()]
        again = [model(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows()]
        padded = join(rows(), Joining(flat=False, shared=False))
    assert all(torch.equal(one, other) for one, other in zip(alone, again, strict=True))
    places = (padded["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    turns, x = model.model.rotary_emb, torch.zeros(1)
    together = turns(x, places)[0]
    for place, length in enumerate(LENGTHS):
        own = turns(x, torch.arange(length)[None])[0]
        assert torch.equal(together[place, :length], own[0])


@torch.no_grad()
def test_two_answers_come_each_with_its_own_question(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", "llama")
    ours = load_model(folder, **CPU).eval()
    how, ids = joining_of(ours), torch.randint(3, 400, (70,)).tolist()
    assert not how.shared
    labels = [UNLEARNED] * 20 + ids[20:]
    pairs = [{"input_ids": ids, "labels": labels, "answers": [20, 60]}]
    batch = join(pairs, how)
    assert count_tokens(pairs[0], how) == batch["input_ids"].numel() == 60 + 30
    found = answer_logps(ours, batch)
    for place, text in enumerate(split_answers(pairs[0])):
        theirs = new_model(folder).eval()
        given = torch.tensor([text["input_ids"]])
        logps = theirs(input_ids=given).logits[0, :-1].log_softmax(dim=-1)
        own = logps.gather(1, given[0, 1:, None])[19:].sum()
        assert float(found[0, place]) == pytest.approx(float(own), rel=1e-6)
    sharing = answer_logps(ours, lay_end_to_end(pairs))
    assert not torch.allclose(found, sharing, rtol=1e-6)  # the question alone tells no length


def test_answers_are_those_of_transformers_whoever_asked_before(tmp_path: Path) -> None:
    model = load(tmp_path / "m", "llama", max_position_embeddings=SHORT, rope_parameters=DYNAMIC)
    assert turns_by_length(model.model)
    assert max_positions(model) == 4 * SHORT
    prompts = [[7, 40, 301], list(range(20, 50)), list(range(100, 220, 3))]
    expected = []
    for prompt in prompts:
        theirs = new_model(tmp_path / "m").eval()
        ids = torch.tensor([prompt])
        room = min(30, 4 * SHORT - len(prompt))
        written = theirs.generate(input_ids=ids, max_new_tokens=room, do_sample=False)
        expected.append(written[0, len(prompt) :].tolist())
    greedy = Sampling(max_tokens=30, temperature=0.0)
    together = [list(one.written) for one in answer(model, prompts, greedy)]
    assert [a[: len(b)] for a, b in zip(together, expected, strict=True)] == expected
    for prompt, theirs in zip(reversed(prompts), reversed(expected), strict=True):
        stream = stream_answer(model, prompt, greedy)
        list(stream)
        assert stream.tokens == [token for token in theirs if token not in model.stop_ids]
    with pytest.raises(OtherModel, match="dynamic"):
        take_weights(model.model)
