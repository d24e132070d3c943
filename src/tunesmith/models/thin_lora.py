"""The products of LoRA with little beside them (arXiv:2106.09685).

PEFT writes `base(x) + B(A(x)) * scale`, and autograd goes back the same way: four passes over a
matrix as large as the layer's output that only add or scale. Here the scale is applied where the
matrix is thin and the sums are made inside the products. Over a quantized layer its weight is put
together for a product and dropped again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraLayer

from tunesmith.models.autocast import product_type
from tunesmith.models.quantize.product import Whole, multiply


class ThinLoRA(Linear):  # type: ignore[misc]
    """PEFT's adapted linear layer, faster where one plain adapter is active."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute as PEFT does; [..., in] to [..., out]."""
        if args or kwargs or not is_plain(self):
            theirs: torch.Tensor = super().forward(x, *args, **kwargs)
            return theirs
        return _thin_products(self, x, self.base_layer.weight.to(product_type(x)))


@cache
def _thin_quantized(kind: type[Any]) -> type[Any]:
    """Make PEFT's class for a kind of quantized layers compute so."""

    def forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args or kwargs or not is_plain(self):
            theirs: torch.Tensor = kind.forward(self, x, *args, **kwargs)
            return theirs
        return _thin_products(self, x, self.base_layer)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def is_plain(layer: Any) -> bool:
    """Whether one adapter adds a product to a frozen layer, and does no more."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    (name,) = layer.active_adapters
    base = layer.base_layer
    return (
        name in layer.lora_A
        and name not in layer.lora_variant
        and layer.lora_B[name].bias is None
        and not any(weight.requires_grad for weight in base.parameters(recurse=False))
    )


def _thin_products(layer: Any, x: torch.Tensor, weight: torch.Tensor | Whole) -> torch.Tensor:
    (name,) = layer.active_adapters
    bias, dropout = layer.base_layer.bias, layer.lora_dropout[name]
    dtype = product_type(x)
    dropped = x if isinstance(dropout, torch.nn.Identity) or not layer.training else dropout(x)
    out: torch.Tensor = _Products.apply(  # type: ignore[no-untyped-call]
        x.to(dtype),
        None if dropped is x else dropped.to(dtype),
        weight,
        None if bias is None else bias.to(dtype),
        layer.lora_A[name].weight.to(dtype),
        layer.lora_B[name].weight.to(dtype),
        float(layer.scaling[name]),
    )
    return out.view(*x.shape[:-1], out.shape[-1])  # here, or no model could change it in place


def use_thin_products(model: torch.nn.Module) -> None:
    """Let the adapted layers of a model that are plain or quantized linear ones compute so."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = ThinLoRA
        elif isinstance(module, LoraLayer) and isinstance(module.base_layer, Whole):
            kind: Any = type(module)
            module.__class__ = _thin_quantized(kind)


class _Products(torch.autograd.Function):
    """x W' + bias + scale (dropped x) A' B', with W and the bias frozen; [rows, out]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        *rest: Any,
    ) -> torch.Tensor:
        weight, bias, down, up, scale = rest
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1])
            read = flat if dropped is None else dropped.reshape(flat.shape)
            thin = (read @ down.t()).mul_(scale)
            if isinstance(weight, Whole):
                out = multiply(flat, weight.whole, weight.out_features, transposed=True)
                out = out if bias is None else out.add_(bias)
            else:
                out = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
            out.addmm_(thin, up.t())
        ctx.quantized = weight if isinstance(weight, Whole) else None
        learns_down = ctx.needs_input_grad[4]  # what it reads is kept for its gradient alone
        kept = read if learns_down else None
        ctx.save_for_backward(kept, thin, None if ctx.quantized else weight, down, up)
        ctx.scale, ctx.shape, ctx.drops = scale, x.shape, dropped is not None
        return out

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        read, thin, weight, down, up = ctx.saved_tensors
        (gradient,) = upper
        to_thin = (gradient @ up).mul_(ctx.scale)
        to_up = (thin.t() @ gradient).t()  # the thin matrix first: the faster way round
        to_down = to_thin.t() @ read if ctx.needs_input_grad[4] else None
        to_x = to_dropped = None
        if ctx.needs_input_grad[0]:
            if ctx.quantized is None:
                to_x = gradient @ weight
            else:
                width = ctx.quantized.in_features
                to_x = multiply(gradient, ctx.quantized.whole, width, transposed=False)
            if not ctx.drops:
                to_x.addmm_(to_thin, down)
            to_x = to_x.view(ctx.shape)
        if ctx.drops and ctx.needs_input_grad[1]:
            to_dropped = (to_thin @ down).view(ctx.shape)
        return to_x, to_dropped, None, None, to_down, to_up, None
