"""Export a run: merge, write aside, compare with the tuned model, publish."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from tunesmith.errors import ExportError, ModelError, RecipeError, RunError
from tunesmith.export.classes import check_same_classes, distance_of, score_probes
from tunesmith.export.layout import write_classifier, write_folder
from tunesmith.export.parity import (
    Distance,
    Reference,
    check_distance,
    check_same_answers,
    check_tokens,
    measure_distance,
    read_probes,
    take_reference,
)
from tunesmith.hardware import disk_free
from tunesmith.models.blend import Blend, check_adds
from tunesmith.models.chat import (
    ChatModel,
    Subject,
    find_adapter,
    find_subject,
    has_few_bits,
    load_subject,
)
from tunesmith.models.classes import Classifier, load_classifier
from tunesmith.models.inspect import labels_of, read_config
from tunesmith.paths import expand
from tunesmith.runs.run import Run
from tunesmith.runs.write import sync_folder, sync_tree, write_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Precision = Literal["auto", "fp32", "bf16", "fp16"]
STORED = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
NO_OTHERS: Mapping[str, float] = MappingProxyType({})
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
REPORT = "parity.json"
OTHER_FILES_BYTES = 64 << 20


@dataclass(frozen=True)
class Exported:
    """A published model.

    Attributes:
        near_ties: answers that differ only where two tokens were equally likely.
        distance: of the stored model from the tuned one, on the base in full precision.
        from_quantized: of the stored model from the adapter on the quantized base that it was
            trained on; None if the base was not quantized.
        labels: how many classes a classifier names; 0 for a model that answers.
    """

    folder: Path
    precision: str
    num_bytes: int
    num_probes: int
    near_ties: int
    distance: Distance
    from_quantized: Distance | None = None
    labels: int = 0


def export(
    name: str | Path | Subject,
    to: Path,
    *,
    precision: Precision = "auto",
    blend: Mapping[str, float] = NO_OTHERS,
    weight: float = 1.0,
) -> Exported:
    """Write a run's model as one folder of safetensors with everything a server needs.

    An adapter is merged into its base in full precision, whatever it was trained on: adding it to
    few bits would round away most of what was learned. The merged model must give the same greedy
    answers as the tuned one in fp32, and stay within stated limits of it in the precision it is
    stored in; else nothing is published.

    Args:
        to: the folder to make; it must not exist, or be empty.
        precision: how weights are stored; `auto` stores them as the base does.
        blend: runs or folders of other adapters that are added too, and how much of each.
        weight: how much of the run's own adapter is added.

    Raises:
        ExportError: if the disk lacks room, the folder is taken, or the models differ.
    """
    subject = find_subject(name)
    run = subject.run
    if run is None:
        raise ExportError(
            f"{subject.name} is a model, and only runs are exported",
            hint="give the name of a run; see `tunesmith runs list`",
            where="command line",
        )
    subject = with_others(subject, blend, weight)
    to = expand(to).absolute()
    check_target(to)
    if labels_of(subject.adapter or subject.base):
        if subject.blend is not None:
            raise ExportError(
                "a classifier is exported alone: heads of other adapters score other classes",
                hint="leave out --also and --weight",
                where=subject.name,
            )
        return _export_classifier(subject, run, to, precision)
    probes = read_probes(run)
    stored = stored_precision(run) if precision == "auto" else precision
    trained = take_quantized_reference(subject, probes)
    chat = load_subject(subject, precision="fp32", device="cpu", whole=True)
    check_room(to, chat.model, stored)
    check_tokens(chat, probes)
    reference = take_reference(chat, probes)
    merged = replace(chat, model=merge(chat))
    ties = check_same_answers(merged, reference)
    with writing_aside(to) as aside:
        _write(merged, aside, stored)
        written = _load_stored(aside, probes)
        distance = measure_distance(written, reference)
        check_distance(distance, stored, str(to))
        moved = None if trained is None else measure_distance(written, trained)
        exported = Exported(to, stored, _size(aside), len(reference.prompts), ties, distance, moved)
        write_json(aside / REPORT, _report(run.name, exported, subject.blend))
    return exported


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


def _export_classifier(subject: Subject, run: Run, to: Path, precision: Precision) -> Exported:
    """Write a classifier; its scores must be those of the tuned one."""
    import torch

    probes, stored = read_probes(run), stored_precision(run) if precision == "auto" else precision
    tuned = load_classifier(subject, device="cpu")
    check_room(to, tuned.model, stored)
    wanted = score_probes(tuned, probes)
    merged = replace(tuned, model=merge(tuned))
    ties = check_same_classes(score_probes(merged, probes), wanted, tuned.name)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    with writing_aside(to) as aside:
        model: PreTrainedModel = merged.model.to(dtypes[stored])  # type: ignore[assignment]
        write_classifier(model, merged.reader, aside)
        written = load_classifier(Subject(to.name, aside), device="cpu")
        distance = distance_of(score_probes(written, probes), wanted)
        check_distance(distance, stored, str(to))
        size, labels = _size(aside), len(tuned.labels)
        exported = Exported(to, stored, size, len(wanted), ties, distance, labels=labels)
        write_json(aside / REPORT, _report(run.name, exported, None))
    return exported


def take_quantized_reference(
    subject: Subject, probes: Sequence[dict[str, Any]]
) -> Reference | None:
    """Let the model answer that was trained, if its base was quantized."""
    if not has_few_bits(subject):
        return None
    return take_reference(load_subject(subject, precision="fp32", device="cpu"), probes)


def check_target(to: Path) -> None:
    """Refuse a folder that holds something, or that could not be made."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            to.lstat()  # what asks only whether a file is there hides that none can have the name
        taken = to.is_file() or (to.is_dir() and any(to.iterdir()))
        above = next(folder for folder in to.parents if folder.exists())
    except (OSError, ValueError) as problem:
        raise ExportError(
            f"the folder cannot be made: {problem}", hint="choose another folder", where=str(to)
        ) from None
    if taken:
        raise ExportError(
            "the folder is there already and not empty" if to.is_dir() else "this is a file",
            hint="choose another one, or delete it first",
            where=str(to),
        )
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "is not writable" if above.is_dir() else "is a file"
        raise ExportError(
            f"the folder cannot be made: {above} {what}",
            hint="choose a folder that can be written",
            where=str(to),
        )


