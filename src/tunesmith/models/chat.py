"""Load something a person can talk to: a base model, an exported one, a run, a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError, RecipeError, RunError
from tunesmith.hardware import (
    DeviceOption,
    PrecisionOption,
    choose_device,
    choose_precision,
)
from tunesmith.models.adapter import load_adapter, merge_adapters
from tunesmith.models.autocast import number_type
from tunesmith.models.beneath import NOTHING, Beneath
from tunesmith.models.blend import Blend, blend_adapters
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.inspect import ADAPTER, is_scorer, labels_of
from tunesmith.models.load import (
    check_vocabulary,
    count_embeddings,
    load_model,
    load_scorer,
    refuse_scorer,
)
from tunesmith.models.locate import locate
from tunesmith.models.loftq import hold_what_is_left, is_over_few_bits, read_kind
from tunesmith.models.named import find_named_run, locate_or_guess, or_checkpoint
from tunesmith.models.quantize.packed import find_packed
from tunesmith.models.reader import Reader, find_reader
from tunesmith.paths import exists, expand
from tunesmith.recipe.model import Model
from tunesmith.recipe.quantize import Quantize
from tunesmith.runs.run import Run
from tunesmith.runs.store import open_run

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from tunesmith.models.senses import Senses
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
        senses: how it reads what is not text; None for a model of text alone.
    """

    name: str
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast
    template: Template | None
    stop_ids: tuple[int, ...]
    folder: Path
    senses: Senses | None = None


@dataclass(frozen=True)
class Subject:
    """Where the parts of a chat model lie.

    Attributes:
        base: folder of the base model, or of a whole trained one.
        adapter: folder of the adapter, if there is one.
        template: override of the base's own template.
        run: the run it belongs to, if it belongs to one.
        quantize: how the base is kept; an adapter answers on what it was trained on.
        beneath: what was changed of the base before.
        blend: what other adapters are added to its own, and how much of each.
    """

    name: str
    base: Path
    adapter: Path | None = None
    template: str | None = None
    run: Run | None = None
    quantize: Quantize | None = None
    beneath: Beneath = NOTHING
    blend: Blend | None = None


