"""What a LLaMA-Factory file of chat, api or export asks for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.keys import list_keys
from tunesmith.recipe.llamafactory.measured import Measured, read_measured
from tunesmith.recipe.llamafactory.rules import check_keys, is_off
from tunesmith.recipe.llamafactory.templates import choose_template
from tunesmith.recipe.llamafactory.tuning import convert_quantize, read_adapters
from tunesmith.recipe.llamafactory.values import find_anywhere
from tunesmith.recipe.quantize import Quantize

GPTQ_BITS = (8, 4, 3, 2)
ACTING = ("model", "data", "generate", "evaluate")
Verb = Literal["chat", "serve", "evaluate", "export"]
OF_ALL = (
    "model_name_or_path",
    "adapter_name_or_path",
    "template",
    "finetuning_type",
    "quantization_bit",
    "quantization_method",
    "quantization_type",
    "double_quantization",
)
OF_TALK = (
    "default_system",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "max_new_tokens",
)
OF_ROWS = ("dataset", "val_size", "dataset_dir", "max_samples", "cutoff_len")
ACTS: dict[Verb, tuple[str, ...]] = {
    "chat": (*OF_ALL, *OF_TALK),
    "serve": (*OF_ALL, *OF_TALK),
    "evaluate": (
        *OF_ALL,
        *("do_eval", "do_predict", "predict_with_generate", "eval_dataset", "dataset", "val_size"),
        *("dataset_dir", "media_dir", "cutoff_len", "max_samples", "default_system", "stage"),
        *("image_max_pixels", "video_max_pixels", "video_fps", "video_maxlen"),
        *("max_new_tokens", "output_dir", "overwrite_output_dir", "compute_accuracy"),
    ),
    "export": (
        *OF_ALL,
        *("export_dir", "infer_dtype", "export_quantization_bit", "export_quantization_dataset"),
        *("export_quantization_nsamples", "export_quantization_maxlen"),
    ),
}
"""Keys that say something of what a command does."""
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
        measured: what an evaluation measures; None for other commands.
        notes: why a key says nothing of what is done; by key.
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
    measured: Measured | None = None
    notes: dict[str, str] = field(default_factory=dict)


def read_use(
    theirs: TheirFile, around: Around, verb: Verb = "chat", *, to_export: bool = False
) -> Use:
    """Read which model is used, and how.

    Args:
        to_export: whether the file must name the folder of an export.

    Raises:
        RecipeError: naming the key and its line, if it cannot be.
    """
    check_keys(theirs, ACTING)
    _refuse_training(theirs, verb)
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
        measured=read_measured(theirs, chosen.system) if verb == "evaluate" else None,
        notes=_notes(theirs, verb, chosen.note),
    )


def _refuse_training(theirs: TheirFile, verb: Verb) -> None:
    """Refuse a file of training: it names the base, and not what it became."""
    if not theirs["do_train"]:
        return
    trained = theirs["output_dir"]
    raise theirs.refusal(
        "do_train",
        "the file asks for training, and names the model that it begins with",
        f"`tunesmith {verb} {shlex.quote(str(trained))}` takes what it trained"
        if trained
        else "`tunesmith train` takes it; name the run here",
    )


def _notes(theirs: TheirFile, verb: Verb, of_template: str) -> dict[str, str]:
    """Say why keys that are given say nothing of what is done."""
    found = {}
    own_rows = verb == "evaluate" and not theirs.has("eval_dataset")
    for name in theirs.given:
        key = list_keys()[name]
        if own_rows and name in OF_ROWS and not is_off(key, theirs[name]):
            found[name] = "the rows that the run held out are measured, as it was trained on them"
            continue
        if name in ACTS[verb] or is_off(key, theirs[name]):
            continue
        if key.ignored:
            found[name] = key.ignored
        elif name.startswith("export_"):
            found[name] = "it is for export"
        elif name == "infer_dtype":
            found[name] = "numbers are chosen for the device; serve has --precision"
        elif key.group == "generate":
            found[name] = (
                "measured answers are the likeliest ones, the same each time"
                if verb == "evaluate"
                else "it is for chat and serve"
            )
        else:
            found[name] = "it is for training" + (" and evaluation" if verb != "evaluate" else "")
    return {**found, **({"template": of_template} if of_template else {})}


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
