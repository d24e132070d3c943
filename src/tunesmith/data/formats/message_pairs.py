"""Pairs in OpenAI's messages: two answers, or two conversations that differ in their last one."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.formats.format import Fields, Format, Names, Pair, read_list
from tunesmith.data.formats.media import COLUMNS
from tunesmith.data.formats.messages import (
    matches_messages,
    read_messages,
    read_side,
    spelled_messages,
    with_system,
)
from tunesmith.data.formats.turns import make_pair
from tunesmith.data.rows import Message, RowFault

BOTH = ("chosen", "rejected")


def _matches_after_messages(fields: Fields, tags: Names) -> bool:
    if not matches_messages(fields, tags) or not {*BOTH} <= fields.keys():
        return False
    last = read_list(fields, "messages")[-1]
    return not isinstance(last, dict) or last.get("role") != "assistant"


def _read_after_messages(fields: Fields, tags: Names) -> Pair:
    """Take the messages up to the question; `chosen` and `rejected` answer it."""
    return _read_answers(read_messages(fields), fields)


def _matches_after_prompt(fields: Fields, tags: Names) -> bool:
    if not {*BOTH} <= fields.keys():
        return False
    if "prompt" in fields:
        return True
    chosen = fields["chosen"]
    if isinstance(chosen, str):
        return spelled_messages(chosen) is not None
    return matches_messages({"messages": chosen}, tags)


def _read_after_prompt(fields: Fields, tags: Names) -> Pair:
    """Ask `prompt`, a text or messages; missing where both answers hold what they answer."""
    asked = read_side(fields, "prompt", "user") if fields.get("prompt") is not None else []
    return _read_answers(asked, fields)


def _read_answers(asked: Sequence[Message], fields: Fields) -> Pair:
    (*before, chosen), (*other, rejected) = (_read_side(fields, name) for name in BOTH)
    if before != other:
        raise RowFault("`chosen` and `rejected` differ before their last messages")
    if before and before[0].role == "assistant":  # they go on from the prompt
        before = [*asked, *before]
    elif before:
        if asked and asked[0].role == "system" != before[0].role:
            before = [asked[0], *before]
        if not _begins(asked, before):
            raise RowFault("`chosen` answers another question than the row asks")
    whole = with_system(list(before or asked), fields)
    if whole and whole[-1].role == "assistant":
        raise RowFault("the conversation ends with an answer already, before the two")
    return make_pair(whole, chosen, rejected)


def _read_side(fields: Fields, name: str) -> list[Message]:
    if name not in fields:
        raise RowFault(f"`{name}` is missing")
    answer = read_side(fields, name, "assistant")
    if not answer:
        raise RowFault(f"`{name}` holds no message")
    if answer[-1].role != "assistant":
        raise RowFault(f"`{name}` ends with a message of role {answer[-1].role}, not an answer")
    return answer


def _begins(asked: Sequence[Message], before: Sequence[Message]) -> bool:
    """Whether a conversation is asked what the row asks, whole or as the first of its questions."""
    said = [(message.role, message.content.strip()) for message in before]
    if len(asked) == 1:
        return (asked[0].role, asked[0].content.strip()) in said
    return list(asked) == list(before[: len(asked)])


MESSAGES_PAIRS = Format(
    name="messages_pairs",
    kind="preference",
    columns={
        name: name for name in ("messages", "chosen", "rejected", "system", "tools", *COLUMNS)
    },
    tags={},
    matches=_matches_after_messages,
    read=_read_after_messages,
)
PROMPT_PAIRS = Format(
    name="prompt_pairs",
    kind="preference",
    columns={name: name for name in ("prompt", "chosen", "rejected", "system", "tools", *COLUMNS)},
    tags={},
    matches=_matches_after_prompt,
    read=_read_after_prompt,
)