def load_chat_model(
    name: str | Path | Subject,
    *,
    base_only: bool = False,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> ChatModel:
    """Load a model to answer with.

    Args:
        name: a run (name or directory), a checkpoint inside one (its directory, or `RUN/STEP`),
            a folder that a run was published to, anything `locate` takes, or what was found.
        base_only: for a run, the base it started from.
    """
    return load_subject(find_subject(name, base_only=base_only), precision, device)


def has_few_bits(subject: Subject) -> bool:
    """Whether a base is quantized, by us or before."""
    return subject.quantize is not None or find_packed(subject.base) is not None


def find_subject(name: str | Path | Subject, *, base_only: bool = False) -> Subject:
    """Find the folders behind a name, without loading any.

    Raises:
        RunError: if the run has no trained weights yet.
        ModelError: if nothing has that name.
    """
    if isinstance(name, Subject):
        return find_subject(name.run.path, base_only=True) if base_only and name.run else name
    run, weights = find_named_run(name)
    if run is None or weights is None:
        return Subject(str(name), locate_or_guess(name))
    recipe = run.recipe()
    template, quantize = recipe.model.template, recipe.model.quantize
    if base_only:
        base, beneath = locate(recipe.model.name), find_beneath(recipe.model)
        return Subject(f"base of {run.name}", base, None, template, run, quantize, beneath)
    label = run.name if weights == run.model else f"{run.name}/{weights.name}"
    if (weights / "adapter_config.json").is_file():
        base, beneath = locate(recipe.model.name), find_beneath(recipe.model)
        return Subject(label, base, weights, template, run, quantize, beneath)
    if (weights / "config.json").is_file():
        return Subject(label, weights, None, template, run)
    raise RunError(
        f"the run has no trained model yet; it is {run.status().state}",
        hint=f"wait for it, or `tunesmith runs resume {run.name}`{or_checkpoint(run)}",
        where=str(weights),
    )


def find_beneath(options: Model) -> Beneath:
    """Find what is changed of a base before training begins on it."""
    adapters = tuple(find_adapter(name, "model.adapters") for name in options.adapters)
    return Beneath(adapters, options.rope_scaling)


def find_adapter(name: str, where: str) -> Path:
    """Find the folder of an adapter by what a person would call it.

    Raises:
        RecipeError: if there is none of that name.
    """
    folder: Path | None = expand(name)
    if folder is None or not exists(folder / ADAPTER):
        try:
            folder = find_subject(name).adapter
        except ModelError:
            folder = None
    if folder is None:
        raise RecipeError(
            f"there is no adapter {name}",
            hint="name a run that trained one, a checkpoint of it, or a folder with "
            "adapter_config.json",
            where=where,
        )
    return folder.absolute()


def full_name(name: str) -> str:
    """Write out the name of a run that is called by its last part; other names stay.

    A run that is trained later may be called the same.
    """
    short, _, checkpoint = name.partition("/")
    if exists(expand(name)) or find_named_run(name)[0] is None:
        return name
    return "/".join(filter(None, (open_run(short).name, checkpoint)))


def put_together(
    base: str, adapters: Sequence[str], template: str | None, quantize: Quantize | None
) -> Subject:
    """Find a base and adapters that were named apart; all but the last are added to the base.

    A folder that a run was published to is that run, with the template it was trained with.

    Raises:
        ModelError: if one of them is not there, or the run was trained on another base.
    """
    last = adapters[-1] if adapters else base
    beneath = Beneath(tuple(find_adapter(name, "command line") for name in adapters[:-1]))
    run, _ = find_named_run(last)
    if run is not None:
        found = find_subject(last)
        if adapters:
            _refuse_other_base(found, base)
        return replace(found, beneath=beneath) if beneath.merged else found
    if not adapters:
        return Subject(base, locate_or_guess(base), None, template, None, quantize)
    folder = expand(last)
    if not exists(folder / ADAPTER):
        raise ModelError(
            "there is no adapter in this folder",
            hint="name the folder that holds adapter_config.json",
            where=str(folder),
        )
    return Subject(
        last, locate_or_guess(base), folder.absolute(), template, None, quantize, beneath
    )


def _refuse_other_base(found: Subject, base: str) -> None:
    """Refuse a base that is named beside a run and is not the run's."""
    if found.adapter is None:
        raise ModelError(
            "the run trained whole weights, and no adapter",
            hint="name its folder as the model",
            where=found.name,
        )
    named = locate_or_guess(base)
    if named != found.base and weights_sha256(named) != weights_sha256(found.base):
        raise ModelError(
            "the run was trained on another base: the weights differ",
            hint=f"name its own, {found.base}",
            where=f"{found.name} on {named}",
        )


@dataclass(frozen=True)
class RewardModel:
    """A model in evaluation mode that scores conversations.

    Attributes:
        model: a Hugging Face model with a head of one number, or a PEFT model over one.
        template: writes conversations as they were written in training.
        senses: how it reads what is not text; None for a model of text alone.
    """

    name: str
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast
    template: Template
    senses: Senses | None = None


def load_reward_model(
    subject: Subject, precision: PrecisionOption = "fp32", device: DeviceOption = "auto"
) -> RewardModel:
    """Load a model that scores, with the head it was trained with.

    Args:
        precision: in 16 bits, answers that are nearly as good get the same score.

    Raises:
        ModelError: if it is a language model, or has no chat template.
    """
    from tunesmith.models.seeing import let_see

    weights = subject.adapter or subject.base
    reader = find_reader(subject.base, subject.template)
    if labels_of(weights) or not is_scorer(weights) or reader.template is None:
        raise ModelError(
            "this is no reward model: it has no head that scores"
            if reader.template
            else "the model has no chat template",
            hint="train one with method.name: reward, or name the model's template",
            where=str(weights),
        )
    on = choose_device(device)
    dtype = number_type(choose_precision(precision, on))
    model: torch.nn.Module = load_scorer(
        subject.base,
        dtype=dtype,
        device=on,
        new_head=subject.adapter is not None,
        rope=subject.beneath.rope,
    )
    adapter, beneath = subject.adapter, subject.beneath
    model = merge_adapters(model, subject.base, beneath)  # type: ignore[arg-type]
    if adapter is not None:
        model = load_adapter(model, adapter, subject.base, beneath=beneath)
    model.eval().requires_grad_(False).to(dtype)
    if reader.senses is not None:
        let_see(model, reader.senses)
    return RewardModel(subject.name, model, reader.tokenizer, reader.template, reader.senses)


def load_subject(
    subject: Subject,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    *,
    whole: bool = False,
) -> ChatModel:
    """Load the parts of a chat model and put them together.

    Args:
        whole: put all weights of the base together that are kept in few bits.

    Raises:
        ModelError: if one does not fit, or they only score.
    """
    on = choose_device(device)
    dtype = number_type(choose_precision(precision, on))
    refuse_scorer(subject.adapter or subject.base)
    reader = find_reader(subject.base, subject.template)
    taken = subject.adapter if is_over_few_bits(subject.adapter) else None
    kind = subject.quantize if taken is None else read_kind(taken)
    base = load_model(
        subject.base,
        dtype=dtype,
        device=on,
        quantize=None if whole and taken is None else kind,
        whole=whole,
        rope=subject.beneath.rope,
    )
    if taken is not None:
        hold_what_is_left(base, subject.base, taken, whole=whole)
    check_vocabulary(subject.base, len(reader.tokenizer), count_embeddings(base))
    base = merge_adapters(base, subject.base, subject.beneath)
    model: torch.nn.Module = base
    if subject.adapter is not None:
        foreign = subject.run is None  # a person named both
        model = load_adapter(
            base,
            subject.adapter,
            subject.base,
            beneath=subject.beneath,
            foreign=foreign,
            held=taken is not None,
        )
        if subject.blend is not None:
            blend_adapters(model, subject.adapter, subject.base, subject.beneath, subject.blend)
    model.eval()
    model.requires_grad_(False)
    if reader.senses is not None and subject.run is not None:
        shows = subject.run.recipe().data
        reader = replace(reader, senses=replace(reader.senses, shows=shows))
    return as_chat_model(subject.name, model, reader)


def as_chat_model(name: str, model: torch.nn.Module, reader: Reader) -> ChatModel:
    """Put a model and its reader together."""
    from tunesmith.models.seeing import let_see

    if reader.senses is not None:
        let_see(model, reader.senses)
    return ChatModel(
        name,
        model,
        reader.tokenizer,
        reader.template,
        reader.stop_ids,
        reader.folder,
        reader.senses,
    )
