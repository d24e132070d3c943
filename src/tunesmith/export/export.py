"""Export a run: put it together, write aside, compare with the tuned model, publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tunesmith.errors import ExportError
from tunesmith.export import EXPORTERS
from tunesmith.export.aside import check_target
from tunesmith.export.order import SAFETENSORS, Exported, Form, Order, Precision
from tunesmith.models.blend import Blend, check_adds
from tunesmith.models.chat import Subject, find_adapter, find_subject
from tunesmith.paths import expand

NO_OTHERS: Mapping[str, float] = MappingProxyType({})


def export(
    name: str | Path | Subject,
    to: Path,
    *,
    form: Form = SAFETENSORS,
    precision: Precision = "auto",
    blend: Mapping[str, float] = NO_OTHERS,
    weight: float = 1.0,
) -> Exported:
    """Write a run's model in a form that other programs load; or one that a file puts together.

    An adapter is merged into its base in full precision, whatever it was trained on: adding it to
    few bits would round away most of what was learned. The merged model must give the same greedy
    answers as the tuned one in fp32, and stay within stated limits of it as it is stored; else
    nothing is published.

    Args:
        to: the folder to make; it must not exist, or be empty.
        form: what is written; its name is one of `EXPORTERS`.
        precision: how weights of safetensors are stored; `auto` stores them as the base does.
        blend: runs or folders of other adapters that are added too, and how much of each.
        weight: how much of the run's own adapter is added.

    Raises:
        ExportError: if the disk lacks room, the folder is taken, or the models differ.
    """
    subject = find_subject(name)
    run = subject.run
    if run is None and not isinstance(name, Subject):
        raise ExportError(
            f"{subject.name} is a model, and only runs are exported",
            hint="give the name of a run; see `tunesmith runs list`; what others trained is "
            "exported by a LLaMA-Factory file with model_name_or_path and adapter_name_or_path",
            where="command line",
        )
    subject = with_others(subject, blend, weight)
    to = expand(to).absolute()
    check_target(to)
    _check_calibration(form)
    order = Order(subject, run, to, precision, form.name, form.quantize, form.calibration)
    return EXPORTERS[form.name](order)


def _check_calibration(form: Form) -> None:
    """Refuse rows that nothing would look at."""
    gptq = form.name == SAFETENSORS.name and (form.quantize or "").startswith("gptq")
    if form.calibration is not None and not gptq:
        raise ExportError(
            f"--calibrate has no effect: no rows are looked at for --format {form.name}"
            + (f" --quantize {form.quantize}" if form.quantize else ""),
            hint="remove it, or write --format safetensors --quantize gptq-4",
            where="--calibrate",
        )


def with_others(subject: Subject, blend: Mapping[str, float], weight: float) -> Subject:
    """Add what other adapters say to what the run's own does.

    Raises:
        ExportError: if the run has none, or another is named that is its own.
    """
    if not blend and weight == 1:
        return subject
    if subject.adapter is None:
        raise ExportError(
            "the run trained whole weights, to which no adapters are added",
            hint="export it alone, or name a run that trained lora",
            where=subject.name,
        )
    others = tuple((find_adapter(name, "--also"), share) for name, share in blend.items())
    folders = [subject.adapter.resolve(), *(folder.resolve() for folder, _ in others)]
    if len(set(folders)) < len(folders):
        raise ExportError(
            "an adapter is added twice",
            hint="name each once; --weight is how much of the run's own is added",
            where="--also",
        )
    for folder in folders:
        check_adds(folder)
    return replace(subject, blend=Blend(weight, others))
