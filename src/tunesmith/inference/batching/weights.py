"""The weights of a Llama-like model, laid out for writing many answers at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.models.rope_by_length import turns_by_length
from tunesmith.models.value import ValueHead

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose forward pass is written here, as transformers calls them."""
NARROW = range(6, 49)
"""Rows for which the libraries of CPUs multiply faster with the weight on the left."""


class OtherModel(Exception):
    """Says what a model has that the forward pass written here does not."""


@dataclass(frozen=True)
class Product:
    """A weight [out, in] that rows are multiplied with.

    Attributes:
        parts: the names of the layers put together in it, and how many outputs each has.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    parts: tuple[tuple[str, int], ...]

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply rows [rows, in]; the result [rows, out] may lie transposed."""
        weight, bias = self.weight, self.bias
        if len(rows) in NARROW and weight.device.type == "cpu" and weight.dtype == torch.float32:
            found = torch.mm(weight, rows.t()).t()
            return found if bias is None else found.add_(bias)
        return nn.functional.linear(rows, weight, bias)


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: of its module, as adapters call it.
        heads: scales of the norms of queries and keys, [heads + kv heads, head]; None without.
        window: how many tokens a token sees with itself; None for all.
    """

    name: str
    norm: torch.Tensor
    qkv: Product
    heads: torch.Tensor | None
    out: Product
    mlp_norm: torch.Tensor
    gate_up: Product
    down: Product
    window: int | None


@dataclass(frozen=True)
class Weights:
    """A whole model.

    Attributes:
        epsilon: of its norms.
        scale: of attention.
        rotary: transformers' module that turns positions, of whatever kind.
        longest: positions that are turned as the model was made for.
    """

    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: Product
    num_heads: int
    num_kv_heads: int
    head_size: int
    epsilon: float
    scale: float
    activation: Callable[[torch.Tensor], torch.Tensor]
    rotary: nn.Module
    longest: int

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """What its products are computed in; what they are added to may be more exact."""
        return self.head.weight.dtype

    @property
    def token_bytes(self) -> int:
        """Measure what is kept of each token of a text."""
        numbers = 2 * len(self.layers) * self.num_kv_heads * self.head_size
        return numbers * self.dtype.itemsize


def take_weights(model: nn.Module) -> Weights:
    """Lay a model's weights out; its own layers become views of them, so that it still works.

    Raises:
        OtherModel: before anything is changed, if the forward pass written here is not the model's.
    """
    check_model(model)
    kinds = {weight.dtype for weight in model.parameters()}
    if len(kinds) != 1:
        raise OtherModel("its weights are of several kinds")
    return lay_out(model, *kinds)


def lay_out(model: nn.Module, dtype: torch.dtype) -> Weights:
    """Lay the weights of a model out that was looked at, adapters left aside.

    Frozen layers become views of what is made of them, once; of layers that learn, and of numbers
    of another kind, copies are made.

    Args:
        dtype: what products are to be computed in.
    """
    inner: Any = model
    body, config = inner.model, inner.config
    first, embedding = body.layers[0].self_attn, body.embed_tokens.weight
    return Weights(
        embedding=embedding,
        layers=tuple(
            _take_layer(layer, f"model.layers.{place}", config, (dtype, embedding.dtype))
            for place, layer in enumerate(body.layers)
        ),
        norm=body.norm.weight.to(embedding.dtype),
        head=_join(inner, "", ("lm_head",), dtype),
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_size=first.head_dim,
        epsilon=config.rms_norm_eps,
        scale=float(first.scaling),
        activation=body.layers[0].mlp.act_fn,
        rotary=body.rotary_emb,
        longest=int(config.max_position_embeddings),
    )


def _take_layer(
    layer: Any, name: str, config: Any, dtypes: tuple[torch.dtype, torch.dtype]
) -> Layer:
    """Lay one layer out.

    Args:
        dtypes: of products, and of what they are added to.
    """
    attention, mlp = layer.self_attn, layer.mlp
    kind, heads = config.model_type, None
    dtype, outer = dtypes
    if kind == "qwen3":
        norms = (attention.q_norm.weight, attention.k_norm.weight)
        counts = (config.num_attention_heads, config.num_key_value_heads)
        heads = torch.cat(
            [norm.detach().expand(count, -1) for norm, count in zip(norms, counts, strict=True)]
        ).to(dtype)
    own = config.sliding_window if kind == "mistral" else None
    return Layer(
        name=name,
        norm=layer.input_layernorm.weight.to(outer),
        qkv=_join(attention, "self_attn.", ("q_proj", "k_proj", "v_proj"), dtype),
        heads=heads,
        out=_join(attention, "self_attn.", ("o_proj",), dtype),
        mlp_norm=layer.post_attention_layernorm.weight.to(outer),
        gate_up=_join(mlp, "mlp.", ("gate_proj", "up_proj"), dtype),
        down=_join(mlp, "mlp.", ("down_proj",), dtype),
        window=own if kind in ("llama", "mistral") else attention.sliding_window,
    )


def _join(module: Any, place: str, names: Sequence[str], dtype: torch.dtype) -> Product:
    """Put layers with the same input together; frozen ones become views of the whole."""
    linears = [_without_adapter(module.get_submodule(name)) for name in names]
    parts = tuple(
        (f"{place}{name}", len(linear.weight)) for name, linear in zip(names, linears, strict=True)
    )
    weight = _join_tensors([linear.weight for linear in linears], dtype)
    biases = [linear.bias for linear in linears]
    return Product(weight, None if biases[0] is None else _join_tensors(biases, dtype), parts)


def _without_adapter(linear: nn.Module) -> Any:
    """Return the layer that an adapter was put around, or the layer itself."""
    return linear._modules.get("base_layer", linear)


def _join_tensors(tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    if len(tensors) == 1:
        return tensors[0].detach().to(dtype)
    if any(tensor.requires_grad or tensor.dtype != dtype for tensor in tensors):
        return torch.cat([tensor.detach().to(dtype) for tensor in tensors])
    if (joined := _joined_before(tensors)) is not None:
        return joined
    whole = torch.cat([tensor.detach() for tensor in tensors])
    start = 0
    for tensor in tensors:
        tensor.data = whole[start : start + len(tensor)]
        start += len(tensor)
    return whole


def _joined_before(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return the whole that tensors are views of, if they are all of it."""
    first = tensors[0].detach()
    storage, place = first.untyped_storage(), 0
    for tensor in tensors:
        same = tensor.untyped_storage().data_ptr() == storage.data_ptr()
        if not (same and tensor.storage_offset() == place and tensor.is_contiguous()):
            return None
        place += tensor.numel()
    shape = (sum(map(len, tensors)), *first.shape[1:])
    return first.as_strided(shape, first.stride())


