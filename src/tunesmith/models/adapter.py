"""Save and load adapters that know which base they belong to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from tunesmith.errors import ModelError
from tunesmith.models.allocation import restore_allocation, save_allocation
from tunesmith.models.beginnings import without_beginnings, write_plain
from tunesmith.models.beneath import NOTHING, Beneath, hash_with
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.inner import inner_model
from tunesmith.models.inspect import (
    ADAPTER,
    BELONGS_TO,
    LABELS,
    check_config,
    check_files,
    read_config,
)
from tunesmith.models.loftq import refuse_over_few_bits, write_taken
from tunesmith.models.reasons import few, reason_of
from tunesmith.models.score import find_score
from tunesmith.runs.write import write_json

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"


@contextmanager
def without_adapter(model: torch.nn.Module) -> Iterator[None]:
    """Let a model say what it said before training, if what is trained is an adapter.

    What learns is the same afterwards; PEFT would let all of the adapter learn.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        yield
        return
    learning = {id(weight) for weight in model.parameters() if weight.requires_grad}
    try:
        with model.disable_adapter():
            yield
    finally:
        for weight in model.parameters():
            weight.requires_grad_(id(weight) in learning)


def note_base(folder: Path, *, base: Path, sha256: str, labels: Sequence[str] = ()) -> None:
    """Write beside an adapter which base it was trained on, and the labels it tells apart."""
    named = {LABELS: list(labels)} if labels else {}
    write_json(folder / BELONGS_TO, {"base": str(base), "weights_sha256": sha256, **named})


def save_adapter(adapted: PeftModel, folder: Path, *, base: Path, sha256: str) -> None:
    """Write an adapter that adds to its original base what it adds in training."""
    adapted.save_pretrained(str(folder))
    write_plain(adapted, folder / WEIGHTS)
    save_allocation(adapted, folder)
    write_taken(adapted, folder)
    named = inner_model(adapted).config.id2label
    labels = named.values() if find_score(adapted) is not None and len(named) > 1 else ()
    note_base(folder, base=base, sha256=sha256, labels=[str(label) for label in labels])


def restore_adapter(adapted: PeftModel, folder: Path) -> None:
    """Put the weights of a saved adapter into one that is being trained, to the bit.

    Raises:
        ModelError: if it does not fit tensor by tensor.
    """
    from peft import set_peft_model_state_dict

    _stored_shapes(folder)  # says what is damaged
    weights = without_beginnings(adapted, load_file(folder / WEIGHTS))
    stored = {name: tuple(weight.shape) for name, weight in weights.items()}
    _check_fit(folder, stored, _expected_shapes(adapted))
    set_peft_model_state_dict(adapted, weights)
    restore_allocation(adapted, folder)


def check_fit(adapted: PeftModel, folder: Path) -> None:
    """Refuse a saved adapter that does not fit one that is to be trained, tensor by tensor."""
    _check_fit(folder, _stored_shapes(folder), _expected_shapes(adapted))


def check_beneath(base: Path, beneath: Beneath) -> None:
    """Refuse adapters that were not trained on the base, or on what it was with those before.

    Raises:
        ModelError: naming the first that was not.
    """
    sha256 = weights_sha256(base) if beneath.merged else ""
    for place, folder in enumerate(beneath.merged):
        _stored_shapes(folder)  # says what is damaged before a run is made for it
        refuse_over_few_bits(folder, "model.adapters")
        before = replace(beneath, merged=beneath.merged[:place])
        _compare(_read_note(folder, foreign=True), sha256, before, f"{folder} on {base}")


