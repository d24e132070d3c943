"""The order of messages: questions and answers in turn, calls of tools and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.data.formats.format import Pair, Question
from tunesmith.data.rows import Call, Message, RowFault

FOLLOWERS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "call": ("tool",),
    "tool": ("tool", "assistant"),
}
"""What may follow each role; a call is an answer that waits for results."""
FAULTS = {"question": "user", "answer": "assistant"}


def check_turns(messages: Sequence[Message], *, join: bool = False) -> tuple[Message, ...]:
    """Check that sides take turns, that every question has an answer and every result a call.

    Calls without an id get one, and results the id and the tool's name of the call they answer.

    Args:
        join: take calls that follow an answer as part of it.

    Raises:
        RowFault: naming the message that breaks the order.
    """
    order = _Order(join)
    for number, message in enumerate(messages, 1):
        order.add(number, message)
    if not messages or messages[-1].role != "assistant":
        raise RowFault("the conversation ends without an answer")
    return tuple(m for m in order.messages if m.role != "system" or m.content.strip())


class _Order:
    def __init__(self, join: bool) -> None:
        self.messages: list[Message] = []
        self._join, self._last, self._caller = join, "", 0
        self._open: list[Call] = []
        self._named = self._answered = False
        self._count = 0

    def add(self, number: int, message: Message) -> None:
        """Append the message, if it may stand here."""
        if self._join and self._last == "assistant" and message.calls and not message.content:
            before = self.messages.pop()
            message = replace(message, content=before.content, reasoning=before.reasoning)
            self._last = "user"
        if message.role not in FOLLOWERS[self._last]:
            raise RowFault(self._misplaced(number, message))
        if message.role == "tool":
            message = self._answer(number, message)
        else:
            self._close()
        if message.role in FAULTS.values() and not (message.content.strip() or message.calls):
            side = "question" if message.role == "user" else "answer"
            raise RowFault(f"the {side} in message {number} is empty")
        self._last = "call" if message.calls else message.role
        if message.calls:
            message = self._number(message)
            self._open, self._caller = list(message.calls), number
            self._answered = False
        self.messages.append(message)

    def _misplaced(self, number: int, message: Message) -> str:
        if message.role == "tool":
            return f"message {number} is the result of a tool, and no call stands before it"
        if self._last == "call":
            return f"message {self._caller} calls a tool, and message {number} is no result"
        expected = " or ".join(FOLLOWERS[self._last])
        return f"message {number} is of role {message.role}; expected {expected}"

    def _number(self, message: Message) -> Message:
        """Give ids to calls that have none: nine characters, as some templates demand."""
        self._named = all(call.id for call in message.calls)
        calls = []
        for call in message.calls:
            self._count += 1
            calls.append(call if call.id else replace(call, id=f"call{self._count:05d}"))
        return replace(message, calls=tuple(calls))

    def _answer(self, number: int, message: Message) -> Message:
        """Find the call that a result belongs to."""
        wanted = message.call_id if self._named else ""
        found = next((call for call in self._open if wanted in ("", call.id)), None)
        if found is None and wanted:
            raise RowFault(
                f"message {number} is the result of the call {wanted!r}, which waits for none"
            )
        if found is None:
            raise RowFault(f"message {number} is one result more than there are calls")
        self._open.remove(found)
        self._answered = True
        return replace(message, call_id=found.id, name=message.name or found.name)

    def _close(self) -> None:
        """Refuse to go on where a call has no result; one may answer several that have no ids."""
        if self._open and self._answered and self._named:
            raise RowFault(f"the call {self._open[0].id!r} of message {self._caller} has no result")
        self._open = []


def make_question(messages: Sequence[Message], *, join: bool = False) -> Question:
    """Part a conversation before its last answer; it may end with a question or a result too.

    Args:
        join: see `check_turns`.

    Raises:
        RowFault: if there is no question, one is empty, or the messages are in no order.
    """
    if messages and messages[-1].role in ("user", "tool"):
        probed = check_turns([*messages, Message("assistant", "answer")], join=join)
        return Question(probed[:-1], None)
    *before, last = check_turns(messages, join=join)
    return Question(tuple(before), last.spell() if last.calls else last.content)


def make_pair(
    before: Sequence[Message], chosen: Message, rejected: Message, *, join: bool = False
) -> Pair:
    """Put two answers after the messages that both answer.

    Args:
        join: see `check_turns`.

    Raises:
        RowFault: if one is empty, both are the same, or the messages are in no order.
    """
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not (answer.content.strip() or answer.calls):
            raise RowFault(f"the answer is empty: `{name}` has no text")
        if answer.weight != 1:
            raise RowFault(f"`{name}` has a weight, and pairs are judged whole")
    if chosen == rejected:
        raise RowFault("both answers are the same, so none is preferred")
    one, other = (check_turns([*before, answer], join=join) for answer in (chosen, rejected))
    return Pair(one, other[-1])
