"""A reward model: the loss by hand, scores of texts alone, the same gradient in any batches."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.unit.methods.test_dpo import check_same, gradients, pairs
from tunesmith.errors import ModelError
from tunesmith.methods import build_method
from tunesmith.methods.batches import count_tokens, split_update
from tunesmith.methods.method import Joining
from tunesmith.methods.reward import answer_scores, reward_loss
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model, load_scorer
from tunesmith.models.score import find_score
from tunesmith.models.tuning import add_lora, apply_tuning
from tunesmith.recipe.method import Reward
from tunesmith.recipe.tuning import Freeze, LoRA

METHOD = build_method(Reward(center_rewards=0.1))
CPU = torch.device("cpu")
SHAPES = ("qwen3", "untied", "llama", "mistral", "gemma2", "gpt2", "bloom")
SINGLE = ((5, 3, 9), (1, 4, 2), (12, 7, 8), (2, 1, 6))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    made = {}
    for shape in SHAPES:
        folder = tiny.make_model(root / shape, shape)
        torch.manual_seed(1)
        made[shape] = load_scorer(folder, dtype=torch.float32, device=CPU, new_head=True).eval()
        torch.nn.init.normal_(made[shape].score.weight)
    return made


def alone(model: Any, row: dict[str, Any]) -> list[torch.Tensor]:
    """What transformers' own forward makes of each text by itself."""
    first, second = row["answers"]
    ids = row["input_ids"]
    texts = (ids[:second], ids[:first] + ids[second:])
    return [model(input_ids=torch.tensor([text])).logits[0, 0] for text in texts]


def test_the_loss_by_hand() -> None:
    rewards = torch.tensor([[0.3, 0.1], [-1.0, 2.0]])
    plain = [math.log1p(math.exp(-0.2)), math.log1p(math.exp(3.0))]
    assert reward_loss(rewards).tolist() == pytest.approx(plain)
    centred = [plain[0] + 0.01 * 0.16, plain[1] + 0.01]
    assert reward_loss(rewards, center=0.01).tolist() == pytest.approx(centred)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tuned", ["full", "lora"])
@pytest.mark.parametrize("flat", [True, False])
def test_scores_and_gradients_are_those_of_texts_alone(
    models: dict[str, Any], shape: str, tuned: str, flat: bool
) -> None:
    model, rows = models[shape], pairs(SINGLE)
    if tuned == "lora":
        model = add_lora(copy.deepcopy(model), LoRA(rank=2)).eval()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
    if flat and not find_layout(model).is_flat:
        assert shape == "bloom"
        return
    expected = torch.stack([torch.stack(alone(model, row)) for row in rows])
    batch = METHOD.collate(rows, Joining(flat=flat, coarse=flat))
    torch.testing.assert_close(answer_scores(model, batch), expected, rtol=1e-4, atol=1e-5)
    summed = METHOD.loss(model, batch)
    assert summed.count == len(rows)
    found = gradients(model, summed.total)
    wanted = gradients(model, reward_loss(expected, center=0.1).sum())
    assert any("score" in name for name in found)
    check_same(found, wanted, floor=1e-6)


@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5
    ),
    tokens=st.integers(1, 60),
    flat=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_pairs_in_any_batches_give_the_same_gradient(
    models: dict[str, Any], sizes: list[tuple[int, int, int]], tokens: int, flat: bool
) -> None:
    model, rows, how = models["mistral"], pairs(tuple(sizes)), Joining(flat=flat)
    whole = METHOD.loss(model, METHOD.collate(rows, Joining(flat=True)))
    lengths = [count_tokens(row, how) for row in rows]
    parts = split_update(lengths, tokens=tokens, flat=flat)
    split = sum(METHOD.loss(model, METHOD.collate(rows[part], how)).total for part in parts)
    check_same(gradients(model, split), gradients(model, whole.total), floor=1e-6)


def test_what_is_watched(models: dict[str, Any]) -> None:
    batch = METHOD.collate(pairs(), Joining(flat=True))
    summed = METHOD.loss(models["qwen3"], batch)
    scores = answer_scores(models["qwen3"], batch)
    watched = {name: float(value) / summed.count for name, value in summed.measures.items()}
    assert watched == {
        "rewards_chosen": pytest.approx(scores[:, 0].mean().item()),
        "rewards_rejected": pytest.approx(scores[:, 1].mean().item()),
        "rewards_margin": pytest.approx((scores[:, 0] - scores[:, 1]).mean().item()),
        "rewards_accuracy": pytest.approx((scores[:, 0] > scores[:, 1]).float().mean().item()),
    }


def test_the_head_is_trained_whatever_the_tuning(models: dict[str, Any]) -> None:
    for tuning in (LoRA(rank=2), Freeze(layers=1)):
        model = apply_tuning(copy.deepcopy(models["llama"]), tuning)
        head = find_score(model)
        assert head is not None
        assert any(weight.requires_grad for weight in head.parameters()), tuning


def test_a_new_head_is_drawn_from_the_seed_over_a_language_model_only(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", "untied")
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model: Any = load_scorer(folder, dtype=torch.float32, device=CPU, new_head=True)
        heads.append(model.score.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    with pytest.raises(ModelError, match=r"tensors are missing: score\.weight"):
        load_scorer(folder, dtype=torch.float32, device=CPU)
    model.save_pretrained(str(tmp_path / "scorer"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "scorer" / name).write_bytes((folder / name).read_bytes())
    again: Any = load_scorer(tmp_path / "scorer", dtype=torch.float32, device=CPU, new_head=True)
    assert torch.equal(again.score.weight, heads[2])
    with pytest.raises(ModelError, match="this is a reward model"):
        load_model(tmp_path / "scorer", dtype=torch.float32, device=CPU)


def test_a_family_that_cannot_score_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", "mamba")
    with pytest.raises(ModelError, match="no model of the architecture 'mamba' that scores"):
        load_scorer(folder, dtype=torch.float32, device=CPU, new_head=True)
