"""Write a reward model with its head; it must prefer what the tuned one prefers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError
from tunesmith.export.aside import check_room, size_of, writing_aside
from tunesmith.export.layout import write_scorer
from tunesmith.export.merged import count_weights, merge
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.export.parity import NEAR_TIE, Distance, check_distance
from tunesmith.export.probes import probes_of
from tunesmith.inference.looked import encode_messages
from tunesmith.inference.score import score_tokens
from tunesmith.models.chat import RewardModel, Subject, load_reward_model

if TYPE_CHECKING:
    import torch


def export_reward(order: Order, precision: str, bytes_per_weight: float) -> Exported:
    """Write a reward model; scores of the run's prompts say whether it is the same."""
    import torch

    if order.subject.blend is not None:
        raise ExportError(
            "a reward model is exported alone: other adapters have no head, or another one",
            hint="leave out --also and --weight",
            where=order.subject.name,
        )
    tuned = load_reward_model(order.subject, device="cpu")
    prompts = _prompts(tuned, probes_of(order))
    check_room(order.to, int(count_weights(tuned) * bytes_per_weight))
    wanted = _score(tuned, prompts)
    merged = replace(tuned, model=merge(tuned))
    check_distance(distance_of(_score(merged, prompts), wanted), "fp32", tuned.name)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    with writing_aside(order.to) as aside:
        model: Any = merged.model.to(dtypes[precision])
        write_scorer(model, merged, aside)
        written = load_reward_model(Subject(order.to.name, aside), device="cpu")
        distance = distance_of(_score(written, prompts), wanted)
        check_distance(distance, precision, str(order.to))
        exported = Exported(
            folder=order.to,
            precision=precision,
            num_bytes=size_of(aside),
            num_probes=len(prompts),
            near_ties=0,
            distance=distance,
            scores=True,
        )
        write_report(order, exported, aside)
    return exported


def _prompts(model: RewardModel, probes: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Write the prompts of the run as tokens, with what they show."""
    read = (model.tokenizer, model.template, model.senses)
    return [encode_messages(*read, probe["messages"], probe.get("tools", ())) for probe in probes]


def _score(model: RewardModel, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    import torch

    return torch.tensor([score_tokens(model, prompt) for prompt in prompts])


def distance_of(scores: torch.Tensor, wanted: torch.Tensor) -> Distance:
    """Compare how often each text would be preferred to each other, by the model of the loss."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

    first, second = torch.triu_indices(len(wanted), len(wanted), 1)
    margins, others = wanted[first] - wanted[second], scores[first] - scores[second]
    if not len(margins):  # a single text is preferred to nothing
        margins, others = wanted, scores
    p = margins.sigmoid()
    entropy = -(p * logsigmoid(margins) + (1 - p) * logsigmoid(-margins))
    kl = float((binary_cross_entropy_with_logits(others, p, reduction="none") - entropy).mean())
    same = (margins.sign() == others.sign()) | (margins.abs() < NEAR_TIE)
    apart = float((scores - wanted).abs().max())
    if kl < 0:  # rounding may put equal models there
        kl = 0.0
    return Distance(len(margins), kl, float(same.float().mean()), apart)
