"""Our next-token loss is the one of transformers, with less work."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods import build_method
from tunesmith.methods.batches import join, lay_end_to_end, pad, split_update
from tunesmith.methods.learned import forward_names, predict
from tunesmith.methods.method import Joining
from tunesmith.methods.next_token import next_token_loss
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model
from tunesmith.models.row_attention import as_mask
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.method import SFT, Pretrain
from tunesmith.recipe.tuning import LoRA

LENGTHS = (5, 13, 9, 24, 2)


class Older(torch.nn.Module):
    """A language model that knows no logits_to_keep, as few do by now."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One model of each shape, and one that computes all its logits always."""
    root = tmp_path_factory.mktemp("models")
    cpu = torch.device("cpu")
    made = {
        shape: load_model(tiny.make_model(root / shape, shape), dtype=torch.float32, device=cpu)
        for shape in tiny.FAMILIES
    }
    return {**made, "older": Older(made["gpt2"])}


def rows(seed: int = 0) -> list[dict[str, list[int]]]:
    """Rows of several lengths of which the later part is learned."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for length in LENGTHS:
        ids = torch.randint(1, 400, (length,), generator=draw).tolist()
        start = length // 2
        made.append({"input_ids": ids, "labels": [UNLEARNED] * start + ids[start:]})
    return made


def theirs(model: Any, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    """The mean loss as transformers computes it."""
    batch = pad(rows)
    labels = torch.full_like(batch["input_ids"], UNLEARNED)
    for place, row in enumerate(rows):
        labels[place, : len(row["labels"])] = torch.tensor(row["labels"])
    return model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss


def test_only_some_models_take_positions_of_logits(models: dict[str, Any]) -> None:
    assert "logits_to_keep" in forward_names(models["qwen3"])
    assert "logits_to_keep" not in forward_names(models["older"])
    assert "use_cache" not in forward_names(models["older"])


@pytest.mark.parametrize(
    ("shape", "flat"),
    [*itertools.product(tiny.FAMILIES, (True, False)), ("older", False)],
)
def test_the_loss_and_its_gradient_are_those_of_transformers(
    models: dict[str, Any], shape: str, flat: bool
) -> None:
    model = models[shape].eval()
    expected = theirs(model, rows())
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)

    summed = next_token_loss(model, join(rows(), Joining(flat=flat)))
    (summed.total / summed.count).backward()

    assert (summed.total / summed.count).item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(summed.count) == sum(length - length // 2 for length in LENGTHS)
    assert gradients.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if name in gradients:
            differs = torch.linalg.vector_norm(parameter.grad - gradients[name])
            assert differs <= 1e-5 * torch.linalg.vector_norm(gradients[name]) + 1e-9, name
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    ("shape", "flat"),
    [("qwen3", True), ("qwen3", False), ("untied", True), ("gemma2", True), ("older", False)],
)
def test_weights_of_tokens_are_those_of_a_padded_reference(
    models: dict[str, Any], shape: str, flat: bool
) -> None:
    model = models[shape].eval()
    weighed, by_token = weigh_rows(rows())
    batch = pad(rows())
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    learned = by_token[:, 1:] > 0
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1][learned].float(), batch["input_ids"][:, 1:][learned], reduction="none"
    )
    counts = by_token[:, 1:][learned]
    expected = (losses * counts).sum() / counts.sum()
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)

    summed = next_token_loss(model, join(weighed, Joining(flat=flat)))
    (summed.total / summed.count).backward()

    assert (summed.total / summed.count).item() == pytest.approx(expected.item(), rel=1e-5)
    assert summed.count == pytest.approx(counts.sum().item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        if name in gradients:
            differs = torch.linalg.vector_norm(parameter.grad - gradients[name])
            assert differs <= 1e-5 * torch.linalg.vector_norm(gradients[name]) + 1e-9, name
    model.zero_grad(set_to_none=True)


def weigh_rows(plain: list[dict[str, list[int]]]) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Weigh the tokens of every other row; return the weight of every token too, [rows, seq]."""
    by_token = torch.zeros(pad(plain)["input_ids"].shape)
    found: list[dict[str, Any]] = []
    for at, row in enumerate(plain):
        learned = [place for place, label in enumerate(row["labels"]) if label != UNLEARNED]
        weights = [0.25 + (place % 3) if at % 2 else 1.0 for place in learned]
        by_token[at, learned] = torch.tensor(weights)
        found.append({**row, "weights": weights} if at % 2 else dict(row))
    return found, by_token


@pytest.mark.parametrize("shape", ["qwen3", "gpt2"])
def test_an_adapted_model_has_the_same_loss(models: dict[str, Any], shape: str) -> None:
    batch = pad(rows())
    plain = next_token_loss(models[shape].eval(), batch)
    adapted = add_lora(copy.deepcopy(models[shape]), LoRA(rank=2)).eval()
    seen = next_token_loss(adapted, batch)
    assert seen.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    assert forward_names(adapted) == forward_names(models[shape])


