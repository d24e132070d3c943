"""What conversations show, put into the places that their messages keep for it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.media.medium import HERE, open_medium
from tunesmith.data.media.senses import Senses, Shown
from tunesmith.data.rows import Conversation, Medium, Place, Problem, RowFault, media_of
from tunesmith.data.tokens import TokenRow, encode_rows
from tunesmith.errors import DataError
from tunesmith.paths import expand
from tunesmith.templates import Piece, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tunesmith.data.meaning import Meaning
    from tunesmith.data.sources import RowSet
    from tunesmith.data.tokenizing import Tokenizing

KINDS = {"image": "an image", "video": "a video", "audio": "a sound"}
Spelled = tuple[str, str]
"""A kind, and the text that stands for it."""


def spell_media(media: Sequence[Medium], place: Place, senses: Senses | None) -> list[Spelled]:
    """Look at each and write what the model takes in its place.

    Raises:
        RowFault: if one cannot be read, or the model does not take its kind.
    """
    taken = takes_all([medium.kind for medium in media], senses)
    opened = [(medium.kind, open_medium(medium, place)) for medium in media]
    return [spell_shown(shown, taken) for shown in opened]


def takes_all(kinds: Sequence[str], senses: Senses | None) -> Senses:
    """Refuse what a model does not take.

    Raises:
        RowFault: naming the kind and the reason.
    """
    if senses is None:
        what = KINDS[kinds[0]]
        raise RowFault(f"it holds {what}, and the model reads text alone: name one that takes it")
    for kind in kinds:
        if reason := senses.why_not(kind):
            raise RowFault(f"it holds {KINDS[kind]}, and {reason}")
    return senses


def spell_shown(shown: Shown, senses: Senses) -> Spelled:
    """Write what a model takes in the place of something shown.

    Raises:
        RowFault: if the family's own code refuses it.
    """
    kind, _ = shown
    try:
        return kind, senses.spell(shown)
    except (ValueError, ZeroDivisionError, IndexError) as problem:
        raise RowFault(f"{KINDS[kind]} in it cannot be taken by the model: {problem}") from None


def fill_places(
    pieces: Sequence[Piece], spelled: Sequence[Spelled], senses: Senses | None
) -> tuple[Piece, ...]:
    """Put the text that stands for each in the place that the template wrote for it.

    Raises:
        RowFault: if the template wrote other than one place for each.
    """
    assert senses is not None
    tokens = {token: kind for kind, token in senses.tokens.items()}
    pattern = re.compile("|".join(map(re.escape, tokens)) or "(?!)")
    text = "".join(piece.text for piece in pieces)
    found = Counter(tokens[at.group()] for at in pattern.finditer(text))
    wanted = Counter(kind for kind, _ in spelled)
    for kind in KINDS:
        if found[kind] != wanted[kind]:
            raise RowFault(
                f"the chat template writes {found[kind]} places for {wanted[kind]} of what it "
                f"shows ({kind})"
            )
    waiting = {kind: iter([text for k, text in spelled if k == kind]) for kind in KINDS}
    return tuple(
        replace(piece, text=pattern.sub(lambda at: next(waiting[tokens[at.group()]]), piece.text))
        for piece in pieces
    )


def encode_answered(
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    senses: Senses | None,
    messages: Sequence[Mapping[str, Any]],
) -> tuple[TokenRow, tuple[Medium, ...]]:
    """Write a conversation that ends with an answer, up to its end, and tokenize it.

    Args:
        messages: with `media`, a list of kind, source and hash each, where something is shown.

    Returns:
        The row, and what it shows.

    Raises:
        DataError: if the template refuses the messages, or what they show cannot be read.
    """
    media = tuple(Medium.of(each) for message in messages for each in message.get("media", ()))
    (pieces,) = template.render_rows([dict(each) for each in messages], learn_history=False)
    try:
        if media:
            pieces = fill_places(pieces, spell_media(media, HERE, senses), senses)
    except RowFault as fault:
        raise DataError(
            str(fault), hint="show something else, or ask a model that takes it"
        ) from None
    (row,) = encode_rows(tokenizer, [pieces])
    return row.cut(row.learned[-1][1]), media


def keeps_media(row: Conversation, tokens: TokenRow, limit: int, senses: Senses | None) -> bool:
    """Whether a row that is cut still holds all that stands for what it shows."""
    return not media_of(row) or senses is None or not senses.ids & set(tokens.ids[limit:])


def hash_media(how: Tokenizing, rows: RowSet, meaning: Meaning) -> dict[str, list[str | int]]:
    """Hash what the rows show, and how it is counted; nothing if they show nothing."""
    from tunesmith.data.meaning import read_set

    digest, kinds = hashlib.sha256(), set()
    for row in read_set(rows, meaning, how.options.encoding, how.options.system):
        if isinstance(row, Problem) or not isinstance(row, Conversation):
            continue
        for medium in media_of(row):
            digest.update(medium.sha256.encode())
            kinds.add(medium.kind)
    assert how.learn.senses is not None
    seen: list[str | int] = [
        digest.hexdigest(),
        how.learn.senses.sha256,
        how.options.image_pixels or 0,
        "" if how.options.media is None else str(expand(how.options.media).absolute()),
    ]
    options = how.options
    if "video" in kinds:
        seen += [str(options.video_fps), options.video_frames, options.video_pixels or 0]
    return {"media": seen} if kinds else {}
