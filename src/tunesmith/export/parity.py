"""Compare models on a run's own prompts: what was tested is what is served."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.data.tokens import encode
from tunesmith.errors import ExportError, RequestError
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.looked import looked_arguments
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel
from tunesmith.runs.run import Run
from tunesmith.templates.parts import spell_places

if TYPE_CHECKING:
    import torch

ANSWER_TOKENS = 32
NEAR_TIE = 1e-4
"""Logits closer than this are no order: rounding decides between them."""
MAX_KL = 0.02
"""Nats a token, the mean over all answer tokens, that a cast may cost."""
MIN_TOP1 = 0.95
"""Share of answer tokens whose likeliest choice a cast must keep."""
MAX_PROBES, LOGITS_BYTES = 16, 1 << 28


@dataclass(frozen=True)
class Reference:
    """What the tuned model says to the probes.

    Attributes:
        prompts, answers: token ids of each probe.
        logits: before each answer token, [answer, vocab] a probe, in fp32 on the CPU.
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    logits: list[torch.Tensor]


@dataclass(frozen=True)
class Distance:
    """How far a model is from the tuned one over all answer tokens.

    Attributes:
        kl: mean Kullback-Leibler divergence, nats a token.
        top1: share of tokens with the same likeliest choice, 0 to 1.
        max_logit_difference: largest difference of a logit.
    """

    num_tokens: int
    kl: float
    top1: float
    max_logit_difference: float


@dataclass(frozen=True)
class Limits:
    """How far from the tuned model what is published may be.

    Attributes:
        kl: nats a token, the mean over all answer tokens.
        top1: share of answer tokens whose likeliest choice is kept.
    """

    kl: float = MAX_KL
    top1: float = MIN_TOP1


CAST = Limits()