@given(
    sizes=st.permutations((1, 2, 3, 6, 11, 17)),
    tokens=st.integers(1, 60),
    learned=st.integers(0, 63),
)
@settings(max_examples=30, deadline=None)
def test_rows_in_any_order_and_batches_give_the_same_gradient(
    models: dict[str, Any], sizes: list[int], tokens: int, learned: int
) -> None:
    model = models["untied"].eval()
    drawn = {
        size: torch.randint(1, 400, (size,), generator=seeded(size)).tolist() for size in sizes
    }
    made = [
        {"input_ids": drawn[size], "labels": labels(drawn[size], bool(learned >> size % 6 & 1))}
        for size in sizes
    ]
    whole, padded = gradients_of(model, [made], flat=True), gradients_of(model, [made], flat=False)
    parts = [made[part] for part in split_update(sizes, tokens=tokens, flat=True)]
    split = gradients_of(model, parts, flat=True)
    for name in padded:
        norm = torch.linalg.vector_norm(padded[name])
        for found in (whole, split):
            assert torch.linalg.vector_norm(found[name] - padded[name]) <= 1e-5 * norm + 1e-9


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(ids: list[int], learned: bool) -> list[int]:
    return ids if learned else [UNLEARNED] * (len(ids) // 2) + ids[len(ids) // 2 :]


def gradients_of(model: Any, parts: list[Any], *, flat: bool) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for part in parts:
        next_token_loss(model, join(part, Joining(flat=flat))).total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def test_no_row_sees_another_one(models: dict[str, Any]) -> None:
    model = models["qwen3"].eval()
    batch = lay_end_to_end(rows())
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:, : LENGTHS[0]] += 1

    def logits(given: dict[str, Any]) -> torch.Tensor:
        mask = as_mask(given["segments"])
        return model(
            given["input_ids"], position_ids=given["position_ids"], attention_mask=mask
        ).logits

    find_layout(model)
    one, two = logits(batch), logits(other)
    assert torch.equal(one[:, LENGTHS[0] :], two[:, LENGTHS[0] :])
    assert not torch.equal(one[:, : LENGTHS[0]], two[:, : LENGTHS[0]])


@pytest.mark.parametrize("shape", ["llama", "gpt2", "older"])
def test_batches_of_any_size_add_up_to_the_whole(models: dict[str, Any], shape: str) -> None:
    model, every = models[shape].eval(), rows()
    whole = next_token_loss(model, pad(every))
    for size in (1, 2, 3):
        parts = [
            next_token_loss(model, pad(every[at : at + size])) for at in range(0, len(every), size)
        ]
        total = sum(part.total.item() for part in parts)
        assert total == pytest.approx(whole.total.item(), rel=1e-5)
        assert sum(int(part.count) for part in parts) == int(whole.count)


def test_the_first_token_of_a_row_is_never_learned(models: dict[str, Any]) -> None:
    ids = [3, 4, 5]
    row = {"input_ids": ids, "labels": [3, UNLEARNED, UNLEARNED]}
    summed = next_token_loss(models["qwen3"], pad([row]))
    assert (summed.total.item(), int(summed.count)) == (0.0, 0)


def test_a_batch_that_learns_nothing_has_no_loss_and_no_gradient(models: dict[str, Any]) -> None:
    for shape in ("qwen3", "older"):
        model = models[shape]
        row = {"input_ids": [3, 4, 5], "labels": [UNLEARNED] * 3}
        summed = next_token_loss(model, pad([row, row]))
        summed.total.backward()
        assert (summed.total.item(), int(summed.count)) == (0.0, 0)
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("shape", ["qwen3", "gemma2", "older"])
def test_targets_are_smoothed_while_training_and_not_while_measuring(
    models: dict[str, Any], shape: str
) -> None:
    model, batch = models[shape], pad(rows())
    method = build_method(SFT(label_smoothing=0.2))
    plain, measured = next_token_loss(model.eval(), batch), method.loss(model, batch)
    smoothed = method.loss(model.train(), batch)
    model.eval()
    logits = predict(model, batch)
    all_logits = logits.given if logits.head is None else logits.head.logits(logits.given)
    expected = torch.nn.functional.cross_entropy(
        all_logits, batch["targets"], reduction="sum", label_smoothing=0.2
    )
    assert measured.total.item() == plain.total.item()
    if shape != "older":  # the others drop nothing in training
        assert smoothed.total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_of_a_bf16_model_is_summed_in_fp32(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", dtype=torch.bfloat16)
    model = load_model(folder, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert next_token_loss(model, pad(rows())).total.dtype == torch.float32


def test_each_method_learns_what_its_options_say() -> None:
    sft = build_method(SFT(learn_prompts=True, learn_history=False)).learn
    assert (sft.kind, sft.prompts, sft.history, sft.pack) == ("conversation", True, False, False)
    text = build_method(Pretrain(pack=False)).learn
    assert (text.kind, text.prompts, text.history, text.pack) == ("text", True, True, False)


@pytest.mark.parametrize("options", [SFT(), Pretrain()], ids=["sft", "pretrain"])
def test_each_method_joins_rows_and_sums_their_loss(
    models: dict[str, Any], options: SFT | Pretrain
) -> None:
    method = build_method(options)
    for flat, joined in ((True, lay_end_to_end), (False, pad)):
        batch, same = method.collate(rows(), Joining(flat=flat)), joined(rows())
        assert batch.keys() == same.keys()
        assert all(torch.as_tensor(t).equal(torch.as_tensor(same[n])) for n, t in batch.items())
        assert torch.equal(
            method.loss(models["qwen3"], batch).total, next_token_loss(models["qwen3"], same).total
        )


@pytest.mark.parametrize("targets", [("lm_head",), ("lm_head", "q_proj", "down_proj")])
def test_a_head_with_an_adapter_learns_as_it_does_under_transformers(
    models: dict[str, Any], targets: tuple[str, ...]
) -> None:
    model = add_lora(copy.deepcopy(models["untied"]), LoRA(rank=2, targets=targets)).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    theirs(model, rows()).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    summed = next_token_loss(model, lay_end_to_end(rows()))
    (summed.total / summed.count).backward()
    assert any("lm_head" in name for name in expected)
    for name, parameter in model.named_parameters():
        if name in expected:
            norm = torch.linalg.vector_norm(expected[name])
            assert torch.linalg.vector_norm(parameter.grad - expected[name]) <= 1e-5 * norm, name