def merge_adapters(model: PreTrainedModel, base: Path, beneath: Beneath) -> PreTrainedModel:
    """Add adapters to the weights of their base, one after another, each sum in fp32.

    Raises:
        ModelError: as `load_adapter` does, and if a sum is not a number.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    dtype = model.dtype
    check_beneath(base, beneath)
    for folder in beneath.merged:
        adapted = _put_on(model, folder)
        for layer in adapted.modules():
            if isinstance(layer, BaseTunerLayer):
                _merge_exactly(layer, folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="All adapters are already merged")
            model = adapted.merge_and_unload()
        for weight in model.parameters():  # whole modules and new ones come in fp32
            weight.data = weight.data.to(dtype)
            weight.requires_grad_(True)
    return model


def _merge_exactly(layer: Any, folder: Path) -> None:
    """Add what one layer has learned to its weight: 16 bits alone would round most of it away."""
    weight = layer.get_base_layer().weight
    dtype, weight.data = weight.dtype, weight.data.float()
    try:
        layer.merge(safe_merge=True)
    except ValueError as problem:
        raise ModelError(
            f"the adapter cannot be merged: {problem}",
            hint="the run diverged; take an earlier checkpoint of it",
            where=str(folder),
        ) from problem
    weight = layer.get_base_layer().weight
    weight.data = weight.data.to(dtype)


def load_adapter(
    model: PreTrainedModel,
    folder: Path,
    base: Path,
    *,
    beneath: Beneath = NOTHING,
    foreign: bool = False,
    held: bool = False,
) -> PeftModel:
    """Put an adapter on its base, every tensor of it or none.

    Args:
        beneath: what was changed of the base before.
        foreign: whether another tool may have made it, which does not say for which weights.
        held: whether few bits hold what is left of the base, if something was taken from it.

    Raises:
        ModelError: if it was made for another base, is damaged, or does not fit tensor by tensor.
    """
    check_base(folder, base, beneath=beneath, foreign=foreign, held=held)
    return _put_on(model, folder)


def _put_on(model: PreTrainedModel, folder: Path) -> PeftModel:
    from peft import PeftConfig, PeftModel

    stored = _stored_shapes(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder), local_files_only=True)
        if config.task_type == "CAUSAL_LM" and find_score(model) is not None:
            config.task_type = None  # else PEFT asks for what only a model that writes has
        adapted = PeftModel.from_pretrained(
            model, str(folder), config=config, local_files_only=True
        )
    except Exception as problem:  # the library raises many kinds for a misfit
        raise ModelError(
            f"the adapter does not fit its base: {reason_of(problem)}",
            hint="use the base that stands in the run's recipe.yaml",
            where=str(folder),
        ) from problem
    _check_fit(folder, stored, _expected_shapes(adapted))
    return adapted


def add_adapter(adapted: PeftModel, folder: Path, name: str) -> None:
    """Put a further adapter beside the one of a model, every tensor of it or none.

    Raises:
        ModelError: if it is damaged, or does not fit tensor by tensor.
    """
    stored = _stored_shapes(folder)
    try:
        adapted.load_adapter(str(folder), name, local_files_only=True)
    except Exception as problem:  # the library raises many kinds for a misfit
        raise ModelError(
            f"the adapter does not fit its base: {reason_of(problem)}",
            hint="add adapters of the same base only",
            where=str(folder),
        ) from problem
    _check_fit(folder, stored, _expected_shapes(adapted, name))


def check_base(
    folder: Path,
    base: Path,
    *,
    beneath: Beneath = NOTHING,
    foreign: bool = False,
    held: bool = False,
) -> None:
    """Refuse a base whose weights are not those the adapter was trained on.

    What was trained on the base itself may be added to others that were, and stretched later.

    Args:
        held: whether few bits hold what is left of the base, if something was taken from it.
    """
    if not held:
        refuse_over_few_bits(folder, str(base))
    expected = _read_note(folder, foreign=foreign)
    if expected is not None:
        check_files(base)
        _compare(expected, weights_sha256(base), beneath, f"{folder} on {base}")


def _read_note(folder: Path, *, foreign: bool) -> str | None:
    """Read on what an adapter was trained; None if it does not say and need not."""
    check_config(folder / ADAPTER)
    _check_kind(folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"the adapter has no {WEIGHTS}",
            hint="resume the run, which writes it again, or copy the folder again",
            where=str(folder),
        )
    note = folder / BELONGS_TO
    if foreign and not note.is_file():
        return None
    if not note.is_file():
        raise ModelError(
            f"the adapter does not say which base it belongs to: {BELONGS_TO} is missing",
            hint="resume the run, which writes it again, or copy the folder again",
            where=str(folder),
        )
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["weights_sha256"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ModelError(
            "the note about the adapter's base is damaged",
            hint="copy the adapter's folder again",
            where=str(note),
        ) from None


def _check_kind(folder: Path) -> None:
    """Refuse what PEFT does not know, and what stands before texts instead of beside weights."""
    from peft.config import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = str(read_config(folder / ADAPTER).get("peft_type"))
    known: Any = {str(each.value): config for each, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known or issubclass(known[kind], PromptLearningConfig):
        raise ModelError(
            f"the adapter is of the kind {kind}, which tunesmith cannot put on a base",
            hint="use an adapter that changes weights, such as lora",
            where=str(folder / ADAPTER),
        )


def _compare(expected: str | None, sha256: str, beneath: Beneath, where: str) -> None:
    """Refuse what an adapter was not trained on.

    Args:
        sha256: hash of the base.
    """
    alone, unstretched = replace(beneath, merged=()), replace(beneath, rope=None)
    fitting = (beneath, alone, unstretched, NOTHING)
    if expected is not None and expected not in {hash_with(sha256, each) for each in fitting}:
        raise ModelError(
            "the adapter was trained on another base: the weights differ",
            hint="use the very folder it was trained on",
            where=where,
        )


def _stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise ModelError(
            f"the adapter is damaged: {reason_of(problem)}",
            hint="resume the run, which writes it again, or copy the folder again",
            where=str(folder / WEIGHTS),
        ) from problem


def _expected_shapes(model: PeftModel, name: str = "default") -> dict[str, tuple[int, ...]]:
    from peft import get_peft_model_state_dict

    state: dict[str, Any] = get_peft_model_state_dict(model, adapter_name=name)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_fit(
    folder: Path, stored: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
) -> None:
    missing = list(expected.keys() - stored.keys())
    extra = list(stored.keys() - expected.keys())
    wrong = [name for name in expected.keys() & stored if expected[name] != stored[name]]
    for what, names in (("missing", missing), ("left over", extra), ("of another shape", wrong)):
        if names:
            raise ModelError(
                f"tensors of the adapter are {what}: {few(names)}",
                hint="the adapter belongs to another base, or is damaged; copy it again",
                where=str(folder),
            )
