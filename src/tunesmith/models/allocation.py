"""Ranks that move to where they are worth most while AdaLoRA trains (arXiv:2303.10512).

PEFT writes how much each rank was worth into memory alone, and cuts what it saves to the ranks that
are left. Here both are kept as they are, so that a run goes on to the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tunesmith.errors import RecipeError, TrainingError
from tunesmith.recipe.tuning import AdaLoRA

FILE = "allocation.safetensors"
SUMS = ("exp_avg_ipt", "exp_avg_unc")
"""What PEFT calls how much a number is worth, and how surely: averages over updates."""
MASK = "mask"
FIRST_SHARE = 0.1
"""Share of the updates before ranks are taken away."""


class Allocation:
    """The ranks of one model while it trains."""

    def __init__(self, model: Any, tuning: AdaLoRA, num_steps: int) -> None:
        self.adapted = model
        self.allocator: Any = self.adapted.base_model.rankallocator
        config = self.allocator.peft_config
        self.weight = config.orth_reg_weight
        config.total_step = num_steps
        config.tinit = int(FIRST_SHARE * num_steps)
        config.tfinal = int(tuning.last_share * num_steps)
        if num_steps - config.tfinal < 2:
            raise RecipeError(
                f"{num_steps} updates are too few to find out what ranks are worth",
                hint="write more run.steps or run.epochs, or tuning.kind: lora",
                where="run.steps",
            )

    def penalize(self, scale: float = 1.0) -> None:
        """Add to the gradients what keeps the directions of each matrix at right angles.

        Args:
            scale: what the gradients of the loss are multiplied with until they are used.
        """
        import torch

        pairs = [
            weight @ weight.T if ".lora_A." in name else weight.T @ weight
            for name, weight in self.adapted.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        far = [torch.linalg.norm(pair - torch.eye(len(pair)).to(pair)) for pair in pairs]
        (scale * self.weight * torch.stack(far).mean()).backward()

    def update(self, step: int, *, learn: bool = True) -> None:
        """Learn from the gradients of an update, the first being 1, and set ranks to zero.

        Args:
            learn: whether the gradients are numbers.

        Raises:
            TrainingError: if the last ranks are taken away, and nothing was learned of any yet.
        """
        allocator, inner = self.allocator, self.adapted.base_model.model
        config = allocator.peft_config
        last = config.total_step - config.tfinal
        if step > last:
            allocator.mask_using_rank_pattern(inner, masks_of(self.adapted))
            return
        if learn and step < last:
            allocator.update_ipt(inner)
        budget, due = allocator.budget_schedule(step)
        knows = bool(allocator.exp_avg_ipt)
        if step < last and not (due and knows):
            return
        if not knows:
            raise TrainingError(
                f"adalora takes the last ranks away at step {step}, and no update was made before",
                hint="write compute.precision: bf16 or fp32, or more run.steps",
                where="compute.precision",
            )
        masks = allocator.mask_to_budget(inner, budget)
        if step == last:
            allocator.reset_ipt()
            vars(allocator)[MASK] = masks


def masks_of(model: Any) -> dict[str, list[bool]]:
    """Say which ranks are left for good; empty while they still move."""
    found: dict[str, list[bool]] = vars(model.base_model.rankallocator).get(MASK) or {}
    return found


def save_allocation(model: Any, folder: Path) -> None:
    """Write what was learned of ranks beside an adapter, if it learns of any."""
    import torch

    allocator = _allocator(model)
    if allocator is None:
        return
    kept = {
        f"{sums}/{name}": weight.contiguous()
        for sums in SUMS
        for name, weight in vars(allocator)[sums].items()
    }
    kept |= {f"{MASK}/{name}": torch.tensor(left) for name, left in masks_of(model).items()}
    if kept:
        save_file(kept, folder / FILE)


def restore_allocation(model: Any, folder: Path) -> None:
    """Put back what was learned of ranks, if anything was."""
    import torch

    allocator = _allocator(model)
    if allocator is None or not (folder / FILE).is_file():
        return
    device = next(model.parameters()).device
    allocator.reset_ipt()
    masks: dict[str, list[bool]] = {}
    for name, weight in load_file(folder / FILE).items():
        kind, _, inner = name.partition("/")
        if kind == MASK:
            masks[inner] = weight.tolist()
        else:
            vars(allocator)[kind][inner] = weight.to(device)
            allocator.ipt[inner] = torch.zeros_like(weight, device=device)
    vars(allocator)[MASK] = masks


def _allocator(model: Any) -> Any:
    return vars(model.base_model).get("rankallocator")
