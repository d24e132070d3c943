"""Ranks move as PEFT's own loop moves them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model

from tunesmith.models.allocation import FILE, Allocation, restore_allocation, save_allocation
from tunesmith.models.load import load_model
from tunesmith.models.tuning import apply_tuning
from tunesmith.recipe.tuning import AdaLoRA

STEPS = 10
TUNING = AdaLoRA(rank=2, first_rank=4, last_share=0.3)


def load(folder: Path) -> Any:
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def rows(step: int) -> torch.Tensor:
    return torch.randint(3, 300, (2, 16), generator=torch.Generator().manual_seed(step))


def ours(folder: Path) -> tuple[Any, Allocation, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model: Any = apply_tuning(load(folder), TUNING).train()
    moves = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-2)
    return model, Allocation(model, TUNING, STEPS), moves


def train(model: Any, allocation: Allocation, moves: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        allocation.penalize()
        model.base_model.model(input_ids=rows(step), labels=rows(step)).loss.backward()
        moves.step()
        allocation.update(step)
        moves.zero_grad()


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}


def kept(model: Any) -> int:
    found = [w for name, w in trained(model).items() if ".lora_E." in name]
    return sum(int((weight != 0).sum()) for weight in found)


def test_every_update_is_that_of_peft(tiny_model: Path) -> None:
    torch.manual_seed(0)
    config = AdaLoraConfig(
        init_r=4,
        target_r=2,
        lora_alpha=8,
        tinit=1,
        tfinal=3,
        total_step=STEPS,
        orth_reg_weight=0.5,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    theirs: Any = get_peft_model(load(tiny_model), config).train()
    their_moves = torch.optim.AdamW([w for w in theirs.parameters() if w.requires_grad], lr=1e-2)
    model, allocation, moves = ours(tiny_model)
    layers = len([name for name in trained(model) if ".lora_E." in name])
    for step in range(1, STEPS + 1):
        train(model, allocation, moves, range(step, step + 1))
        theirs(input_ids=rows(step), labels=rows(step)).loss.backward()
        their_moves.step()
        theirs.base_model.update_and_allocate(step)
        their_moves.zero_grad()
        one, other = trained(model), trained(theirs)
        assert one.keys() == other.keys()
        for name in one:
            assert torch.allclose(one[name], other[name], atol=1e-6), (step, name)
        assert kept(model) == kept(theirs)
    assert kept(model) == 2 * layers


@pytest.mark.parametrize("at", [1, 5, 8])
def test_what_ranks_were_worth_is_put_back(tmp_path: Path, tiny_model: Path, at: int) -> None:
    model, allocation, moves = ours(tiny_model)
    train(model, allocation, moves, range(1, at + 1))
    save_allocation(model, tmp_path)
    assert (tmp_path / FILE).is_file()
    other, again, other_moves = ours(tiny_model)
    other.load_state_dict(model.state_dict())
    other_moves.load_state_dict(deepcopy(moves.state_dict()))
    restore_allocation(other, tmp_path)
    train(model, allocation, moves, range(at + 1, STEPS + 1))
    train(other, again, other_moves, range(at + 1, STEPS + 1))
    one, two = trained(model), trained(other)
    assert all(torch.equal(one[name], two[name]) for name in one)
