"""Direct preference optimization: the loss by hand, the question computed once, the gradient."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods import build_method
from tunesmith.methods.batches import count_tokens, split_update
from tunesmith.methods.dpo import dpo_loss
from tunesmith.methods.learned import answer_logps
from tunesmith.methods.method import Joining
from tunesmith.methods.ranks import Share
from tunesmith.methods.reference import reference_logps
from tunesmith.models.load import load_model
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.method import DPO
from tunesmith.recipe.tuning import LoRA

METHOD = build_method(DPO(beta=0.2))
HOW = Joining(flat=True)
SIZES = ((5, 3, 9), (1, 4, 2), (12, 7, 8), (0, 5, 6))
"""Tokens of question, preferred and rejected answer."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    cpu = torch.device("cpu")
    made = {**tiny.FAMILIES, "bloom": tiny.PADDED["bloom"]}
    return {
        shape: load_model(tiny.make_model(root / shape, shape), dtype=torch.float32, device=cpu)
        for shape in made
    }


def pairs(sizes: tuple[tuple[int, int, int], ...] = SIZES, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a question with two answers, all of each learned."""
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number, (question, chosen, rejected) in enumerate(sizes):
        size = question + chosen + rejected
        ids = torch.randint(1, 400, (size,), generator=draw).tolist()
        labels = [UNLEARNED] * question + ids[question:]
        answers = [question, question + chosen]
        reference = [-3.0 - number, -4.0]
        rows.append(
            {"input_ids": ids, "labels": labels, "answers": answers, "reference": reference}
        )
    return rows


def plainly(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """The loss of the paper's equation 7, every text alone through transformers."""
    total = torch.zeros(())
    for row in rows:
        first, second = row["answers"]
        ids = row["input_ids"]
        logps = []
        for text in (ids[:second], ids[:first] + ids[second:]):
            given_ = torch.tensor([text])
            logits = model(input_ids=given_).logits[0].float().log_softmax(-1)
            learned = range(max(first, 1), len(text))
            logps.append(sum(logits[at - 1, text[at]] for at in learned))
        ratios = [found - known for found, known in zip(logps, row["reference"], strict=True)]
        total = total - torch.nn.functional.logsigmoid(0.2 * (ratios[0] - ratios[1]))
    return total


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def check_same(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], floor: float = 1e-8
) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(torch.linalg.vector_norm(one)) for one in expected.values())
    for name, one in expected.items():
        norm = torch.linalg.vector_norm(one)
        assert torch.linalg.vector_norm(found[name] - one) <= 1e-5 * norm + floor * largest, name


@pytest.mark.parametrize("shape", tiny.FAMILIES)
@pytest.mark.parametrize("tuned", ["full", "lora"])
@pytest.mark.parametrize("flat", [True, False])
def test_loss_and_gradient_are_those_of_texts_alone(
    models: dict[str, Any], shape: str, tuned: str, flat: bool
) -> None:
    model = models[shape].eval()
    if tuned == "lora":
        mixed = shape in ("routed", "mixture")
        options = LoRA(rank=2, targets=("q_proj", "v_proj")) if mixed else LoRA(rank=2)
        model = add_lora(copy.deepcopy(model), options).eval()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
    expected = plainly(model, pairs())
    summed = METHOD.loss(model, METHOD.collate(pairs(), Joining(flat=flat)))
    assert summed.count == len(SIZES)
    assert summed.total.item() == pytest.approx(expected.item(), rel=1e-6)
    check_same(gradients(model, summed.total), gradients(model, expected))


@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 9), st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=5
    ),
    tokens=st.integers(1, 60),
    flat=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_pairs_in_any_batches_give_the_same_gradient(
    models: dict[str, Any], sizes: list[tuple[int, int, int]], tokens: int, flat: bool
) -> None:
    model, rows, how = models["mistral"].eval(), pairs(tuple(sizes)), Joining(flat=flat)
    whole = METHOD.loss(model, METHOD.collate(rows, Joining(flat=True))).total
    lengths = [count_tokens(row, how) for row in rows]
    parts = [rows[part] for part in split_update(lengths, tokens=tokens, flat=flat)]
    split = sum(METHOD.loss(model, METHOD.collate(part, how)).total for part in parts)
    check_same(gradients(model, split), gradients(model, whole))


