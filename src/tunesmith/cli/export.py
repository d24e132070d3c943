"""`tunesmith export`: from a run to a model that others load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from tunesmith.errors import ExportError

if TYPE_CHECKING:
    from tunesmith.export.order import Form
    from tunesmith.recipe.llamafactory.use import Use


Weight = Annotated[
    float, typer.Option(help="How much of the run's own adapter is added, beside --also.")
]
Quantize = Annotated[
    Optional[str],
    typer.Option(
        help="How weights are packed. GGUF: f32, f16, bf16, q8_0, q6_k, q5_k_m or q4_k_m. "
        "Safetensors: gptq-8, gptq-4, gptq-3, gptq-2, int8 or nf4. If not given, as the base is "
        "stored."
    ),
]
CalibrateOn = Annotated[
    Optional[Path],
    typer.Option(help="Texts that GPTQ looks at; without it, rows that the run learned from."),
]
CalibrateRows = Annotated[
    Optional[int], typer.Option(min=1, help="How many rows GPTQ looks at: 128 if not said.")
]
CalibrateTokens = Annotated[
    Optional[int], typer.Option(min=1, help="How many tokens of each: 1024 if not said.")
]


def export(
    name: Annotated[
        str, typer.Argument(help="A run, a checkpoint of one, or LLaMA-Factory's file.")
    ],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys that replace the file's."),
    ] = None,
    to: Annotated[
        Optional[Path], typer.Option("--to", help="The folder to make; a file may name it.")
    ] = None,
    also: Annotated[
        Optional[list[str]],
        typer.Option(
            "--also",
            metavar="NAME=WEIGHT",
            help="Another run's adapter, or a folder of one, that is added too; may be repeated.",
        ),
    ] = None,
    weight: Weight = 1.0,
    form: Annotated[
        Literal["safetensors", "gguf", "ollama", "adapter", "gguf-adapter"],
        typer.Option(
            "--format",
            help="safetensors; gguf for llama.cpp; ollama, a folder for `ollama create`; the "
            "adapter alone, for PEFT (adapter) or for llama.cpp (gguf-adapter).",
        ),
    ] = "safetensors",
    quantize: Quantize = None,
    calibrate_on: CalibrateOn = None,
    calibrate_rows: CalibrateRows = None,
    calibrate_tokens: CalibrateTokens = None,
    precision: Annotated[
        Optional[Literal["auto", "fp32", "bf16", "fp16"]],
        typer.Option(help="How safetensors are stored; auto, the default, does as the base."),
    ] = None,
) -> None:
    """Write a run for other programs, after proving that it answers the same."""
    from tunesmith.cli.show_export import show_exported
    from tunesmith.cli.show_notes import find_noted
    from tunesmith.export.export import export as export_run

    given = find_noted(name, overrides, "export", to_export=to is None)
    folder = to or (given.use.to if given.use else None)
    if folder is None:
        raise ExportError(
            "no folder is named to export to", hint="write --to FOLDER", where="command line"
        )
    exported = export_run(
        given.name,
        folder,
        form=read_form(form, quantize, (calibrate_on, calibrate_rows, calibrate_tokens), given.use),
        precision=precision or (given.use.precision if given.use else "auto"),
        blend=read_blend(also or (), weight),
        weight=weight,
    )
    show_exported(exported, of_run=isinstance(given.name, str) or given.name.run is not None)


def read_form(
    name: str,
    quantize: str | None,
    calibrate: tuple[Path | None, int | None, int | None],
    use: Use | None,
) -> Form:
    """Put together what is written, by the options and else by a file.

    Args:
        calibrate: file, rows and tokens, as far as they were said.

    Raises:
        ExportError: if the file asks for few bits that this form does not hold.
    """
    from tunesmith.export.order import SAFETENSORS, Calibration, Form

    file, rows, tokens = calibrate
    told = use.few_bits if use and quantize is None else None
    if told is not None and name != SAFETENSORS.name:
        raise ExportError(
            f"the file asks for GPTQ in {told.bits} bits, which --format {name} does not hold",
            hint="remove export_quantization_bit from it, or leave out --format",
            where="export_quantization_bit",
        )
    if told is not None:
        quantize = f"gptq-{told.bits}"
        file, rows, tokens = file or told.file, rows or told.rows, tokens or told.tokens
    if not any(each is not None for each in (file, rows, tokens)):
        return Form(name, quantize)
    usual = Calibration()
    return Form(name, quantize, Calibration(file, rows or usual.rows, tokens or usual.tokens))


def read_blend(also: Sequence[str], weight: float) -> dict[str, float]:
    """Read which other adapters are added, and how much of each.

    Raises:
        ExportError: if one is named twice, or a weight is no number.
    """
    if not math.isfinite(weight):
        raise ExportError("--weight is no number", hint="write 0.5", where="--weight")
    blend = dict(read_weight(each) for each in also)
    if len(blend) < len(also):
        raise _bad_weight("an adapter is named twice", "name each once")
    return blend


def read_weight(given: str) -> tuple[str, float]:
    """Read NAME=WEIGHT.

    Raises:
        ExportError: if it is none, or the weight no number.
    """
    name, _, weight = given.rpartition("=")
    try:
        found = float(weight)
    except ValueError:
        found = math.nan
    if not name or not math.isfinite(found):
        raise _bad_weight(f"{given!r} is no adapter and its weight", "write NAME=0.5")
    return name, found


def _bad_weight(message: str, hint: str) -> ExportError:
    return ExportError(message, hint=hint, where="--also")
