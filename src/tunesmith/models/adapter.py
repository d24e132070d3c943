"""Save and load adapters that know which base they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from tunesmith.errors import ModelError
from tunesmith.models.beginnings import without_beginnings, write_plain
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.inner import inner_model
from tunesmith.models.inspect import ADAPTER, BELONGS_TO, LABELS, check_config, check_files
from tunesmith.models.reasons import few, reason_of
from tunesmith.models.score import find_score
from tunesmith.runs.write import write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"


def note_base(folder: Path, *, base: Path, sha256: str, labels: Sequence[str] = ()) -> None:
    """Write beside an adapter which base it was trained on, and the labels it tells apart."""
    named = {LABELS: list(labels)} if labels else {}
    write_json(folder / BELONGS_TO, {"base": str(base), "weights_sha256": sha256, **named})


def save_adapter(adapted: PeftModel, folder: Path, *, base: Path, sha256: str) -> None:
    """Write an adapter that adds to its original base what it adds in training."""
    adapted.save_pretrained(str(folder))
    write_plain(adapted, folder / WEIGHTS)
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


def check_fit(adapted: PeftModel, folder: Path) -> None:
    """Refuse a saved adapter that does not fit one that is to be trained, tensor by tensor."""
    _check_fit(folder, _stored_shapes(folder), _expected_shapes(adapted))


def load_adapter(
    model: PreTrainedModel, folder: Path, base: Path, *, foreign: bool = False
) -> PeftModel:
    """Put an adapter on its base, every tensor of it or none.

    Args:
        foreign: whether another tool may have made it, which does not say for which weights.

    Raises:
        ModelError: if it was made for another base, is damaged, or does not fit tensor by tensor.
    """
    from peft import PeftModel

    check_base(folder, base, foreign=foreign)
    stored = _stored_shapes(folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except Exception as problem:  # the library raises many kinds for a misfit
        raise ModelError(
            f"the adapter does not fit its base: {reason_of(problem)}",
            hint="use the base that stands in the run's recipe.yaml",
            where=str(folder),
        ) from problem
    _check_fit(folder, stored, _expected_shapes(adapted))
    return adapted


def check_base(folder: Path, base: Path, *, foreign: bool = False) -> None:
    """Refuse a base whose weights are not those the adapter was trained on."""
    check_config(folder / ADAPTER)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"the adapter has no {WEIGHTS}",
            hint="resume the run, which writes it again, or copy the folder again",
            where=str(folder),
        )
    note = folder / BELONGS_TO
    if foreign and not note.is_file():
        return
    if not note.is_file():
        raise ModelError(
            f"the adapter does not say which base it belongs to: {BELONGS_TO} is missing",
            hint="resume the run, which writes it again, or copy the folder again",
            where=str(folder),
        )
    try:
        expected = str(json.loads(note.read_text(encoding="utf-8"))["weights_sha256"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ModelError(
            "the note about the adapter's base is damaged",
            hint="copy the adapter's folder again",
            where=str(note),
        ) from None
    check_files(base)
    if weights_sha256(base) != expected:
        raise ModelError(
            "the adapter was trained on another base: the weights differ",
            hint="use the very folder it was trained on",
            where=f"{folder} on {base}",
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


def _expected_shapes(model: PeftModel) -> dict[str, tuple[int, ...]]:
    from peft import get_peft_model_state_dict

    state: dict[str, Any] = get_peft_model_state_dict(model)
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
