"""What llama.cpp must know of each architecture, and how its weights differ from ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import ExportError
from tunesmith.export.gguf.rope import describe_rope

Field = bool | int | float | str | list[int] | list[float] | list[str]
Fields = dict[str, Field]
SILU, TANH_GELU = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_new")


@dataclass(frozen=True)
class Family:
    """An architecture by llama.cpp's name.

    Attributes:
        describe: gives the fields that only this one has; refuses what it cannot say.
        interleaved: whether queries and keys turn in neighbouring pairs, not in halves.
        norms_from_one: whether a norm's weight is stored as its distance from one.
        activations: what its layers compute.
        exactness: how near llama.cpp's log-probabilities are to ours in fp32, absolute for likely
            tokens and relative for others; it looks GELU up in a table of half precision.
    """

    name: str
    describe: Callable[[Any], Fields]
    interleaved: bool = False
    norms_from_one: bool = False
    activations: Sequence[str] = SILU
    exactness: float = 1e-4


def find_family(architecture: str, where: str) -> Family:
    """Find how llama.cpp calls an architecture.

    Raises:
        ExportError: listing what works, if it is none of these.
    """
    if architecture not in FAMILIES:
        raise ExportError(
            f"GGUF is not written for the architecture {architecture}",
            hint="use --format safetensors; GGUF works for "
            + ", ".join(name.removesuffix("ForCausalLM") for name in FAMILIES),
            where=where,
        )
    return FAMILIES[architecture]


def describe_model(family: Family, config: Any) -> Fields:
    """List the fields that describe a model, but for its vocabulary.

    Raises:
        ExportError: if llama.cpp would compute something else.
    """
    given = config.to_dict()
    activation = given.get("hidden_activation") or given.get("hidden_act")
    _demand(config, activation in family.activations, f"the activation {activation}")
    heads, width = config.num_attention_heads, config.hidden_size
    head = given.get("head_dim") or width // heads
    fields: Fields = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": width,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": given.get("num_key_value_heads") or heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "vocab_size": config.vocab_size,
    }
    fields |= describe_rope(given, head) | family.describe(config)
    return {f"{family.name}.{name}": value for name, value in fields.items()}


def _llama(config: Any) -> Fields:
    """Say where the context ends: at the window, if there is one, which llama.cpp never moves."""
    window = config.to_dict().get("sliding_window")
    if not window:
        return {}
    return {"context_length": min(window, config.max_position_embeddings)}


def _mixtral(config: Any) -> Fields:
    experts = {
        "expert_count": config.num_local_experts,
        "expert_used_count": config.num_experts_per_tok,
    }
    return {**_llama(config), **experts}


def _qwen(config: Any) -> Fields:
    kinds = set(config.to_dict().get("layer_types") or ["full_attention"])
    _demand(config, kinds == {"full_attention"}, "a sliding window")
    return {}


def _qwen_moe(config: Any) -> Fields:
    renormalizes = config.model_type == "qwen3_moe"
    _demand(config, config.norm_topk_prob == renormalizes, f"norm_topk_prob: {not renormalizes}")
    dense = config.decoder_sparse_step != 1 or bool(config.mlp_only_layers)
    _demand(config, not dense, "layers without experts between those with")
    fields: Fields = {
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
    }
    shared = config.to_dict().get("shared_expert_intermediate_size")
    if shared:
        fields["expert_shared_feed_forward_length"] = shared
    return {**_qwen(config), **fields}


def _gemma(config: Any) -> Fields:
    _demand(config, config.tie_word_embeddings, "a head of its own")
    return {}


def _gemma2(config: Any) -> Fields:
    _check_scale(config, deep=46)
    _check_windows(config, every=2)
    return {
        **_gemma(config),
        "attn_logit_softcapping": float(config.attn_logit_softcapping or 0),
        "final_logit_softcapping": float(config.final_logit_softcapping or 0),
        "attention.sliding_window": config.sliding_window,
    }


def _gemma3(config: Any) -> Fields:
    _check_scale(config, deep=62)
    _check_windows(config, every=6)
    capped = config.to_dict().get("attn_logit_softcapping")
    _demand(config, not capped, "capped attention")
    fields: Fields = {"attention.sliding_window": config.sliding_window}
    if config.final_logit_softcapping:
        fields["final_logit_softcapping"] = float(config.final_logit_softcapping)
    return fields


def _check_scale(config: Any, *, deep: int) -> None:
    """Refuse a scale of attention other than the one that llama.cpp takes by the depth."""
    whole = config.hidden_size // config.num_attention_heads
    meant = whole if config.num_hidden_layers == deep else config.head_dim
    scale = config.query_pre_attn_scalar
    _demand(config, scale == meant, f"query_pre_attn_scalar: {scale}, where it takes {meant}")


def _check_windows(config: Any, *, every: int) -> None:
    """Refuse windows elsewhere than llama.cpp has them: everywhere but on each n-th layer."""
    count = config.num_hidden_layers
    meant = ["full" if at % every == every - 1 else "sliding" for at in range(count)]
    kinds = [kind.removesuffix("_attention") for kind in config.layer_types]
    _demand(config, kinds == meant, f"sliding windows other than on all but each {every}. layer")


def _glm(config: Any) -> Fields:
    whole = config.num_attention_heads * config.head_dim == config.hidden_size
    _demand(config, whole, "heads that are not as wide as the model together")
    return {}


def _glm4(config: Any) -> Fields:
    return {}


def _phi3(config: Any) -> Fields:
    return {"attention.sliding_window": 0, **_llama(config)}


def _demand(config: Any, true: bool, what: str) -> None:
    if not true:
        raise ExportError(
            f"llama.cpp computes {config.model_type} without {what}",
            hint="use --format safetensors",
            where="config.json",
        )


GELU: dict[str, Any] = {"norms_from_one": True, "activations": TANH_GELU, "exactness": 1e-2}
FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama", _llama, interleaved=True),
    "MistralForCausalLM": Family("llama", _llama, interleaved=True),
    "MixtralForCausalLM": Family("llama", _mixtral, interleaved=True),
    "Qwen2ForCausalLM": Family("qwen2", _qwen),
    "Qwen3ForCausalLM": Family("qwen3", _qwen),
    "Qwen2MoeForCausalLM": Family("qwen2moe", _qwen_moe),
    "Qwen3MoeForCausalLM": Family("qwen3moe", _qwen_moe),
    "GemmaForCausalLM": Family("gemma", _gemma, **GELU),
    "Gemma2ForCausalLM": Family("gemma2", _gemma2, **GELU),
    "Gemma3ForCausalLM": Family("gemma3", _gemma3, **GELU),
    "GlmForCausalLM": Family("chatglm", _glm),
    "Glm4ForCausalLM": Family("glm4", _glm4),
    "Phi3ForCausalLM": Family("phi3", _phi3),
}
