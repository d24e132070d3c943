"""Pack the linear layers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.errors import ExportError
from tunesmith.export.few_bits.kinds import Kind
from tunesmith.export.few_bits.walk import walk
from tunesmith.models.quantize.gptq import DAMPING, GPTQ, quantize
from tunesmith.models.quantize.packed import bnb, gptq
from tunesmith.models.quantize.packed.words import WORD
from tunesmith.models.quantize.storage import find_frozen

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

GROUPS = (128, 64, 32)
WHOLE_ROW = -1


@dataclass(frozen=True)
class Layers:
    """Packed layers.

    Attributes:
        tensors: of each layer, by its name.
        errors: how much each layer changed, as a share of its size: by what it answers to the rows
            with GPTQ, else by its weights.
        described: what config.json says of them.
    """

    described: dict[str, Any]
    tensors: dict[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def state(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        """Return all tensors to store."""
        whole: dict[str, Any] = model.state_dict()
        for layer, tensors in self.tensors.items():
            del whole[f"{layer}.weight"]
            whole |= {f"{layer}.{name}": tensor for name, tensor in tensors.items()}
        return whole

    def worst(self) -> str:
        """Say which layer changed most."""
        name = max(self.errors, key=lambda layer: self.errors[layer])
        return f"the layer {name} changes most, by {self.errors[name]:.1%}"


def pack_gptq(model: PreTrainedModel, kind: Kind, rows: list[list[int]]) -> Layers:
    """Quantize the layers of all blocks in their places, each on what those before it say.

    Raises:
        ExportError: if the model has layers that GPTQ folders cannot hold.
    """
    frozen = find_frozen(model)
    group = _choose_group(model, frozen)
    bits = kind.bits
    made = Layers(_describe(GPTQ(bits, group)))

    def visit(name: str, layer: Any, squares: torch.Tensor) -> None:
        weight = frozen[name].detach().float()
        groups = quantize(weight, squares, GPTQ(bits, group if group > 0 else weight.shape[1]))
        whole = groups.whole()
        made.tensors[name] = gptq.pack(groups)
        made.errors[name] = _answer_error(whole - weight, weight, squares)
        frozen[name].data.copy_(whole)

    walk(model, list(frozen), rows, visit)
    return made


def _answer_error(difference: torch.Tensor, weight: torch.Tensor, squares: torch.Tensor) -> float:
    """Return the root of the squared errors of answers over that of the answers."""
    wrong, right = (float((part @ squares * part).sum()) for part in (difference, weight))
    return (max(wrong, 0.0) / right) ** 0.5 if right > 0 else 0.0


def _choose_group(model: PreTrainedModel, frozen: Mapping[str, torch.Tensor]) -> int:
    odd = {name: list(w.shape) for name, w in frozen.items() if any(n % WORD for n in w.shape)}
    experts = [name for name, weight in model.named_parameters() if weight.dim() > 2]
    if odd or experts:
        name = next(iter(odd), "") or experts[0]
        what = f"{name} is {odd[name]}" if odd else f"{name} holds experts"
        raise ExportError(
            f"GPTQ packs linear layers whose sides are multiples of {WORD}, and {what}",
            hint="export with --format gguf",
            where=type(model).__name__,
        )
    widths = {weight.shape[1] for weight in frozen.values()}
    return next((g for g in GROUPS if not any(width % g for width in widths)), WHOLE_ROW)


def _describe(options: GPTQ) -> dict[str, Any]:
    """Say what readers of GPTQ folders look for."""
    return {
        "quant_method": "gptq",
        "bits": options.bits,
        "group_size": options.group,
        "desc_act": False,
        "sym": options.symmetric,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "damp_percent": DAMPING,
        "static_groups": True,
        "true_sequential": False,
        "meta": {"quantizer": [f"tunesmith:{__version__}"]},
    }


def pack_bnb(model: PreTrainedModel, kind: Kind, dtype: torch.dtype) -> Layers:
    """Quantize all linear layers but the head, as bitsandbytes does when it loads them.

    Args:
        dtype: what whole weights are stored in, and answers computed in.
    """
    from tunesmith.models.quantize.bits_and_bytes import describe, pack
    from tunesmith.recipe.quantize import NF4, Int8

    quantize = NF4() if kind.method == "nf4" else Int8()
    made = Layers(bnb.plain(describe(quantize, dtype).to_dict()))
    for name, weight in find_frozen(model).items():
        stored = weight.detach().to(dtype)
        made.tensors[name], whole = pack(stored.contiguous(), quantize)
        made.errors[name] = _weight_error(whole, stored)
    return made


def _weight_error(whole: torch.Tensor, stored: torch.Tensor) -> float:
    weight = stored.float()
    return float((whole.float() - weight).norm() / weight.norm().clamp(min=1e-30))