def read_probes(run: Run) -> list[dict[str, Any]]:
    """Read the prompts that a run kept.

    Raises:
        ExportError: if it kept none.
    """
    try:
        kept = orjson.loads(run.probes_file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        kept = None
    probes: list[dict[str, Any]] = kept if isinstance(kept, list) else []
    if not probes:
        raise ExportError(
            "the run kept no prompts to compare the export on",
            hint="resume the run, which writes them again",
            where=str(run.probes_file),
        )
    return probes[:MAX_PROBES]


def check_tokens(model: ChatModel, probes: Sequence[dict[str, Any]]) -> None:
    """Refuse tokenizer or template that turn a probe into other token ids than in training.

    Raises:
        ExportError: naming the first text that differs.
        ModelError: if the template is gone.
    """
    for probe in probes:
        if encode_probe(model, probe) != probe["ids"]:
            text = probe.get("text") or spell_places(str(probe["messages"][-1]["content"]))
            raise ExportError(
                f"tokenizer or template give other tokens than in training for {text[:60]!r}",
                hint="the files of the base model changed since; put them back",
                where=str(model.folder),
            )


def encode_probe(model: ChatModel, probe: Mapping[str, Any]) -> list[int]:
    """Tokenize a probe as a server would, with what it shows.

    Raises:
        ExportError: if what it shows is gone, or another than in training.
        ModelError: if the template is gone.
    """
    if "messages" not in probe:
        return encode(model.tokenizer, probe["text"])
    try:
        return encode_prompt(model, probe["messages"], probe.get("tools", ()))
    except RequestError as problem:
        raise ExportError(
            f"what a prompt of the run shows cannot be compared: {problem.message}",
            hint="put the files back that the run learned from",
            where=model.name,
        ) from None


def _shows(probe: Mapping[str, Any]) -> bool:
    return any("media" in message for message in probe.get("messages", ()))


def take_reference(model: ChatModel, probes: Sequence[dict[str, Any]]) -> Reference:
    """Let the tuned model answer the probes, greedily."""
    vocab = model.model.config.get_text_config().vocab_size  # type: ignore[union-attr,operator]
    affordable = max(1, LOGITS_BYTES // (4 * vocab * ANSWER_TOKENS))
    prompts = [
        encode_probe(model, probe) if _shows(probe) else probe["ids"]
        for probe in probes[:affordable]
    ]
    answers = greedy(model, prompts)
    logits = [_logits(model, *pair) for pair in zip(prompts, answers, strict=True)]
    return Reference(prompts, answers, logits)


def greedy(model: ChatModel, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Answer each prompt alone; the token that ends an answer belongs to it."""
    found = []
    for prompt in prompts:
        (given,) = answer(model, [prompt], Sampling(max_tokens=ANSWER_TOKENS))
        end = [model.stop_ids[0]] if given.finish == "stop" and model.stop_ids else []
        found.append([*given.tokens, *end])
    return found


def check_same_answers(model: ChatModel, reference: Reference) -> int:
    """Refuse a model that answers differently, but for near ties.

    Returns:
        The number of near ties.

    Raises:
        ExportError: showing the first answer that differs.
    """
    ties = 0
    given = greedy(model, reference.prompts)
    for mine, theirs, logits in zip(given, reference.answers, reference.logits, strict=True):
        if mine == theirs:
            continue
        place = next(
            (at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
            min(len(mine), len(theirs)),
        )
        if place < len(logits) and _gap(logits[place]) < NEAR_TIE:
            ties += 1
            continue
        raise ExportError(
            "the merged model answers differently from the tuned one: "
            f"{model.tokenizer.decode(mine)!r} instead of {model.tokenizer.decode(theirs)!r}",
            hint="this is a fault of the export; nothing was published; please report it",
            where=model.name,
        )
    return ties


def measure_distance(model: ChatModel, reference: Reference) -> Distance:
    """Compare the logits of a model with the reference, token by token of its answers."""
    import torch
    from torch.nn.functional import kl_div, log_softmax

    total_kl, same, count, worst = 0.0, 0, 0, torch.zeros(())
    for prompt, given, wanted in zip(
        reference.prompts, reference.answers, reference.logits, strict=True
    ):
        if not given:
            continue
        logits = _logits(model, prompt, given)
        p, q = log_softmax(wanted, dim=-1), log_softmax(logits, dim=-1)
        total_kl += float(kl_div(q, p, log_target=True, reduction="sum"))
        same += int((wanted.argmax(-1) == logits.argmax(-1)).sum())
        worst = torch.maximum(worst, (wanted - logits).abs().max())  # keeps what is no number
        count += len(given)
    kl = total_kl / max(count, 1)
    if kl < 0:  # rounding may put equal models there
        kl = 0.0
    return Distance(count, kl, same / max(count, 1), float(worst))


def check_distance(
    distance: Distance,
    precision: str,
    where: str,
    limits: Limits = CAST,
    why: str = "",
    hint: str = "export with --precision fp32",
) -> None:
    """Refuse a model that a cast or few bits have moved too far.

    Args:
        why: what changed most.

    Raises:
        ExportError: with the figures and their limits.
    """
    finite = math.isfinite(distance.kl) and math.isfinite(distance.max_logit_difference)
    if finite and distance.kl <= limits.kl and distance.top1 >= limits.top1:
        return
    raise ExportError(
        f"in {precision} the model moves too far from the tuned one: KL {distance.kl:.4f} nats a "
        f"token (limit {limits.kl}), same choice for {distance.top1:.1%} of the tokens "
        f"(limit {limits.top1:.0%}), logits {distance.max_logit_difference:.4f} apart"
        f"{f'; {why}' if why else ''}",
        hint=hint
        if precision != "fp32"
        else "this is a fault of the export; nothing was published; please report it",
        where=where,
    )


def _logits(model: ChatModel, prompt: list[int], given: list[int]) -> torch.Tensor:
    """Return the logits from which each token of an answer was chosen, [answer, vocab]."""
    import torch

    if not given:
        return torch.zeros(0, 1)
    device = next(model.model.parameters()).device
    ids = torch.tensor([[*prompt, *given]], device=device)
    with torch.no_grad():
        shown = looked_arguments(model, [prompt], ids, None)
        logits: torch.Tensor = model.model(input_ids=ids, **shown, use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1].float().cpu()


def _gap(logits: torch.Tensor) -> float:
    best = logits.topk(2).values
    return float(best[0] - best[1])
