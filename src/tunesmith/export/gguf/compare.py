"""Compare what llama.cpp says with what the tuned model said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.data.tokens import encode
from tunesmith.errors import ExportError
from tunesmith.export.gguf.ask import Likeliest, Questions, ask
from tunesmith.export.gguf.blame import find_fault
from tunesmith.export.gguf.families import describe_model
from tunesmith.export.gguf.packing import PACKINGS
from tunesmith.export.gguf.sample import SAMPLE
from tunesmith.export.gguf.write import open_model
from tunesmith.export.merged import Tuned
from tunesmith.export.parity import NEAR_TIE, Distance, Reference
from tunesmith.inference.generate import template_of
from tunesmith.models.chat import ChatModel
from tunesmith.templates import BREAK

if TYPE_CHECKING:
    import torch

Probe = dict[str, Any]
Scored = tuple[list[int], list[int], "torch.Tensor"]
"""A prompt, an answer, and the logits before each of its tokens."""


def prove(
    path: Path, tuned: Tuned, packing: str, adapter: Path | None = None
) -> tuple[Distance, Distance | None]:
    """Ask llama.cpp what the run's own prompts are answered with, and refuse what differs.

    Args:
        adapter: a file that is added to the model's.

    Returns:
        How far it is from the tuned model, and from the one on a quantized base, if there is one.

    Raises:
        ExportError: naming the text, the template, or the weight that differs.
    """
    chat = tuned.chat
    probes = _plain_probes(chat, tuned.probes)
    conversations = [probe for _, probe in probes if "messages" in probe]
    pairs = _pairs(tuned.reference, chat)
    before = _pairs(tuned.trained, chat) if tuned.trained else []
    questions = Questions(
        [*(text for text, _ in probes), *SAMPLE],
        [_body(probe) for probe in conversations],
        [(prompt, answer) for prompt, answer, _ in pairs + before],
        [prompt + answer[:-1] for prompt, answer, _ in pairs if answer[-1] in chat.stop_ids],
    )
    heard = ask(path, questions, chat.tokenizer, adapter)
    _check_tokens(chat, questions.texts, heard.tokens)
    _check_template(chat, conversations, heard.prompts)
    _check_ends(heard.stops, str(path))
    tie = max(NEAR_TIE, open_model(chat)[2].exactness)
    distance = measure(pairs, heard.likeliest, tie)
    check_near(distance, path, tuned, packing)
    moved = heard.likeliest[len(pairs) :]
    return distance, measure(before, moved, tie) if before else None


def _plain_probes(chat: ChatModel, probes: Sequence[Probe]) -> list[tuple[str, Probe]]:
    """Render the probes; those that spell a special token have no text that others could read."""
    rendered = [
        template_of(chat).render_prompt(probe["messages"], probe.get("tools", ()))
        if "messages" in probe
        else probe["text"]
        for probe in probes
    ]
    return [pair for pair in zip(rendered, probes, strict=True) if BREAK not in pair[0]]


def _body(probe: Probe) -> Probe:
    """Write a probe as a client would ask."""
    body: Probe = {"messages": [_message(message) for message in probe["messages"]]}
    return {**body, "tools": probe["tools"]} if probe.get("tools") else body


def _message(message: Probe) -> Probe:
    calls = message.get("tool_calls")
    if not calls:
        return message
    spelled = []
    for call in calls:
        function = call["function"]
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        spelled.append({**call, "function": {**function, "arguments": arguments}})
    return {**message, "tool_calls": spelled}


def _pairs(reference: Reference, chat: ChatModel) -> list[Scored]:
    """Take what fits into the context that llama.cpp keeps to.

    Raises:
        ExportError: if nothing does.
    """
    context = context_of(chat)
    whole = zip(reference.prompts, reference.answers, reference.logits, strict=True)
    found = [one for one in whole if one[1] and len(one[0]) + len(one[1]) <= context]
    if not found:
        raise ExportError(
            f"no prompt of the run fits into the {context} tokens that llama.cpp takes of it",
            hint="use --format safetensors",
            where=chat.name,
        )
    return found


def context_of(chat: ChatModel) -> int:
    """Return how many tokens llama.cpp takes of a model."""
    _, config, family = open_model(chat)
    context = describe_model(family, config)[f"{family.name}.context_length"]
    assert isinstance(context, int)
    return context


def _check_tokens(chat: ChatModel, texts: Sequence[str], heard: Sequence[list[int]]) -> None:
    for text, theirs in zip(texts, heard, strict=True):
        ours = encode(chat.tokenizer, text)
        if ours != theirs:
            raise ExportError(
                f"llama.cpp makes other tokens of {text[:60]!r}: {_difference(chat, theirs, ours)}",
                hint="use --format safetensors; please report it, with the tokenizer's name",
                where=str(chat.folder),
            )


def _difference(chat: ChatModel, theirs: list[int], ours: list[int]) -> str:
    """Show where two lists of tokens part."""
    place = next(
        (at for at, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
        min(len(theirs), len(ours)),
    )
    said = [chat.tokenizer.convert_ids_to_tokens(ids[place : place + 4]) for ids in (theirs, ours)]
    return f"{said[0]} instead of {said[1]}"


def _check_template(chat: ChatModel, probes: Sequence[Probe], heard: Sequence[str]) -> None:
    opening = str(chat.tokenizer.bos_token or "")
    for probe, theirs in zip(probes, heard, strict=True):
        ours = template_of(chat).render_prompt(probe["messages"], probe.get("tools", ()))
        if theirs not in (ours, ours.removeprefix(opening)):
            raise ExportError(
                f"llama.cpp renders the chat template otherwise: {_around(theirs, ours)}",
                hint="use --format safetensors; or train with a simpler template",
                where=template_of(chat).name,
            )


def _around(theirs: str, ours: str) -> str:
    """Show where two texts part."""
    place = next(
        (at for at, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
        min(len(theirs), len(ours)),
    )
    start = max(0, place - 10)
    return f"{theirs[start : place + 30]!r} instead of {ours[start : place + 30]!r}"


def _check_ends(stops: Sequence[bool], where: str) -> None:
    if not all(stops):
        raise ExportError(
            "llama.cpp does not end an answer where the tuned model does",
            hint="this is a fault of the export; nothing was published; please report it",
            where=where,
        )


def measure(pairs: Sequence[Scored], heard: Sequence[Sequence[Likeliest]], tie: float) -> Distance:
    """Compare the log-probabilities of the likeliest tokens in each place.

    Args:
        tie: logits closer than this are no order.
    """
    kl, same, count, worst = 0.0, 0, 0, 0.0
    for (_, _, logits), places in zip(pairs, heard, strict=False):
        for wanted, place in zip(logits, places, strict=True):
            found = _compare(wanted, place, tie)
            kl, same, count = kl + found.kl, same + int(found.top1), count + 1
            worst = max(worst, found.max_logit_difference)
    return Distance(count, max(kl / count, 0.0), same / count, worst)


def _compare(wanted: torch.Tensor, place: Likeliest, tie: float) -> Distance:
    """Compare one place; the largest difference is relative to what is less likely than 1 in e."""
    import torch

    ours = torch.log_softmax(wanted.double(), 0)[place.ids]
    theirs = torch.tensor(place.logprobs, dtype=torch.float64)
    p, q = ours.exp(), theirs.exp()
    kl = (p * (ours - theirs) - p + q).sum()  # what is left out of either counts too
    first, second = wanted.topk(2).values
    near = bool(first - second < tie)
    same = near or int(wanted.argmax()) == place.ids[0]
    differs = ((ours - theirs).abs() / ours.abs().clamp(min=1)).max()
    return Distance(1, float(kl), float(same), float(differs))


def check_near(distance: Distance, path: Path, tuned: Tuned, packing: str) -> None:
    """Refuse a file that says something else than its packing explains.

    Raises:
        ExportError: with the figures, their limits, and what differs.
    """
    limits, (_, _, family) = PACKINGS[packing], open_model(tuned.chat)
    most = family.exactness if packing == "f32" else math.inf
    finite = math.isfinite(distance.kl) and math.isfinite(distance.max_logit_difference)
    near = distance.kl <= limits.max_kl and distance.top1 >= limits.min_top1
    if finite and near and distance.max_logit_difference <= most:
        return
    raise ExportError(
        f"in {packing} llama.cpp says something else than the tuned model: KL {distance.kl:.1e} "
        f"nats a token (limit {limits.max_kl}), same choice for {distance.top1:.1%} of the tokens "
        f"(limit {limits.min_top1:.0%}), log-probabilities {distance.max_logit_difference:.1e} "
        f"apart{'' if math.isinf(most) else f' (limit {most})'}; {find_fault(path, tuned.chat)}",
        hint="export with --quantize f32"
        if packing != "f32"
        else "this is a fault of the export; nothing was published; please report it",
        where=str(path.parent),
    )
