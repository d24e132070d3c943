"""Families whose models are code in the folder, which is never run: what to take instead."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import ModelError

NEVER = "code in a model folder is never run"
REMOTE: dict[str, tuple[str, str]] = {
    "chatglm": ("ChatGLM", "take GLM 4 as transformers holds it: model_type glm or glm4"),
    "baichuan": ("Baichuan", "take a family that is built in, such as qwen3 or llama"),
    "internlm": ("InternLM", "take InternLM 3, which is built in: model_type internlm3"),
    "internlm2": ("InternLM 2", "take InternLM 3, which is built in: model_type internlm3"),
    "minicpm": ("MiniCPM", "take MiniCPM 3, which is built in: model_type minicpm3"),
    "qwen": ("Qwen 1", "take Qwen 1.5 or later, which are built in: model_type qwen2 or qwen3"),
    "Yi": ("Yi, first files", "take the newer files of the same model: model_type llama"),
    "deepseek": ("DeepSeek 1 MoE", "take DeepSeek 2 or 3: model_type deepseek_v2 or deepseek_v3"),
    "phi-msft": ("Phi, first files", "take the newer files of the same model: model_type phi"),
    "mixformer-sequential": ("Phi 1, first files", "take the newer files: model_type phi"),
    "RefinedWeb": ("Falcon, first files", "take the newer files: model_type falcon"),
    "RefinedWebModel": ("Falcon, first files", "take the newer files: model_type falcon"),
    "stablelm_epoch": ("StableLM, first files", "take the newer files: model_type stablelm"),
}
"""By model_type: what people call a family that transformers does not hold, and a way out."""
OTHERWISE = "take a family that is built into transformers, such as qwen3 or llama"


def code_asked(path: Path, field: str, kind: object) -> ModelError:
    """Say why a folder that asks for code of its own is refused.

    Args:
        path: the file that asks.
        field: the field of it that does.
        kind: `model_type` of the folder.
    """
    known = isinstance(kind, str) and is_built_in(kind)
    if isinstance(kind, str) and not known:
        family, way_out = REMOTE.get(kind, (f"the architecture {kind!r}", OTHERWISE))
        return ModelError(
            f"{family} is not built into transformers: the field {field} asks for code from "
            f"outside, and {NEVER}",
            hint=way_out,
            where=str(path),
        )
    return ModelError(
        f"the field {field} asks for code from outside",
        hint=f"{NEVER}; remove the field, "
        + (f"{kind} is built into transformers" if known else "if transformers can do without"),
        where=str(path),
    )


def not_built_in(path: Path, kind: object) -> ModelError:
    """Say why an architecture that transformers does not hold is refused."""
    if isinstance(kind, str) and kind in REMOTE:
        family, way_out = REMOTE[kind]
        return ModelError(
            f"{family} (model_type {kind!r}) is not built into transformers: its models are code "
            f"in the folder, and {NEVER}",
            hint=way_out,
            where=str(path),
        )
    return ModelError(
        f"the architecture {kind!r} is not a causal language model that transformers knows",
        hint=f"{OTHERWISE}, or a newer tunesmith; {NEVER}",
        where=str(path),
    )


def is_built_in(kind: str) -> bool:
    """Whether transformers holds an architecture."""
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING
