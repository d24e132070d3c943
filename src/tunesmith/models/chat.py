"""Load something a person can talk to: a base model, an exported one, a run, a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError, RunError
from tunesmith.hardware import DeviceOption, PrecisionOption, choose_device, choose_precision
from tunesmith.models.adapter import load_adapter
from tunesmith.models.load import check_vocabulary, count_embeddings, load_model
from tunesmith.models.locate import locate
from tunesmith.models.reader import find_reader
from tunesmith.runs.run import Run
from tunesmith.runs.store import is_run, list_runs, open_run

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from tunesmith.templates import Template


@dataclass(frozen=True)
class ChatModel:
    """A model in evaluation mode with all it needs to answer.

    Attributes:
        name: what the person called it.
        model: a Hugging Face model, or a PEFT model over one.
        template: None for models that only continue text.
        stop_ids: tokens at which an answer is over.
        folder: the base model's folder.
    """

    name: str
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast
    template: Template | None
    stop_ids: tuple[int, ...]
    folder: Path


@dataclass(frozen=True)
class Subject:
    """Where the parts of a chat model lie.

    Attributes:
        base: folder of the base model, or of a whole trained one.
        adapter: folder of the adapter, if there is one.
        template: override of the base's own template.
        run: the run it belongs to, if it belongs to one.
    """

    name: str
    base: Path
    adapter: Path | None = None
    template: str | None = None
    run: Run | None = None


def load_chat_model(
    name: str | Path,
    *,
    base_only: bool = False,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> ChatModel:
    """Load a model to answer with.

    Args:
        name: a run (name or directory), a checkpoint inside one, or anything `locate` takes.
        base_only: for a run, the base it started from.
    """
    return load_subject(find_subject(name, base_only=base_only), precision, device)


def find_subject(name: str | Path, *, base_only: bool = False) -> Subject:
    """Find the folders behind a name, without loading any.

    Raises:
        RunError: if the run has no trained weights yet.
        ModelError: if nothing has that name.
    """
    run, weights = _find_run(name)
    if run is None or weights is None:
        return Subject(str(name), locate(name))
    recipe = run.recipe()
    if base_only:
        base = locate(recipe.model.name)
        return Subject(f"base of {run.name}", base, None, recipe.model.template, run)
    label = run.name if weights == run.model else f"{run.name}/{weights.name}"
    if (weights / "adapter_config.json").is_file():
        return Subject(label, locate(recipe.model.name), weights, recipe.model.template, run)
    if (weights / "config.json").is_file():
        return Subject(label, weights, None, recipe.model.template, run)
    raise RunError(
        f"the run has no trained model yet; it is {run.status().state}",
        hint=f"wait for it, or `tunesmith runs resume {run.name}`, or name one of its checkpoints",
        where=str(weights),
    )


def load_subject(
    subject: Subject, precision: PrecisionOption = "auto", device: DeviceOption = "auto"
) -> ChatModel:
    """Load the parts of a chat model and put them together."""
    import torch

    on = choose_device(device)
    chosen = choose_precision(precision, on)
    dtype = torch.float32 if chosen == "fp32" else torch.bfloat16
    reader = find_reader(subject.base, subject.template)
    base = load_model(subject.base, dtype=dtype, device=on)
    check_vocabulary(subject.base, len(reader.tokenizer), count_embeddings(base))
    model: torch.nn.Module = base
    if subject.adapter is not None:
        model = load_adapter(base, subject.adapter, subject.base)
    model.eval()
    model.requires_grad_(False)
    return ChatModel(
        subject.name, model, reader.tokenizer, reader.template, reader.stop_ids, reader.folder
    )


def _find_run(name: str | Path) -> tuple[Run | None, Path | None]:
    """Return the run and the folder of its weights that `name` means, if it means a run."""
    path = Path(name).expanduser()
    if path.parent.name == "checkpoints" and is_run(path.parent.parent):
        if not path.is_dir():
            raise ModelError(
                f"the run has no checkpoint {path.name}",
                hint="it has " + ", ".join(sorted(p.name for p in path.parent.glob("step-*"))),
                where=str(path.parent),
            )
        return Run(path.parent.parent.absolute()), path.absolute()
    if is_run(path):
        run = Run(path.absolute())
        return run, run.model
    if path.exists() or str(name) == "starter":
        return None, None
    if any(str(name) in (run.name, run.recipe().run.name) for run in list_runs()):
        run = open_run(name)
        return run, run.model
    return None, None