@contextmanager
def writing_aside(to: Path) -> Iterator[Path]:
    """Give a hidden folder to write into; it becomes `to` if all went well, else it vanishes.

    Raises:
        ExportError: if the disk refuses, or another export writes there.
    """
    aside = to.with_name(f".{to.name}.partial")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _alone(to):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            try:
                yield aside
                sync_tree(aside)
                aside.rename(to)
                sync_folder(to.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError, RunError) as problem:
        raise ExportError(
            f"the export cannot be written: {problem}",
            hint="free some space or choose another folder; nothing was published",
            where=str(to),
        ) from problem


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold the lock beside a folder while it is made; the system frees it after a kill."""
    lock = FileLock(to.with_name(f".{to.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExportError(
            "another export writes into this folder",
            hint="wait for it, or choose another folder",
            where=str(to),
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_room(to: Path, model: torch.nn.Module, precision: str) -> None:
    """Refuse to start where the model would not fit."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    needed = weights * BYTES[precision] + OTHER_FILES_BYTES
    free = disk_free(to.parent)
    if needed > free:
        raise ExportError(
            f"the export needs {needed:,} bytes, {free:,} are free",
            hint="free some space or choose another folder",
            where=str(to),
        )


def stored_precision(run: Run) -> str:
    """Name the precision in which the weights that a run started from are stored."""
    try:
        base = find_subject(run.path, base_only=True).base
    except (ModelError, RecipeError):  # a whole model can be exported when its base is gone
        base = run.model
    config = read_config(base / "config.json")
    text = config.get("text_config") or {}
    named = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32"
    return STORED.get(str(named).removeprefix("torch."), "fp32")


def merge(tuned: ChatModel | Classifier) -> Any:
    """Add an adapter to the weights it belongs to; a whole model stays as it is.

    Raises:
        ExportError: if a merged weight is not a number.
    """
    from peft import PeftModel

    if not isinstance(tuned.model, PeftModel):
        return tuned.model
    try:
        merged = tuned.model.merge_and_unload(safe_merge=True)
    except ValueError as problem:
        raise ExportError(
            f"the adapter cannot be merged: {problem}",
            hint="the run diverged; take an earlier checkpoint of it",
            where=tuned.name,
        ) from problem
    return merged.eval()


def _write(merged: ChatModel, folder: Path, precision: str) -> None:
    """Write the merged model in its final precision."""
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    model: PreTrainedModel = merged.model.to(dtypes[precision])  # type: ignore[assignment]
    write_folder(model, merged, folder)


def _load_stored(folder: Path, probes: Sequence[dict[str, Any]]) -> ChatModel:
    """Load what was written, as a server would."""
    stored = load_subject(Subject(folder.name, folder), precision="fp32", device="cpu")
    check_tokens(stored, probes)
    return stored


def _report(run: str, exported: Exported, blend: Blend | None) -> dict[str, Any]:
    from tunesmith.export import parity

    found = {**asdict(exported), "run": run}
    del found["folder"]
    if blend is not None:
        found["blend"] = {run: blend.own, **{str(folder): w for folder, w in blend.others}}
    limits = {"kl": parity.MAX_KL, "top1": parity.MIN_TOP1, "near_tie": parity.NEAR_TIE}
    return {**found, "limits": limits}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
