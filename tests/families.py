"""Shapes of model families, so small that a proof can train one of each."""

from __future__ import annotations

from typing import Any

GROUPED: dict[str, Any] = {"num_key_value_heads": 2}
HEADS: dict[str, Any] = {**GROUPED, "head_dim": 16}
ROUTED: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL: dict[str, Any] = {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
DEEP: dict[str, Any] = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
SLIDING: dict[str, Any] = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"],
}
OLDER: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_d_ssm": 64,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "Llama 2": {"model_type": "llama", "num_key_value_heads": 4},
    "Llama 3": {
        "model_type": "llama",
        **GROUPED,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "Llama 4": {"model_type": "llama4_text", **HEADS, **LOCAL, "intermediate_size_mlp": 64, "attention_chunk_size": 64},
    "Yi": {"model_type": "llama", **GROUPED, "rms_norm_eps": 1e-5},
    "Qwen 2, 2.5": {"model_type": "qwen2", **GROUPED},
    "Qwen 2 MoE": {
        "model_type": "qwen2_moe", **GROUPED, **ROUTED, "shared_expert_intermediate_size": 32
    },
    "Qwen 3": {"model_type": "qwen3", **HEADS, "tie_word_embeddings": True},
    "Qwen 3 MoE": {"model_type": "qwen3_moe", **HEADS, **ROUTED, "decoder_sparse_step": 1},
    "Qwen 3 Next": {
        "model_type": "qwen3_next", **HEADS, **ROUTED,
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "Qwen 3.5": {
        "model_type": "qwen3_5_text", **HEADS,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "Mistral": {"model_type": "mistral", **GROUPED, "sliding_window": 6},
    "Ministral 3": {"model_type": "ministral3", **HEADS},
    "Mixtral": {"model_type": "mixtral", **GROUPED, **LOCAL, "sliding_window": None},
    "GLM": {"model_type": "glm", **HEADS},
    "GLM 4": {"model_type": "glm4", **HEADS},
    "GLM 4 MoE": {"model_type": "glm4_moe", **HEADS, **DEEP},
    "BLOOM": {"model_type": "bloom", "n_head": 4, "n_layer": 2},
    "Gemma": {"model_type": "gemma", **HEADS},
    "Gemma 2": {
        "model_type": "gemma2", **HEADS,
        "sliding_window": 6,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 16,
    },
    "Gemma 3": {"model_type": "gemma3_text", **HEADS, **SLIDING},
    "Gemma 3n": {"model_type": "gemma3n_text", **HEADS, **SLIDING, "vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8, "laurel_rank": 8, "num_kv_shared_layers": 0, "intermediate_size": [64, 64], "activation_sparsity_pattern": [0.0, 0.0]},
    "Gemma 4": {"model_type": "gemma4_text", **HEADS, **SLIDING, "vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
    "Phi 1, 2": {"model_type": "phi"},
    "Phi 3, 4": {"model_type": "phi3", **GROUPED},
    "Phi MoE": {"model_type": "phimoe", **GROUPED, **LOCAL},
    "DeepSeek 2": {"model_type": "deepseek_v2", **LATENT, **DEEP},
    "DeepSeek 3": {"model_type": "deepseek_v3", **LATENT, **DEEP},
    "InternLM 3": {"model_type": "internlm3", **HEADS},
    "MiniCPM 3": {"model_type": "minicpm3", **LATENT},
    "gpt-oss": {"model_type": "gpt_oss", **HEADS, **LOCAL, **SLIDING},
    "OLMo": {"model_type": "olmo", **GROUPED},
    "OLMo 2": {"model_type": "olmo2", **GROUPED},
    "OLMo 3": {"model_type": "olmo3", **GROUPED, **SLIDING},
    "OLMoE": {"model_type": "olmoe", **GROUPED, **ROUTED},
    "SmolLM 3": {"model_type": "smollm3", **GROUPED},
    "Granite": {"model_type": "granite", **GROUPED, "logits_scaling": 4.0},
    "Granite MoE": {"model_type": "granitemoe", **GROUPED, **LOCAL},
    "Granite 4": {
        "model_type": "granitemoehybrid", **GROUPED, **LOCAL,
        "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8,
    },
    "Command R": {"model_type": "cohere", **GROUPED, "logit_scale": 0.25},
    "Command R7B": {"model_type": "cohere2", **GROUPED, **SLIDING},
    "Falcon": {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2},
    "Falcon H1": {"model_type": "falcon_h1", **GROUPED, **MAMBA},
    "StarCoder 2": {"model_type": "starcoder2", **GROUPED},
    "ERNIE 4.5": {"model_type": "ernie4_5", **HEADS},
    "ERNIE 4.5 MoE": {
        "model_type": "ernie4_5_moe", **GROUPED, "moe_num_experts": 4, "moe_k": 2,
        "moe_intermediate_size": 32, "moe_num_shared_experts": 1,
        "moe_layer_start_index": 0, "moe_layer_end_index": 1,
    },
    "Hunyuan": {"model_type": "hunyuan_v1_dense", **HEADS},
    "Hunyuan MoE": {"model_type": "hunyuan_v1_moe", **HEADS, "num_experts": 4, "moe_topk": 2},
    "Seed-OSS": {"model_type": "seed_oss", **HEADS},
    "EXAONE 4": {"model_type": "exaone4", **HEADS, **SLIDING},
    "MiniMax M2": {"model_type": "minimax_m2", **HEADS, **LOCAL},
    "LFM 2": {"model_type": "lfm2", **GROUPED, "layer_types": ["conv", "full_attention"]},
    "Jamba": {"model_type": "jamba", **GROUPED, "num_experts": 4, "mamba_d_state": 8, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "Mamba": {"model_type": "mamba", "state_size": 8},
    "StableLM": {"model_type": "stablelm", "num_key_value_heads": 4},
    "GPT-2": {"model_type": "gpt2", **OLDER},
    "GPT-NeoX, Pythia": {"model_type": "gpt_neox"},
    "GPT-J": {"model_type": "gptj", **OLDER, "rotary_dim": 8},
    "OPT": {"model_type": "opt", "ffn_dim": 64, "word_embed_proj_dim": 32},
    "MPT": {"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
}
