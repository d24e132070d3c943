"""Several adapters on one base, each with a weight: their sum, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.adapter import add_adapter, check_base
from tunesmith.models.beneath import Beneath
from tunesmith.models.inspect import ADAPTER, read_config
from tunesmith.models.loftq import refuse_over_few_bits

if TYPE_CHECKING:
    from peft import PeftModel

OWN = "default"


@dataclass(frozen=True)
class Blend:
    """How much of each adapter is added.

    Attributes:
        own: what the model's own adapter is multiplied by.
        others: folders of others on the same base, and what each is multiplied by.
    """

    own: float
    others: tuple[tuple[Path, float], ...]


def blend_adapters(
    adapted: PeftModel, folder: Path, base: Path, beneath: Beneath, blend: Blend
) -> None:
    """Put further adapters beside the one of a model, and let all of them add what they do.

    W + sum of w_i s_i B_i A_i: matrices are never multiplied across adapters, so the sum is that
    of the single changes.

    Raises:
        ModelError: if one belongs to another base, or does more than add products.
    """
    weights = {OWN: blend.own}
    for each in (folder, *(other for other, _ in blend.others)):
        check_adds(each)
    for place, (other, weight) in enumerate(blend.others, 1):
        check_base(other, base, beneath=beneath, foreign=True)
        weights[f"other_{place}"] = weight
        add_adapter(adapted, other, f"other_{place}")
    adapted.base_model.set_adapter(list(weights))
    for layer in _layers(adapted):
        for name, weight in weights.items():
            if name in layer.scaling:
                layer.scaling[name] *= weight


def check_adds(folder: Path) -> None:
    """Refuse an adapter whose change of the weights is no product that another can be added to."""
    refuse_over_few_bits(folder, "--also")
    why = what_else(folder)
    if why:
        raise ModelError(
            f"the adapter cannot be added to others: it {why}",
            hint="blend plain lora; name others one after another in model.adapters and "
            "train on, or export them one by one",
            where=str(folder),
        )


def what_else(folder: Path) -> str:
    """Say what an adapter does besides adding products; empty if nothing."""
    config = read_config(folder / ADAPTER)
    because = {
        f"is of the kind {str(config.get('peft_type')).lower()}": config.get("peft_type") != "LORA",
        "trains lengths apart (dora)": config.get("use_dora"),
        "holds whole modules": config.get("modules_to_save"),
        "holds single tokens": config.get("trainable_token_indices"),
    }
    return next((why for why, wrong in because.items() if wrong), "")


def _layers(adapted: PeftModel) -> list[Any]:
    from peft.tuners.lora.layer import LoraLayer

    return [layer for layer in adapted.modules() if isinstance(layer, LoraLayer)]