def test_sums_of_thousands_of_nats_keep_the_small_differences_that_count(
    models: dict[str, Any],
) -> None:
    model, rows = copy.deepcopy(models["qwen3"]).eval(), pairs(((20, 110, 120), (5, 100, 120)))
    base, seeded = copy.deepcopy(model).double(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=seeded), alpha=1e-4)
        reference = reference_logps(models["qwen3"], METHOD, Rows(rows), how=HOW, tokens=999)  # type: ignore[arg-type]
        assert reference is not None
        for row, known in zip(rows, reference, strict=True):
            row["reference"] = known.tolist()
        found = METHOD.loss(model, METHOD.collate(rows, HOW)).total
        exact = answer_logps(model.double(), METHOD.collate(rows, HOW))
        known = answer_logps(base, METHOD.collate(rows, HOW))
    expected = dpo_loss(exact - known, loss="sigmoid", beta=0.2).sum()
    assert abs(found - expected) < 2e-6


def test_no_answer_sees_the_other(models: dict[str, Any]) -> None:
    model, rows = models["qwen3"].eval(), pairs()
    other = pairs()
    first, second = other[0]["answers"]
    for at in range(first, second):
        other[0]["input_ids"][at] = other[0]["labels"][at] = 7
    found, changed = (
        answer_logps(model, METHOD.collate(given, Joining(flat=True))) for given in (rows, other)
    )
    assert torch.equal(found[0, 1], changed[0, 1])
    assert torch.equal(found[1:], changed[1:])
    assert found[0, 0] != changed[0, 0]


def test_what_is_watched(models: dict[str, Any]) -> None:
    summed = METHOD.loss(models["qwen3"].eval(), METHOD.collate(pairs(), Joining(flat=True)))
    watched = {name: float(value) / summed.count for name, value in summed.measures.items()}
    margin = watched["rewards_chosen"] - watched["rewards_rejected"]
    assert watched["rewards_margin"] == pytest.approx(margin, rel=1e-4)
    found = answer_logps(models["qwen3"], METHOD.collate(pairs(), Joining(flat=True)))
    ratios = 0.2 * (found - torch.tensor([row["reference"] for row in pairs()]))
    told_apart = (ratios[:, 0] > ratios[:, 1]).float().mean().item()
    assert watched["rewards_accuracy"] == pytest.approx(told_apart)
    assert watched["rewards_chosen"] == pytest.approx(ratios[:, 0].mean().item(), rel=1e-4)
    assert not any(value.requires_grad for value in summed.measures.values())


class Rows:
    """Rows as the reference takes them."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.lengths = np.array([len(row["input_ids"]) for row in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row]


@pytest.mark.parametrize("shape", ["qwen3", "bloom"])
@pytest.mark.parametrize("tokens", [1, 30, 1000])
def test_the_reference_is_the_model_without_its_adapter(
    models: dict[str, Any], shape: str, tokens: int
) -> None:
    model = models[shape].eval()
    how = Joining(flat=shape == "qwen3")
    expected = answer_logps(model, METHOD.collate(pairs(), how)).detach().numpy()
    adapted = add_lora(copy.deepcopy(model), LoRA(rank=2, dropout=0.5)).train()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    found = reference_logps(adapted, METHOD, Rows(pairs()), how=how, tokens=tokens)  # type: ignore[arg-type]
    assert adapted.training
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_gives_up_when_asked(models: dict[str, Any], tmp_path: Path) -> None:
    found = reference_logps(
        models["qwen3"].train(),
        METHOD,
        Rows(pairs()),  # type: ignore[arg-type]
        how=Joining(flat=True),
        tokens=1,
        share=Share(give_up=lambda: True),
    )
    assert found is None
    assert models["qwen3"].training
