"""What stands between the products of a layer, in few passes over memory.

Written with plain operators, a root-mean-square norm (arXiv:1910.07467) goes 14 times over its
numbers on the way there and back, a rotary embedding (arXiv:2104.09864) 20 times. Whether a model's
own norm and rotation are what is computed here is not read from a list but tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch.nn.functional import rms_norm, silu
from transformers.activations import SiLUActivation

from tunesmith.models.layout import FAILURES

Rotation = Callable[..., tuple[torch.Tensor, torch.Tensor]]
EPSILONS = ("variance_epsilon", "eps")
ROTATION = "apply_rotary_pos_emb"
"""What every model of transformers calls its rotation."""


_as_on_gpu: ContextVar[bool] = ContextVar("as_on_gpu", default=False)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Keep for the way back what a GPU would, wherever it is computed."""
    token = _as_on_gpu.set(True)
    try:
        yield
    finally:
        _as_on_gpu.reset(token)


def use_few_passes(model: torch.nn.Module) -> None:
    """Let a model compute its norms and rotations so, and its gates, if they are these.

    In 16 bits only a GPU computes norms and rotations so: there every pass over memory is a
    kernel to be started.
    """
    for module in model.modules():
        kind: Any = type(module)
        if kind.__name__.endswith("RMSNorm") and _epsilon(module) is not None:
            module.__class__ = _thin_norm(kind, _epsilon(module))
        elif kind.__name__.endswith("Attention"):
            module.__class__ = _thin_attention(kind)
        elif kind.__name__.endswith("MLP") and _gates_by_silu(module):
            module.__class__ = _thin_gates(kind)


def _epsilon(module: torch.nn.Module) -> float | None:
    found = [vars(module)[name] for name in EPSILONS if name in vars(module)]
    return found[0] if len(found) == 1 and list(module._parameters) == ["weight"] else None


def _gates_by_silu(module: torch.nn.Module) -> bool:
    parts = module._modules
    silu = type(parts.get("act_fn")) in (torch.nn.SiLU, SiLUActivation)
    return silu and set(parts) == {"gate_proj", "up_proj", "down_proj", "act_fn"}


@cache
def _thin_norm(kind: type[Any], epsilon: float) -> type[Any]:
    """Make a norm's class compute in few passes, or leave it if it is another norm."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = self.weight
        if x.is_cuda and x.dtype == weight.dtype:  # one kernel, which starts faster than many
            with torch.autocast("cuda", enabled=False):  # it would widen what goes in and out
                return rms_norm(x, weight.shape, weight, epsilon)
        exact = x.dtype == torch.float32 or _as_on_gpu.get()
        if not (exact and x.dtype == weight.dtype):
            theirs: torch.Tensor = kind.forward(self, x)
            return theirs
        return _Norm.apply(x, weight, epsilon)  # type: ignore[no-any-return,no-untyped-call]

    thin = _subclass(kind, forward)
    return thin if _is_same_norm(kind, thin, epsilon) else kind


@cache
def _thin_attention(kind: type[Any]) -> type[Any]:
    """Let attention's code call our rotation, if what it calls is the same one."""
    forward = kind.forward
    if not isinstance(forward, FunctionType) or ROTATION not in forward.__code__.co_names:
        return kind
    theirs = forward.__globals__[ROTATION]
    if not _is_same_rotation(theirs):
        return kind
    scope = {**forward.__globals__, ROTATION: _thin_rotation(theirs)}
    closure = forward.__closure__
    ours = FunctionType(forward.__code__, scope, "forward", forward.__defaults__, closure)
    ours.__kwdefaults__ = forward.__kwdefaults__
    return _subclass(kind, ours)


