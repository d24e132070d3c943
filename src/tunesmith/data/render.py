"""Rows of conversations to pieces of text, as the model's chat template writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.data.media.places import fill_places, spell_media, takes_all
from tunesmith.data.rows import Conversation, Preference, Problem, Prompt, RowFault, media_of
from tunesmith.errors import DataError, TunesmithError
from tunesmith.templates import Piece, Template

if TYPE_CHECKING:
    from tunesmith.data.tokenizing import Tokenizing


def render_conversation(
    row: Conversation, how: Tokenizing
) -> list[tuple[Conversation, Sequence[Piece]]] | Problem:
    """Render the rows of a conversation, each with the messages it holds.

    Of a pair these are two, the preferred answer first.
    """
    if how.template is None:
        raise TunesmithError(
            "the model has no chat template, so conversations cannot be written as it expects",
            hint="write `model.template: chatml` or alpaca, or a path to a .jinja file",
            where="model.template",
        )
    if media_of(row):
        return _render_shown(row, how)
    return _render_text(row, how, how.template)


def _render_shown(
    row: Conversation, how: Tokenizing
) -> list[tuple[Conversation, Sequence[Piece]]] | Problem:
    """Render a conversation that shows something, each image spelled as the model counts it."""
    assert how.template is not None
    media = media_of(row)
    try:
        takes_all([medium.kind for medium in media], how.learn.senses)
        rendered = _render_text(row, how, how.template)
        if isinstance(rendered, Problem):
            return rendered
        spelled = spell_media(media, row.place, how.learn.senses)
        return [
            (part, fill_places(pieces, spelled[: len(media_of(part))], how.learn.senses))
            for part, pieces in rendered
        ]
    except RowFault as fault:
        return Problem(row.place, str(fault))


def _render_text(
    row: Conversation, how: Tokenizing, template: Template
) -> list[tuple[Conversation, Sequence[Piece]]] | Problem:
    if isinstance(row, Preference):
        return _render_pair(row, template)
    try:
        if isinstance(row, Prompt):
            asked = template.render_prompt(row.as_dicts(), row.tools)
            return [(row, [Piece(asked, learned=False)])]
        rendered = template.render_rows(
            row.as_dicts(),
            tools=row.tools,
            learn_history=how.learn.history,
            weights=[message.weight for message in row.messages],
        )
    except DataError as problem:
        return Problem(row.place, problem.message)
    if how.learn.prompts:
        rendered = [
            tuple(replace(piece, learned=piece.weight > 0) for piece in row) for row in rendered
        ]
    if len(rendered) == 1:
        return [(row, rendered[0])]
    answers = [at for at, message in enumerate(row.messages, 1) if message.role == "assistant"]
    return [
        (Conversation(row.messages[:end], row.place, tools=row.tools), pieces)
        for end, pieces in zip(answers, rendered, strict=True)
    ]


def _render_pair(
    row: Preference, template: Template
) -> list[tuple[Conversation, Sequence[Piece]]] | Problem:
    conversations = (Conversation(row.messages, row.place, tools=row.tools), row.with_rejected())
    try:
        rendered = [
            template.render_rows(c.as_dicts(), tools=c.tools, learn_history=False)
            for c in conversations
        ]
    except DataError as problem:
        return Problem(row.place, problem.message)
    return [(row, pieces) for (pieces,) in rendered]
