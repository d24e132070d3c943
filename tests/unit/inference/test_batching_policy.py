"""A model that learns meanwhile writes with the weights it has at that moment."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.asking import PROMPTS, assert_same
from tunesmith.errors import NoOdds
from tunesmith.inference.batching.build import build_writer
from tunesmith.inference.batching.engine import CHUNK_OF_CPU
from tunesmith.inference.batching.forward import Forward
from tunesmith.inference.batching.policy import PolicyWriter
from tunesmith.inference.batching.shelves import Shelves
from tunesmith.inference.engine import Writer
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, as_chat_model
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import load_roles
from tunesmith.recipe.load import build_recipe

GREEDY = Sampling(max_tokens=20)
LORA = {"kind": "lora", "rank": 4}
TUNINGS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "patterns": {
        **LORA,
        "rslora": True,
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"up_proj": 3},
        "target_pattern": r".*\.(q_proj|v_proj|up_proj|o_proj)|lm_head",
    },
    "pissa": {**LORA, "init": "pissa", "freeze_a": True},
    "full": {"kind": "full"},
    "freeze": {"kind": "freeze", "layers": 1},
}


OTHERS = ("patterns", "pissa", "freeze")


def policy(
    folder: Path,
    shape: str = "qwen3",
    tuning: dict[str, Any] = LORA,
    precision: str = "fp32",
    **method: Any,
) -> ChatModel:
    """Load a policy as a run does, its adapter no longer zero."""
    torch.set_num_threads(1)
    tiny.make_model(folder, shape, seed=3, initializer_range=0.2)
    recipe = build_recipe(
        {
            "model": {"name": str(folder)},
            "data": {"train": ["none"]},
            "method": {"name": "grpo", "rewards": "json", **method},
            "tuning": tuning,
            "compute": {"device": "cpu", "precision": precision},
        }
    )
    reader = find_reader(folder, None)
    torch.manual_seed(1)
    model = load_roles(recipe, reader).policy.eval()
    learn(model)
    return as_chat_model("policy", model, reader)


def learn(model: torch.nn.Module) -> None:
    """Change what learns, as an optimizer does."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)


def answers(writer: Writer, prompts: Sequence[Sequence[int]] = PROMPTS) -> list[list[int]]:
    return [list(given.tokens) for given in writer.write(prompts, GREEDY)]


@pytest.mark.parametrize(
    "tuning",
    ["lora", "full", *(pytest.param(each, marks=pytest.mark.proof) for each in OTHERS)],
)
def test_it_writes_what_transformers_writes_before_and_after_a_step(
    tmp_path: Path, tuning: str
) -> None:
    model = policy(tmp_path / "model", "untied", TUNINGS[tuning])
    writer, why = build_writer(model, torch.float32, rows=3)
    assert isinstance(writer, PolicyWriter), why
    slow = OwnModel(model, rows=4)
    before = answers(writer)
    for prompt, ours, theirs in zip(PROMPTS, before, answers(slow), strict=True):
        assert_same(model, prompt, ours, theirs)
    learn(model.model)
    after = answers(writer)
    assert after != before
    for prompt, ours, theirs in zip(PROMPTS, after, answers(slow), strict=True):
        assert_same(model, prompt, ours, theirs)


@pytest.mark.parametrize(
    "shape",
    ["qwen2", *(pytest.param(each, marks=pytest.mark.proof) for each in ("llama", "mistral"))],
)
def test_every_family_writes_with_an_adapter(tmp_path: Path, shape: str) -> None:
    model = policy(tmp_path / "model", shape)
    writer, why = build_writer(model, torch.float32, rows=8)
    assert isinstance(writer, PolicyWriter), why
    theirs = answers(OwnModel(model, rows=4))
    for prompt, ours, other in zip(PROMPTS, answers(writer), theirs, strict=True):
        assert_same(model, prompt, ours, other)


@pytest.mark.parametrize("tuning", ["lora", pytest.param("full", marks=pytest.mark.proof)])
def test_training_goes_on_with_the_weights_that_write(tmp_path: Path, tuning: str) -> None:
    model = policy(tmp_path / "model", tuning=TUNINGS[tuning])
    weights = dict(model.model.named_parameters())
    where = {name: weight.data_ptr() for name, weight in weights.items() if weight.requires_grad}
    writer = PolicyWriter(model, torch.float32, rows=4)
    writer.write(PROMPTS, GREEDY)
    assert all(weights[name].data_ptr() == place for name, place in where.items())
    ids = torch.tensor([PROMPTS[0]])
    loss = model.model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert all(weights[name].grad is not None for name in where)
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    held = sum(
        {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in frozen}.values()
    )
    assert held == sum(weight.nbytes for weight in frozen)  # no copy of any


