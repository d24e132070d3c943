"""Prompts that show something: their tokens, and what a model is given beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.media.medium import (
    HERE,
    as_shown,
    look_at_all,
    look_at_medium,
    open_all,
    open_medium,
)
from tunesmith.data.media.places import fill_places, spell_shown, takes_all
from tunesmith.data.media.senses import Senses, Shown
from tunesmith.data.rows import Medium, RowFault
from tunesmith.data.tokens import encode_rows
from tunesmith.errors import RequestError
from tunesmith.templates import PLACES, Piece
from tunesmith.templates.parts import part_at_places

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedTokenizerFast

    from tunesmith.models.chat import ChatModel, RewardModel
    from tunesmith.templates import Template

NONE: Mapping[str, Any] = {}


class Looked(list[int]):
    """Token ids of a prompt, and what it shows: not decoded while it waits for its turn.

    Attributes:
        media: in the order of the tokens that stand for it.
    """

    def __init__(self, ids: Iterable[int], media: Sequence[Medium]) -> None:
        super().__init__(ids)
        self.media = tuple(media)

    def open(self) -> list[Shown]:
        """Decode what it shows.

        Raises:
            RequestError: if a file is gone, or another than it was.
        """
        try:
            return open_all(self.media)
        except RowFault as fault:
            raise _refusal(fault) from None


@dataclass(frozen=True)
class Written:
    """A conversation as a template writes it, with what it shows in the places for it."""

    pieces: Sequence[Piece]
    media: Sequence[Medium]

    def encode(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Tokenize it."""
        (row,) = encode_rows(tokenizer, [self.pieces])
        return Looked(row.ids, self.media) if self.media else row.ids


def encode_messages(
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    senses: Senses | None,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    options: Mapping[str, Any] = NONE,
) -> list[int]:
    """Write messages as a template does, put what they show into its places, and tokenize them.

    Args:
        messages: with `media`, a list of kind, source and hash each, where something is shown.
        options: what the template is told besides.

    Raises:
        DataError: if the template refuses the messages.
        RequestError: if what they show cannot be read, or the model does not take it.
    """
    return write_messages(template, senses, messages, tools, options).encode(tokenizer)


def write_messages(
    template: Template,
    senses: Senses | None,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    options: Mapping[str, Any] = NONE,
) -> Written:
    """Write messages as a template does; several may be written at the same time.

    Raises:
        DataError: if the template refuses the messages.
        RequestError: if what they show cannot be read, or the model does not take it.
    """
    media = [Medium.of(each) for message in messages for each in message.get("media", ())]
    places = sum(
        str(message.get("content") or "").count(place)
        for message in messages
        for place in PLACES.values()
    )
    if places != len(media):
        raise RequestError(
            "the text holds a character from U+FDD3 to U+FDD5, which are reserved",
            hint="remove it",
            where="messages",
        )
    if not media:
        return Written([Piece(template.render_prompt(messages, tools, options), learned=False)], ())
    try:
        taken = takes_all([medium.kind for medium in media], senses)
        text = template.render_prompt(messages, tools, options)
        media = look_at_all([as_shown(each, taken.shows) for each in media])
        spelled = [spell_shown(each, taken) for each in open_all(media)]
        return Written(fill_places([Piece(text, learned=False)], spelled, taken), media)
    except RowFault as fault:
        raise _refusal(fault) from None


def refuse_too_much(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse messages whose images cannot be read, or would fill the memory together.

    Raises:
        RequestError: naming the image, or their size.
    """
    try:
        look_at_all([Medium.of(each) for message in messages for each in message.get("media", ())])
    except RowFault as fault:
        raise _refusal(fault) from None


def _refusal(fault: RowFault) -> RequestError:
    hint = "send another, or ask a model that takes it"
    return RequestError(str(fault), hint=hint, where="messages")


def refuse_shown(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse messages that show something, where an engine would pass on their text alone.

    Raises:
        RequestError: if one does.
    """
    if any(message.get("media") for message in messages):
        raise RequestError(
            "this engine passes on text alone, and a message shows something",
            hint="leave it out, or serve the model by this process: its run, or its folder",
            where="messages",
        )


def check_shown(senses: Senses | None, kind: str, path: Path) -> list[Any]:
    """Look at a file that is to be shown.

    Returns:
        kind, path and hash, as messages keep them.

    Raises:
        RequestError: if it cannot be read, or the model does not take its kind.
    """
    try:
        taken = takes_all([kind], senses)
        found = look_at_medium(Medium(kind, str(path.absolute())), HERE)
        spell_shown((kind, open_medium(as_shown(found, taken.shows), HERE)), taken)
    except RowFault as fault:
        raise RequestError(
            str(fault), hint="name another file, or talk to a model that takes it", where=str(path)
        ) from None
    return found.as_list(found.source)


def in_open_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """Write a message as OpenAI's API takes it, with what it shows among its parts."""
    if not message.get("media"):
        return dict(message)
    media = iter(message["media"])
    parts: list[dict[str, Any]] = []
    for kind, text in part_at_places(message["content"]):
        if kind:
            source = next(media)[1]
            parts.append({"type": kind, kind: source})
        if text:
            parts.append({"type": "text", "text": text})
    return {"role": message["role"], "content": parts}


def looked_arguments(
    model: ChatModel | RewardModel,
    prompts: Sequence[Sequence[int]],
    ids: torch.Tensor,
    mask: torch.Tensor | None,
) -> dict[str, Any]:
    """List what a model is given beside the tokens of prompts.

    Args:
        ids: the prompts with what follows, [batch, seq].
        mask: which tokens are none, [batch, seq], where answers are written; None asks for the
            positions too.
    """
    if model.senses is None or not any(isinstance(each, Looked) for each in prompts):
        return {}
    from tunesmith.models.seeing import seen_arguments, seen_positions

    shown = [each.open() if isinstance(each, Looked) else [] for each in prompts]
    numbers = model.senses.numbers(shown)
    given = seen_arguments(model.model, ids, numbers)
    if mask is None:
        return given | seen_positions(model.model, ids, numbers)
    return given
