"""What a LLaMA-Factory file of chat, api or export asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.rules import check_keys
from tunesmith.recipe.llamafactory.templates import choose_template
from tunesmith.recipe.llamafactory.tuning import convert_quantize, read_adapters
from tunesmith.recipe.llamafactory.values import find_anywhere
from tunesmith.recipe.quantize import Quantize

GPTQ_BITS = (8, 4, 3, 2)
ACTING = ("model", "data", "generate")
Stored = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: dict[str, Stored] = {
    "auto": "auto",
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
}


@dataclass(frozen=True)
class FewBits:
    """How an export is packed, by GPTQ.

    Attributes:
        file: of texts to look at; None for the rows that the run learned from.
        rows, tokens: of it.
    """

    bits: int
    file: Path | None
    rows: int
    tokens: int


@dataclass(frozen=True)
class Use:
    """A trained model, and how it is used.

    Attributes:
        model: the base, or a whole model.
        adapters: folders of adapters over it, one after another.
        template: a chat template in place of the model's own.
        sampling: by our names.
        to: the folder that an export makes.
        precision: how an export stores weights.
        few_bits: how it packs them; None if it does not.
    """

    model: str
    adapters: tuple[str, ...]
    template: str | None
    quantize: Quantize | None
    system: str
    sampling: dict[str, Any] = field(default_factory=dict)
    to: Path | None = None
    precision: Stored = "auto"
    few_bits: FewBits | None = None


def read_use(theirs: TheirFile, around: Around, *, to_export: bool = False) -> Use:
    """Read which model is used, and how.

    Args:
        to_export: whether the file must name the folder of an export.

    Raises:
        RecipeError: naming the key and its line, if it cannot be.
    """
    check_keys(theirs, ACTING)
    if theirs.ours:
        raise theirs.refusal(
            theirs.ours[0], f"{theirs.ours[0]} is an option of recipes", "write key=value"
        )
    if not theirs.has("model_name_or_path"):
        raise theirs.refusal(
            "model_name_or_path",
            "model_name_or_path is missing",
            "write model_name_or_path: Qwen/Qwen3-0.6B",
        )
    if theirs["rope_scaling"] is not None:
        raise theirs.refusal(
            "rope_scaling",
            "how positions are stretched is part of a run, or of a model's config.json",
            "remove it",
        )
    if to_export:
        _check_export(theirs)
    chosen = choose_template(theirs, around)
    bits = theirs["quantization_bit"]
    quantize: Quantize | None = (
        None if bits is None else TypeAdapter(Quantize).validate_python(convert_quantize(theirs))
    )
    return Use(
        model=find_anywhere(theirs["model_name_or_path"]),
        adapters=_adapters(theirs),
        template=chosen.template,
        quantize=quantize,
        system=theirs["default_system"] or chosen.system or "",
        sampling=_sampling(theirs),
        to=Path(theirs["export_dir"]) if theirs.has("export_dir") else None,
        precision=PRECISIONS[theirs["infer_dtype"]],
        few_bits=_few_bits(theirs),
    )


def _few_bits(theirs: TheirFile) -> FewBits | None:
    bits, file = theirs["export_quantization_bit"], theirs["export_quantization_dataset"]
    if bits is None:
        if file is not None:
            raise theirs.refusal(
                "export_quantization_dataset",
                "it has no effect without export_quantization_bit",
                "write export_quantization_bit: 4, or remove it",
            )
        return None
    if bits not in GPTQ_BITS:
        raise theirs.refusal(
            "export_quantization_bit", f"GPTQ packs no {bits} bits", "write 8, 4, 3 or 2"
        )
    rows, tokens = theirs["export_quantization_nsamples"], theirs["export_quantization_maxlen"]
    return FewBits(bits, None if file is None else Path(file), rows, tokens)


def _check_export(theirs: TheirFile) -> None:
    if not theirs.has("export_dir"):
        raise theirs.refusal(
            "export_dir", "export_dir is missing", "write export_dir: the folder to make"
        )
    if theirs["quantization_bit"] is not None:
        raise theirs.refusal(
            "quantization_bit",
            "an adapter is merged into the whole base, never into few bits",
            "remove it",
        )


def _adapters(theirs: TheirFile) -> tuple[str, ...]:
    adapters = read_adapters(theirs)
    if len(adapters) > 1 and theirs["quantization_bit"] is not None:
        raise theirs.refusal(
            "adapter_name_or_path",
            "several adapters are added to the whole base, never to few bits",
            "name one, or remove quantization_bit",
        )
    if adapters and theirs["finetuning_type"] not in ("lora", "oft"):
        raise theirs.refusal(
            "adapter_name_or_path",
            f"an adapter is of finetuning_type: lora or oft, not {theirs['finetuning_type']}",
            "write finetuning_type: lora",
        )
    return tuple(adapters)


def _sampling(theirs: TheirFile) -> dict[str, Any]:
    """Name what draws an answer in our words; greedy is a temperature of 0."""
    return {
        "temperature": theirs["temperature"] if theirs["do_sample"] else 0.0,
        "top_p": theirs["top_p"],
        "top_k": theirs["top_k"],
        "repetition_penalty": theirs["repetition_penalty"],
        "max_tokens": theirs["max_new_tokens"],
    }
