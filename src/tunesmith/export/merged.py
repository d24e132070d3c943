"""Put a run's model together, and note what it answers before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.errors import ExportError
from tunesmith.export.aside import check_room, size_of
from tunesmith.export.order import Exported, Order
from tunesmith.export.parity import (
    Distance,
    Reference,
    check_same_answers,
    check_tokens,
    take_reference,
)
from tunesmith.export.probes import probes_of
from tunesmith.models.chat import ChatModel, RewardModel, Subject, has_few_bits, load_subject
from tunesmith.models.classes import Classifier


@dataclass(frozen=True)
class Tuned:
    """A tuned model, and what it says.

    Attributes:
        probes: the run's own prompts.
        reference: what the tuned model says to them, on a base in full precision.
        trained: what it says on the quantized base it was trained on; None if it was not.
        near_ties: answers of the merged model that differ only where two tokens were equally
            likely.
    """

    chat: ChatModel
    probes: list[dict[str, Any]]
    reference: Reference
    trained: Reference | None
    near_ties: int = 0

    def exported(
        self,
        order: Order,
        aside: Path,
        packed: str,
        distance: Distance,
        from_quantized: Distance | None,
    ) -> Exported:
        """Say what lies in the folder that is published.

        Args:
            packed: how weights are stored or packed.
            from_quantized: as `Exported` has it.
        """
        return Exported(
            folder=order.to,
            precision=packed,
            num_bytes=size_of(aside),
            num_probes=len(self.reference.prompts),
            near_ties=self.near_ties,
            distance=distance,
            from_quantized=from_quantized,
            form=order.form,
        )


def load_tuned(order: Order, bytes_per_weight: float) -> Tuned:
    """Load a run's model and let it answer.

    Raises:
        ExportError: if the disk lacks room, or the run's prompts are read otherwise than before.
    """
    probes = probes_of(order)
    trained = _take_quantized_reference(order.subject, probes)
    chat = load_subject(order.subject, precision="fp32", device="cpu", whole=True)
    check_room(order.to, int(count_weights(chat) * bytes_per_weight))
    check_tokens(chat, probes)
    return Tuned(chat, probes, take_reference(chat, probes), trained)


def load_merged(order: Order, bytes_per_weight: float) -> Tuned:
    """Load a run's model and merge its adapter, if it has one.

    Raises:
        ExportError: if the disk lacks room, or the merged model answers differently.
    """
    tuned = load_tuned(order, bytes_per_weight)
    merged = replace(tuned.chat, model=merge(tuned.chat))
    ties = check_same_answers(merged, tuned.reference)
    return replace(tuned, chat=merged, near_ties=ties)


def count_weights(tuned: ChatModel | Classifier | RewardModel) -> int:
    """Count the weights of a model."""
    return sum(parameter.numel() for parameter in tuned.model.parameters())


def _take_quantized_reference(
    subject: Subject, probes: Sequence[dict[str, Any]]
) -> Reference | None:
    """Let the model answer that was trained, if its base was quantized."""
    if not has_few_bits(subject):
        return None
    return take_reference(load_subject(subject, precision="fp32", device="cpu"), probes)


def merge(tuned: ChatModel | Classifier | RewardModel) -> Any:
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
