"""llama.cpp computes from each family's file what transformers computes from the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from tests.unit.export.gguf.listening import (
    draw_tokens,
    largest_difference,
    make_loud,
    score_ours,
    score_theirs,
)
from tunesmith.errors import ExportError
from tunesmith.export.gguf.write import write_gguf
from tunesmith.models.chat import ChatModel

EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
}
WINDOW: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "rope_theta": 10000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG: dict[str, Any] = {
    "model_type": "phi3",
    "max_position_embeddings": 128,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.5, 2.0, 3.0, 4.0],
    },
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "gemma": {"model_type": "gemma", "head_dim": 16},
    "gemma2": {
        "model_type": "gemma2",
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        **WINDOW,
    },
    "gemma3": {"model_type": "gemma3_text", "num_hidden_layers": 7, **WINDOW},
    "glm": {"model_type": "glm", "head_dim": 8, "attention_bias": True},
    "glm4": {"model_type": "glm4", "head_dim": 16},
    "phi3": {"model_type": "phi3", "sliding_window": None},
    "mixtral": {
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "qwen2_moe": {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 32, **EXPERTS},
    "qwen3_moe": {"model_type": "qwen3_moe", "head_dim": 16, "norm_topk_prob": True, **EXPERTS},
    "llama3": {"model_type": "llama", "head_dim": 16, "rope_parameters": LLAMA3},
    "linear": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    },
    "yarn": {"model_type": "qwen3", "head_dim": 16, "rope_parameters": YARN},
    "own yarn": {
        "model_type": "qwen3",
        "head_dim": 16,
        "rope_parameters": {**YARN, "attention_factor": 1.3},
    },
    "longrope": LONG,
    "gemma3 stretched": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        },
        **WINDOW,
    },
}


SLOW = (
    "biased",
    "mixtral",
    "qwen2_moe",
    "longrope",
    "own yarn",
    "gemma3 stretched",
    "linear",
    "gemma",
)


@pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, marks=[pytest.mark.proof] if shape in SLOW else []) for shape in SHAPES],
)
def test_llama_cpp_computes_what_transformers_does(shape: str, tmp_path: Path) -> None:
    chat, tokens = make_loud(tmp_path / "model", **SHAPES[shape]), draw_tokens(44)
    ours = score_ours(chat.model, tokens)
    theirs = score_theirs(chat, tmp_path / "model.gguf", tokens)
    limit = 5e-3 if "gemma" in shape else 2e-5  # GELU comes from a table of half precision
    assert largest_difference(theirs, ours) < limit
    assert ours.std() > 0.5


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"model_type": "gpt2"}, "GGUF is not written for the architecture GPT2LMHeadModel"),
        ({"model_type": "cohere"}, "not written for the architecture CohereForCausalLM"),
        (
            {"model_type": "llama", "hidden_act": "relu"},
            "llama.cpp computes llama without the activation relu",
        ),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 0},
            "llama.cpp computes qwen2 without a sliding window",
        ),
        (
            {"model_type": "gemma2", **WINDOW, "query_pre_attn_scalar": 8},
            "query_pre_attn_scalar: 8, where it takes 16",
        ),
        (
            {"model_type": "gemma3_text", **WINDOW, "layer_types": ["full_attention"] * 3},
            "without sliding windows other than on all but each 6. layer",
        ),
        (
            {"model_type": "qwen3_moe", **EXPERTS, "norm_topk_prob": False},
            "llama.cpp computes qwen3_moe without norm_topk_prob: False",
        ),
        (
            {"model_type": "glm", "head_dim": 16},
            "without heads that are not as wide as the model together",
        ),
        (
            {
                "model_type": "llama",
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
            },
            "llama.cpp has no rope of the kind dynamic",
        ),
        (
            {"model_type": "llama", "rope_parameters": {**YARN, "beta_slow": 2}},
            "llama.cpp has only the usual yarn",
        ),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    tmp_path: Path, shape: dict[str, Any], says: str
) -> None:
    chat = make_loud(tmp_path / "model", **shape)
    with pytest.raises(ExportError, match=says.replace(".", r"\.")) as caught:
        write_gguf(chat, tmp_path / "model.gguf", "f32")
    assert "--format safetensors" in caught.value.hint
    assert not (tmp_path / "model.gguf").exists()


def test_the_context_ends_at_a_window_that_llama_cpp_never_moves(tmp_path: Path) -> None:
    chat = make_loud(tmp_path / "model", model_type="mistral", sliding_window=48)
    write_gguf(chat, tmp_path / "model.gguf", "f32")
    fields = gguf.GGUFReader(str(tmp_path / "model.gguf")).fields
    assert fields["llama.context_length"].contents() == 48
    assert fields["general.name"].contents() == "model"  # and not the path of its folder


def test_one_weight_at_a_time_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from tunesmith.export.gguf import write

    alive: list[weakref.ref[Any]] = []
    most = 0
    pack = write.pack

    def counting(values: Any, kind: str) -> Any:
        nonlocal most
        packed = pack(values, kind)
        alive.append(weakref.ref(packed))
        most = max(most, sum(each() is not None for each in alive))
        return packed

    chat: ChatModel = make_loud(tmp_path / "model", model_type="llama")
    monkeypatch.setattr(write, "pack", counting)
    write_gguf(chat, tmp_path / "model.gguf", "f16")
    assert most <= 2
    assert len(alive) > 20
    assert torch.is_tensor(chat.model.get_input_embeddings().weight)  # type: ignore[operator]