def check_model(model: nn.Module, adapted: Collection[str] = ()) -> None:
    """Refuse a model whose forward pass is not the one written here.

    Args:
        adapted: names of linear layers with adapters around them, which were looked at.

    Raises:
        OtherModel: saying what it has.
    """
    check_family(model)
    inner: Any = model
    config = inner.config
    turns = config.rope_parameters or {}
    kind, turned = turns.get("rope_type"), 2 * len(inner.model.rotary_emb.inv_freq)
    if turns_by_length(model) or turned != inner.model.layers[0].self_attn.head_dim:
        raise OtherModel(f"its positions turn by {kind}, or turn a part of each head only")
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale"):
        if vars(config).get(name) is not None:
            raise OtherModel(f"its configuration has {name}")
    _check_modules(model, adapted)
    _check_weights(inner)


def check_family(model: nn.Module) -> None:
    """Refuse a model of another family.

    Raises:
        OtherModel: naming it.
    """
    from transformers import (
        LlamaForCausalLM,
        MistralForCausalLM,
        Qwen2ForCausalLM,
        Qwen3ForCausalLM,
    )

    known = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
    if type(model) not in known:
        raise OtherModel(f"{type(model).__name__} is none of {', '.join(KINDS)}")


def _check_modules(model: nn.Module, adapted: Collection[str]) -> None:
    """Refuse what was put into, around or in place of the modules of a family."""
    family = type(model).__module__
    plain = (nn.Linear, nn.Embedding, nn.ModuleList, ValueHead)
    below = tuple(f"{name}." for name in adapted)
    for name, module in model.named_modules():
        kind = type(module)
        looked_at = name in adapted or (below and name.startswith(below))
        strange = kind not in plain and kind.__module__ != family and not looked_at
        if strange and list(module.parameters()):
            raise OtherModel(f"{name} is a {kind.__name__}")
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise OtherModel(f"something listens to {name or 'the model'}")


def _check_weights(model: Any) -> None:
    weights = list(model.parameters())
    several = len({weight.device for weight in weights}) != 1
    if several or not all(weight.is_floating_point() for weight in weights):
        raise OtherModel("its weights are kept in few bits, or lie on several devices")
    biased = [
        [
            _without_adapter(linear).bias is None
            for linear in (part.q_proj, part.k_proj, part.v_proj)
        ]
        for part in (layer.self_attn for layer in model.model.layers)
    ]
    if any(len(set(each)) > 1 for each in biased):
        raise OtherModel("only some of its queries, keys and values have a bias")