@cache
def _thin_gates(kind: type[Any]) -> type[Any]:
    """Let a gated layer (arXiv:2002.05202) keep what goes in, and not what lies between."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        opened: Callable[..., torch.Tensor] = _Gated.apply
        out: torch.Tensor = self.down_proj(opened(self.gate_proj(x), self.up_proj(x)))
        return out

    thin = _subclass(kind, forward)
    return thin if _are_same_gates(kind, thin) else kind


def _subclass(kind: type[Any], forward: Callable[..., Any]) -> type[Any]:
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _thin_rotation(theirs: Rotation) -> Rotation:
    def rotate(
        query: torch.Tensor,
        key: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *rest: Any,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = {given.dtype for given in (query, key, cos, sin)}
        on_gpu = query.is_cuda or _as_on_gpu.get()
        exact = kinds == {torch.float32} or (on_gpu and len(kinds) == 1)
        whole = query.shape[-1] == key.shape[-1] == cos.shape[-1] and cos.dim() == 3
        if rest or more or not exact or not whole:
            return theirs(query, key, cos, sin, *rest, **more)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        turn: Callable[..., torch.Tensor] = _Rotated.apply
        return turn(query, cos, sin), turn(key, cos, sin)

    return rotate


class _Norm(torch.autograd.Function):
    """x / rms(x) * weight over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        shrink = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, shrink)
        out: torch.Tensor = (x * shrink).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        x, weight, shrink = ctx.saved_tensors
        products = upper[0] * x
        to_weight = to_x = None
        if ctx.needs_input_grad[1]:
            to_weight = products.reshape(-1, x.shape[-1]).t() @ shrink.reshape(-1)
        if ctx.needs_input_grad[0]:
            along = (products @ weight)[..., None].mul_(shrink.pow(3)).div_(-x.shape[-1])
            to_x = torch.mul(upper[0], weight, out=products).mul_(shrink).addcmul_(x, along)
        return to_x, to_weight, None


class _Rotated(torch.autograd.Function):
    """x * cos + (-second half of x, first half of x) * sin over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        out = x * cos
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return out

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        half = cos.shape[-1] // 2
        to_x = upper[0] * cos
        to_x[..., :half].addcmul_(upper[0][..., half:], sin[..., half:])
        to_x[..., half:].addcmul_(upper[0][..., :half], sin[..., :half], value=-1)
        return to_x, None, None


class _Gated(torch.autograd.Function):
    """silu(gate) * up, of which the first factor is computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        gate, up = ctx.saved_tensors
        to_up = silu(gate).mul_(upper[0])
        return torch.ops.aten.silu_backward(upper[0] * up, gate), to_up


def _is_same_norm(kind: type[Any], thin: type[Any], epsilon: float) -> bool:
    """Try both on rows of which some are so short that epsilon decides."""
    norm = torch.nn.Module.__new__(kind)
    torch.nn.Module.__init__(norm)
    vars(norm).update(dict.fromkeys(EPSILONS, epsilon))
    weight, x = _draw(8), _draw(3, 5, 8) * torch.tensor([1.0, epsilon**0.5, 0.0])[:, None, None]
    norm.weight = torch.nn.Parameter(weight)
    try:
        return _agree(
            lambda *given: kind.forward(norm, *given),
            lambda *given: thin.forward(norm, *given),
            x,
            also=norm.weight,
        )
    except FAILURES:
        return False


def _are_same_gates(kind: type[Any], thin: type[Any]) -> bool:
    """Try both between small products."""
    layer = torch.nn.Module.__new__(kind)
    torch.nn.Module.__init__(layer)
    layer.act_fn = torch.nn.SiLU()
    for name, (wide, out) in {"gate_proj": (4, 6), "up_proj": (4, 6), "down_proj": (6, 4)}.items():
        layer.register_module(name, _Product(_draw(out, wide, seed=len(name))))
    try:
        return _agree(
            lambda *given: kind.forward(layer, *given),
            lambda *given: thin.forward(layer, *given),
            _draw(3, 4),
        )
    except FAILURES:
        return False


class _Product(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.kept = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.kept.t()


@cache
def _is_same_rotation(theirs: Rotation) -> bool:
    """Try both on angles that have nothing in common."""
    cos, sin, query, key = _draw(1, 5, 8), _draw(1, 5, 8), _draw(1, 4, 5, 8), _draw(1, 2, 5, 8)
    ours = _thin_rotation(theirs)
    try:
        return _agree(
            lambda *given: torch.cat(theirs(*given, cos, sin), dim=1),
            lambda *given: torch.cat(ours(*given, cos, sin), dim=1),
            query,
            key,
        )
    except FAILURES:
        return False


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw numbers without touching the seed of the run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu")


def _agree(
    theirs: Callable[..., torch.Tensor],
    ours: Callable[..., torch.Tensor],
    *given: torch.Tensor,
    also: torch.Tensor | None = None,
) -> bool:
    """Whether results and gradients are the same but for the order of additions."""
    found = []
    for function in (theirs, ours):
        leaves = [one.clone().requires_grad_() for one in given]
        with torch.enable_grad():
            out = function(*leaves)
            wanted = leaves if also is None else [*leaves, also]
            gradients = torch.autograd.grad((out * _draw(*out.shape)).sum(), wanted)
        found.append([out, *gradients])
    pairs = zip(*found, strict=True)
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)