def test_nothing_is_held_between_two_rollouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    reserve = Shelves.reserve

    def noted(self: Shelves, tokens: int, slots: int) -> None:
        reserve(self, tokens, slots)
        (shelf,) = self.by_length.values()
        kept.append(weakref.ref(shelf.kept))
        assert (shelf.room, shelf.length) == (3, 152)  # the longest prompt and answer, for three

    monkeypatch.setattr(Shelves, "reserve", noted)
    prompts = [*PROMPTS, list(range(3, 133))]
    writer = PolicyWriter(policy(tmp_path / "model"), torch.float32, rows=3)
    writer.write(prompts, GREEDY)
    writer.write(prompts, GREEDY)
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_draws_depend_on_the_seed_and_the_place_whatever_else_is_in_work(tmp_path: Path) -> None:
    model = policy(tmp_path / "model")
    drawn = Sampling(max_tokens=12, temperature=1.0, seed=11)
    asked = [prompt for prompt in PROMPTS for _ in range(6)]
    all_at_once, in_turns = (
        PolicyWriter(model, torch.float32, rows=rows).write(asked, drawn) for rows in (64, 2)
    )
    assert [one.tokens for one in all_at_once] == [one.tokens for one in in_turns]
    assert len({one.tokens for one in all_at_once}) == len(asked)
    writer = PolicyWriter(model, torch.float32, rows=64)
    again = writer.write(asked[:7], drawn)
    assert again == all_at_once[:7]
    other = writer.write(asked, Sampling(max_tokens=12, temperature=1.0, seed=12))
    assert all(one.tokens != two.tokens for one, two in zip(other, all_at_once, strict=True))


def test_a_question_that_is_answered_several_times_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, read = policy(tmp_path / "model"), []
    forward = Forward.__call__

    def counted(self: Forward, step: Any) -> torch.Tensor:
        read.append(len(step.tokens))
        return forward(self, step)

    monkeypatch.setattr(Forward, "__call__", counted)
    prompts = [random.Random(seed).choices(range(3, 390), k=200) for seed in range(4)]
    asked = [prompt for prompt in prompts for _ in range(8)]
    said = PolicyWriter(model, torch.float32, rows=32).write(asked, Sampling(max_tokens=2))
    written = sum(len(one.written) for one in said)
    assert sum(read) == 4 * 200 + 28 * 8 + written - len(asked)
    assert max(read) <= CHUNK_OF_CPU + len(asked)
    for place in range(0, 32, 8):
        assert len({one.tokens for one in said[place : place + 8]}) == 1
        theirs = answers(OwnModel(model, rows=4), [asked[place]])[0][:2]
        assert_same(model, asked[place], list(said[place].tokens), theirs)


def test_a_question_that_is_answered_by_nothing_is_asked_again_all_the_same(tmp_path: Path) -> None:
    model = policy(tmp_path / "model")
    (first, *_), *_ = answers(OwnModel(model, rows=4))
    model = replace(model, stop_ids=(first,))
    writer = PolicyWriter(model, torch.float32, rows=4)
    asked = [PROMPTS[0]] * 3
    told = [(given.tokens, given.finish, given.end) for given in writer.write(asked, GREEDY)]
    assert told == [((), "stop", first)] * 3


@pytest.mark.parametrize(
    ("shape", "tuning", "why"),
    [
        ("gpt2", LORA, "GPT2LMHeadModel is none of llama"),
        ("qwen3", {**LORA, "dora": True}, "does more than add a product"),
        ("qwen3", {**LORA, "tokens": ["<|im_end|>"]}, "is a TrainableTokens"),
        ("untied", {**LORA, "modules": ["embed_tokens"]}, "is a ModulesToSaveWrapper"),
        ("qwen3", {"kind": "ia3"}, "is a "),
    ],
)
def test_what_it_cannot_read_transformers_writes(
    tmp_path: Path, shape: str, tuning: dict[str, Any], why: str
) -> None:
    model = policy(tmp_path / "model", shape, tuning)
    writer, said = build_writer(model, torch.float32, rows=4)
    assert isinstance(writer, OwnModel)
    assert why in said
    assert len(answers(writer)) == len(PROMPTS)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_in_16_bits_it_expects_what_training_expects(
    tmp_path: Path, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that learn stay in fp32, and what is added to the rows of their layers too."""
    model = policy(tmp_path / "model", tuning=TUNINGS[tuning], precision="bf16")
    exact = policy(tmp_path / "model", tuning=TUNINGS[tuning])
    found: list[torch.Tensor] = []
    forward = Forward.__call__

    def noted(self: Forward, step: Any) -> torch.Tensor:
        logits = forward(self, step)
        found.append(logits)
        return logits

    monkeypatch.setattr(Forward, "__call__", noted)
    prompt = PROMPTS[1]
    with torch.autocast("cpu", torch.bfloat16):
        PolicyWriter(model, torch.bfloat16, rows=4).write([prompt], Sampling(max_tokens=1))
        with torch.no_grad():
            theirs = model.model(input_ids=torch.tensor([prompt])).logits[0, -1].float()
    with torch.no_grad():
        truth = exact.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    (logits,) = found
    assert logits.dtype == torch.bfloat16
    error, their_error = (float((each - truth).norm()) for each in (logits[0].float(), theirs))
    assert error < 1.5 * their_error + 1e-3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_odds_that_are_no_numbers_are_told(tmp_path: Path, temperature: float) -> None:
    model = policy(tmp_path / "model")
    writer = PolicyWriter(model, torch.float32, rows=4)
    weight = next(weight for weight in model.model.parameters() if weight.requires_grad)
    weight.data.fill_(float("nan"))
    with pytest.raises(NoOdds, match="not a number"):
        writer.write(PROMPTS, Sampling(max_tokens=3, temperature=temperature))
