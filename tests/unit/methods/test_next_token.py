"""Our next-token loss is the one of transformers, with less work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.methods import METHODS, build_method
from tunesmith.methods.next_token import UNLEARNED, forward_names, next_token_loss, pad
from tunesmith.models.load import load_model
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
        for shape in tiny.SHAPES
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


def theirs(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean loss as transformers computes it."""
    return model(**batch).loss


def test_padding_stands_on_the_right_and_is_neither_seen_nor_learned() -> None:
    long, short = (
        {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]},
        {"input_ids": [5], "labels": [5]},
    )
    batch = pad([long, short])
    assert batch["input_ids"].tolist() == [[7, 8, 9, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 8, 9] + [-100] * 5, [5] + [-100] * 7]
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}


@pytest.mark.parametrize(("longest", "width"), [(1, 8), (8, 8), (9, 16), (24, 24)])
def test_batches_are_as_wide_as_the_longest_row_in_steps_of_eight(longest: int, width: int) -> None:
    ids = list(range(longest))
    assert pad([{"input_ids": ids, "labels": ids}])["input_ids"].shape == (1, width)


def test_only_some_models_take_positions_of_logits(models: dict[str, Any]) -> None:
    assert "logits_to_keep" in forward_names(models["qwen3"])
    assert "logits_to_keep" not in forward_names(models["older"])
    assert "use_cache" not in forward_names(models["older"])


@pytest.mark.parametrize("shape", [*tiny.SHAPES, "older"])
def test_the_loss_and_its_gradient_are_those_of_transformers(
    models: dict[str, Any], shape: str
) -> None:
    model, batch = models[shape].eval(), pad(rows())
    expected = theirs(model, batch)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)

    summed = next_token_loss(model, batch)
    (summed.total / summed.count).backward()

    assert (summed.total / summed.count).item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(summed.count) == sum(length - length // 2 for length in LENGTHS)
    assert gradients.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("shape", ["qwen3", "gpt2"])
def test_an_adapted_model_has_the_same_loss(models: dict[str, Any], shape: str) -> None:
    batch = pad(rows())
    plain = next_token_loss(models[shape].eval(), batch)
    adapted = add_lora(copy.deepcopy(models[shape]), LoRA(rank=2)).eval()
    seen = next_token_loss(adapted, batch)
    assert seen.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    assert forward_names(adapted) == forward_names(models[shape])


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


def test_the_loss_of_a_bf16_model_is_summed_in_fp32(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", dtype=torch.bfloat16)
    model = load_model(folder, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert next_token_loss(model, pad(rows())).total.dtype == torch.float32


def test_each_method_learns_what_its_options_say() -> None:
    sft = build_method(SFT(learn_prompts=True, learn_history=False)).learn
    assert (sft.kind, sft.prompts, sft.history, sft.pack) == ("conversation", True, False, False)
    text = build_method(Pretrain(pack=False)).learn
    assert (text.kind, text.prompts, text.history, text.pack) == ("text", True, True, False)


@pytest.mark.parametrize("options", [SFT(), Pretrain()], ids=METHODS)
def test_each_method_joins_rows_and_sums_their_loss(
    models: dict[str, Any], options: SFT | Pretrain
) -> None:
    method = build_method(options)
    batch = method.collate(rows())
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        name: tensor.tolist() for name, tensor in pad(rows()).items()
    }
    assert torch.equal(
        method.loss(models["qwen3"], batch).total, next_token_loss(models["qwen3"], batch).total
    )
