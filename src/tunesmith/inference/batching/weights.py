"""The weights of a Llama-like model, laid out for writing many answers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.models.rope_by_length import turns_by_length

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
        """What it counts in."""
        return self.embedding.dtype

    @property
    def token_bytes(self) -> int:
        """Measure what is kept of each token of a text."""
        numbers = 2 * len(self.layers) * self.num_kv_heads * self.head_size
        return numbers * self.embedding.element_size()


def take_weights(model: nn.Module) -> Weights:
    """Lay a model's weights out; its own layers become views of them, so that it still works.

    Raises:
        OtherModel: before anything is changed, if the forward pass written here is not the model's.
    """
    inner: Any = model
    _check_model(inner)
    body, config = inner.model, inner.config
    first = body.layers[0].self_attn
    return Weights(
        embedding=body.embed_tokens.weight,
        layers=tuple(
            _take_layer(layer, f"model.layers.{place}", config)
            for place, layer in enumerate(body.layers)
        ),
        norm=body.norm.weight,
        head=Product(
            inner.lm_head.weight, inner.lm_head.bias, (("lm_head", len(inner.lm_head.weight)),)
        ),
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_size=first.head_dim,
        epsilon=config.rms_norm_eps,
        scale=float(first.scaling),
        activation=body.layers[0].mlp.act_fn,
        rotary=body.rotary_emb,
        longest=int(config.max_position_embeddings),
    )


def _take_layer(layer: Any, name: str, config: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    kind, heads = config.model_type, None
    if kind == "qwen3":
        norms = (attention.q_norm.weight, attention.k_norm.weight)
        counts = (config.num_attention_heads, config.num_key_value_heads)
        heads = torch.cat(
            [norm.detach().expand(count, -1) for norm, count in zip(norms, counts, strict=True)]
        )
    own = config.sliding_window if kind == "mistral" else None
    return Layer(
        name=name,
        norm=layer.input_layernorm.weight,
        qkv=_join(attention, "self_attn", ("q_proj", "k_proj", "v_proj")),
        heads=heads,
        out=_join(attention, "self_attn", ("o_proj",)),
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=_join(mlp, "mlp", ("gate_proj", "up_proj")),
        down=_join(mlp, "mlp", ("down_proj",)),
        window=own if kind in ("llama", "mistral") else attention.sliding_window,
    )


def _join(module: Any, place: str, names: Sequence[str]) -> Product:
    """Put layers with the same input together; they become views of the whole."""
    linears = [module.get_submodule(name) for name in names]
    parts = tuple(
        (f"{place}.{name}", len(linear.weight)) for name, linear in zip(names, linears, strict=True)
    )
    weight = _join_tensors([linear.weight for linear in linears])
    biases = [linear.bias for linear in linears]
    return Product(weight, None if biases[0] is None else _join_tensors(biases), parts)


def _join_tensors(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(tensors) == 1:
        return tensors[0]
    whole = torch.cat([tensor.detach() for tensor in tensors])
    start = 0
    for tensor in tensors:
        tensor.data = whole[start : start + len(tensor)]
        start += len(tensor)
    return whole


def _check_model(model: Any) -> None:
    from transformers import (
        LlamaForCausalLM,
        MistralForCausalLM,
        Qwen2ForCausalLM,
        Qwen3ForCausalLM,
    )

    known = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
    if type(model) not in known:
        raise OtherModel(f"{type(model).__name__} is none of {', '.join(KINDS)}")
    config = model.config
    turns = config.rope_parameters or {}
    kind, turned = turns.get("rope_type"), 2 * len(model.model.rotary_emb.inv_freq)
    if turns_by_length(model) or turned != model.model.layers[0].self_attn.head_dim:
        raise OtherModel(f"its positions turn by {kind}, or turn a part of each head only")
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale"):
        if vars(config).get(name) is not None:
            raise OtherModel(f"its configuration has {name}")
    _check_modules(model)


def _check_modules(model: Any) -> None:
    """Refuse what was put into, around or in place of the modules of a family."""
    family = type(model).__module__
    plain = (nn.Linear, nn.Embedding, nn.ModuleList)
    for name, module in model.named_modules():
        kind = type(module)
        if kind not in plain and kind.__module__ != family and list(module.parameters()):
            raise OtherModel(f"{name} is a {kind.__name__}")
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise OtherModel(f"something listens to {name or 'the model'}")
    shapes = {(weight.dtype, weight.device) for weight in model.parameters()}
    if len(shapes) != 1 or not next(iter(shapes))[0].is_floating_point:
        raise OtherModel("its weights are of several kinds, or lie on several devices")
    biased = [
        [linear.bias is None for linear in (part.q_proj, part.k_proj, part.v_proj)]
        for part in (layer.self_attn for layer in model.model.layers)
    ]
    if any(len(set(each)) > 1 for each in biased):
        raise OtherModel("only some of its queries, keys and values have a bias")
