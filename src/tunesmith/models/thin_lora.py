"""The products of LoRA with little beside them (arXiv:2106.09685).

PEFT writes `base(x) + B(A(x)) * scale`, and autograd goes back the same way: four passes over a
matrix as large as the layer's output that only add or scale. Here the scale is applied where the
matrix is thin and the sums are made inside the products.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear

from tunesmith.models.autocast import product_type


class ThinLoRA(Linear):  # type: ignore[misc]
    """PEFT's adapted linear layer, faster where one plain adapter is active."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute as PEFT does; [..., in] to [..., out]."""
        if args or kwargs or not self._is_plain():
            theirs: torch.Tensor = super().forward(x, *args, **kwargs)
            return theirs
        (name,) = self.active_adapters
        base, dropout = self.base_layer, self.lora_dropout[name]
        dtype = product_type(x)
        dropped = x if isinstance(dropout, torch.nn.Identity) or not self.training else dropout(x)
        return _Products.apply(  # type: ignore[no-any-return,no-untyped-call]
            x.to(dtype),
            None if dropped is x else dropped.to(dtype),
            base.weight.to(dtype),
            None if base.bias is None else base.bias.to(dtype),
            self.lora_A[name].weight.to(dtype),
            self.lora_B[name].weight.to(dtype),
            float(self.scaling[name]),
        )

    def _is_plain(self) -> bool:
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        return (
            name in self.lora_A
            and name not in self.lora_variant
            and self.lora_B[name].bias is None
            and not self.base_layer.weight.requires_grad
            and (self.base_layer.bias is None or not self.base_layer.bias.requires_grad)
        )


def use_thin_products(model: torch.nn.Module) -> None:
    """Let the adapted layers of a model that are plain linear ones compute so."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = ThinLoRA


class _Products(torch.autograd.Function):
    """x W' + bias + scale (dropped x) A' B', with W and the bias frozen."""

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
            out = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
            out.addmm_(thin, up.t())
        ctx.save_for_backward(read, thin, weight, down, up)
        ctx.scale, ctx.shape, ctx.drops = scale, x.shape, dropped is not None
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        read, thin, weight, down, up = ctx.saved_tensors
        gradient = upper[0].reshape(-1, upper[0].shape[-1])
        to_thin = (gradient @ up).mul_(ctx.scale)
        to_up = (thin.t() @ gradient).t()  # the thin matrix first: the faster way round
        to_down = to_thin.t() @ read
        to_x = to_dropped = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ weight
            if not ctx.drops:
                to_x.addmm_(to_thin, down)
            to_x = to_x.view(ctx.shape)
        if ctx.drops and ctx.needs_input_grad[1]:
            to_dropped = (to_thin @ down).view(ctx.shape)
        return to_x, to_dropped, None, None, to_down, to_up, None
