"""A chat template and what is learned of the text it renders.

Where the template marks what the assistant says (`{% generation %}`), the marks decide. Elsewhere
each conversation is rendered turn by turn: what the text with an answer has beyond the prompt for
it is that answer. A template that rewrites earlier turns once later ones follow gives no text in
which all answers stand as they were asked for; such a conversation becomes one row per answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.errors import DataError, ModelError
from tunesmith.templates.breaks import MARK_END, MARK_START, Breaker, has_reserved
from tunesmith.templates.environment import compile_template

THINKING = ("<think>", "</think>")
"""Tokens that an assistant writes itself: an answer may spell them and mean them."""
PROBE = "tunesmithprobe"
MARKS = re.compile(f"[{MARK_START}{MARK_END}]")

Messages = Sequence[Mapping[str, str]]
Span = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """A part of a rendered conversation."""

    text: str
    learned: bool


@dataclass(frozen=True)
class Rendering:
    """A rendered text and the spans of it that generation marks enclose."""

    text: str
    marked: tuple[Span, ...]


@dataclass(frozen=True)
class Turn:
    """One answer, rendered as a server meets it: with all before it and nothing after.

    Attributes:
        text: the conversation up to and with the answer.
        learned: spans of `text`, in order; the last one is closed by the turn's end.
        closed: whether the template itself wrote the turn's end after the answer.
    """

    text: str
    learned: tuple[Span, ...]
    closed: bool

    @property
    def end(self) -> int:
        """Where the answer is over in `text`."""
        return self.learned[-1][1] if self.learned else len(self.text)


def build_template(
    source: str,
    *,
    special_tokens: Mapping[str, str],
    all_specials: Sequence[str],
    name: str = "",
) -> Template:
    """Compile a chat template and find the token at which its answers end.

    Args:
        source: the jinja text.
        special_tokens: by the names that templates use, such as bos_token and eos_token.
        all_specials: every spelling that the tokenizer reads as one token.
        name: what errors call it.

    Raises:
        ModelError: if it is no jinja, refuses a plain question and answer, or ends no turn with a
            special token.
    """
    return Template(source, special_tokens=special_tokens, all_specials=all_specials, name=name)


class Template:
    """A compiled chat template; `build_template` makes it.

    Attributes:
        source: the jinja text.
        sha256: hash of the source.
        turn_end: the special token at which an answer is over; always learned.
    """

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, str],
        all_specials: Sequence[str],
        name: str,
    ) -> None:
        self.source = source
        self.sha256 = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        self.name = name or "chat template"
        self._compiled = compile_template(source, self.name)
        self._tokens = dict(special_tokens)
        specials = sorted({text for text in (*all_specials, *special_tokens.values()) if text})
        self._break = Breaker(specials)
        self._break_answer = Breaker(specials, spare=THINKING)
        self._has_marks = re.search(r"{%-?\s*generation\s*-?%}", source) is not None
        self.turn_end = self._find_turn_end(specials)

    def render_prompt(self, messages: Messages) -> str:
        """Render what a server asks the model to continue with the next answer.

        Raises:
            DataError: if the template refuses the conversation.
        """
        return self._render(messages, prompt=True).text

    def render_rows(
        self, messages: Messages, *, learn_history: bool = True
    ) -> list[tuple[Piece, ...]]:
        """Render a conversation and tell what of it is learned.

        Returns:
            One row, or one per answer where the template rewrites earlier turns.

        Raises:
            DataError: if the template refuses the conversation, or it has no answer.
        """
        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise DataError("the conversation has no answer", hint="add one", where=self.name)
        asked = answers if learn_history else answers[-1:]
        turns = [self._render_turn(messages, at) for at in asked]
        whole = self._join(turns)
        return [whole] if whole is not None else [self._pieces_of(turn) for turn in turns]

    def _render_turn(self, messages: Messages, at: int) -> Turn:
        prompt = self._render(messages[:at], prompt=True).text
        full = self._render(messages[: at + 1])
        start = self._answer_start(messages[:at], prompt, full.text)
        if self._has_marks:
            spans = tuple(span for span in full.marked if span[1] > start)
        else:
            spans = ((start, len(full.text)),)
        return self._close(full.text, spans)

    def _answer_start(self, before: Messages, prompt: str, full: str) -> int:
        """Find where the answer starts in the text that ends with it."""
        if full.startswith(prompt):
            return len(prompt)
        # The prompt opens what the answer does not have, such as a thought: compare with another
        # answer, so that an answer's own first letters are never taken for the template's.
        probe = self._render([*before, {"role": "assistant", "content": PROBE}]).text
        header = _common_start(prompt, probe)
        if header and full.startswith(header):
            return len(header)
        raise DataError(
            "the chat template renders the answer elsewhere than its prompt asks for it",
            hint="name another template with model.template",
            where=self.name,
        )

    def _close(self, text: str, spans: tuple[Span, ...]) -> Turn:
        """Let the last learned span end with the turn's end."""
        if not spans:
            return Turn(text, (), closed=True)
        start, end = spans[-1]
        inside = text.find(self.turn_end, start)
        after = end + len(text[end:]) - len(text[end:].lstrip())
        if inside != -1 and inside < max(end, after + 1):
            wanted = inside + len(self.turn_end)
            return Turn(text, (*spans[:-1], (start, wanted)), closed=True)
        return Turn(text, spans, closed=False)

    def _join(self, turns: list[Turn]) -> tuple[Piece, ...] | None:
        """Join turns into one row, or return None where the last text changed an earlier turn."""
        last = turns[-1]
        spans: list[Span] = []
        for turn in turns[:-1]:
            if last.text[: turn.end] != turn.text[: turn.end]:
                return None
            again = turn if turn.closed else self._close(last.text, turn.learned)
            if not again.closed:
                return None
            spans += again.learned
        return self._pieces_of(Turn(last.text, (*spans, *last.learned), last.closed))

    def _pieces_of(self, turn: Turn) -> tuple[Piece, ...]:
        text, spans = turn.text, turn.learned
        if not turn.closed:
            start = spans[-1][0]
            text, spans = text + self.turn_end, (*spans[:-1], (start, len(text + self.turn_end)))
        pieces: list[Piece] = []
        done = 0
        for start, end in spans:
            pieces += [Piece(text[done:start], False), Piece(text[start:end], True)]
            done = end
        pieces.append(Piece(text[done:], False))
        return tuple(piece for piece in pieces if piece.text)

    def _render(self, messages: Messages, *, prompt: bool = False) -> Rendering:
        try:
            text = self._compiled.render(
                messages=[self._broken(message) for message in messages],
                add_generation_prompt=prompt,
                tools=None,
                documents=None,
                **self._tokens,
            )
        except DataError:
            raise
        except Exception as problem:  # noqa: BLE001  a template may raise anything
            raise DataError(
                f"the chat template refuses the conversation: {problem}",
                hint="change the row, or name another template with model.template",
                where=self.name,
            ) from None
        return _read_marks(text)

    def _broken(self, message: Mapping[str, str]) -> dict[str, str]:
        content = message["content"]
        if has_reserved(content):
            raise DataError(
                "the text holds a character from U+FDD0 to U+FDD2, which are reserved",
                hint="remove it",
                where=self.name,
            )
        broken = self._break_answer if message["role"] == "assistant" else self._break
        return {**message, "content": broken(content)}

    def _find_turn_end(self, specials: Sequence[str]) -> str:
        """Render a probe and take the first special token after its answer.

        Some families close an answer only by the token that opens the next turn; there that one
        ends the turn.
        """
        question = {"role": "user", "content": "question"}
        probe = [question, {"role": "assistant", "content": PROBE}]
        spelled = sorted((text for text in specials if text.strip()), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, spelled)) or "(?!)")
        for messages in (probe, [*probe, question]):
            try:
                text = self._render(messages).text
            except DataError as problem:
                raise ModelError(
                    f"{problem.message}, though it is a plain question and its answer",
                    hint="name another template with model.template",
                    where=self.name,
                ) from None
            found = pattern.search(text, text.rfind(PROBE) + len(PROBE))
            if PROBE in text and found:
                return found.group()
        raise ModelError(
            "the chat template ends an answer with no special token, so no model could learn to "
            "stop",
            hint="name another template with model.template, such as chatml or alpaca",
            where=self.name,
        )


def _common_start(one: str, other: str) -> str:
    pairs = zip(one, other, strict=False)
    length = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return one[:length]


def _read_marks(text: str) -> Rendering:
    """Take the generation marks out of a rendered text."""
    spans: list[Span] = []
    parts: list[str] = []
    done = length = opened = 0
    for mark in MARKS.finditer(text):
        parts.append(text[done : mark.start()])
        length += len(parts[-1])
        done = mark.end()
        if mark.group() == MARK_START:
            opened = length
        elif length > opened:
            spans.append((opened, length))
    parts.append(text[done:])
    return Rendering("".join(parts), tuple(spans))
