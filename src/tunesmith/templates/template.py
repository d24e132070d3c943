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
from dataclasses import replace
from functools import cached_property
from typing import Any

from tunesmith.errors import DataError, ModelError
from tunesmith.templates.breaks import BREAK, THINKING, Breaker, has_reserved
from tunesmith.templates.environment import compile_template, read_names
from tunesmith.templates.marks import Rendering, Span, has_marks, read_marks
from tunesmith.templates.parts import in_parts, part_at_places
from tunesmith.templates.pieces import Piece, Turn
from tunesmith.templates.probes import CALLED, CALLED_TWICE, PROBE, QUESTION, TOOL
from tunesmith.templates.written import OTHER, left_out

APART = ("role", "content", "media")
"""What of a message is no text, or gets parted."""
NONE: Mapping[str, Any] = {}
Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


def build_template(
    source: str,
    *,
    special_tokens: Mapping[str, str],
    all_specials: Sequence[str],
    name: str = "",
    for_tools: str = "",
) -> Template:
    """Compile a chat template and find the token at which its answers end.

    Args:
        source: the jinja text.
        for_tools: another one, for conversations that offer tools.
        special_tokens: by the names that templates use, such as bos_token and eos_token.
        all_specials: every spelling that the tokenizer reads as one token.
        name: what errors call it.

    Raises:
        ModelError: if it is no jinja, refuses a plain question and answer, or ends no turn with a
            special token.
    """
    return Template(
        source,
        special_tokens=special_tokens,
        all_specials=all_specials,
        name=name,
        for_tools=for_tools,
    )


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
        for_tools: str = "",
    ) -> None:
        self.source = source
        whole = source + for_tools
        self.sha256 = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
        self.name = name or "chat template"
        self._compiled = compile_template(source, self.name)
        self._for_tools = compile_template(for_tools, self.name) if for_tools else self._compiled
        self._tools_source = for_tools
        self._tokens = dict(special_tokens)
        specials = sorted({text for text in (*all_specials, *special_tokens.values()) if text})
        spelled = sorted((text for text in specials if text.strip()), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, spelled)) or "(?!)")
        self._break = Breaker(specials)
        self._break_answer = Breaker(specials, spare=THINKING)
        self._has_marks = has_marks(source)
        self._marks_for_tools = has_marks(for_tools or source)
        self._in_parts = False
        self._in_parts = not self._writes_text()
        self.turn_end, self._opens = self._find_turn_end()

    @cached_property
    def options(self) -> frozenset[str]:
        """What it can be told besides messages and tools, such as `enable_thinking`."""
        return frozenset(read_names(self.source) | read_names(self._tools_source)) - {*self._tokens}

    def render_prompt(
        self, messages: Messages, tools: Tools = (), options: Mapping[str, Any] = NONE
    ) -> str:
        """Render what a server asks the model to continue with the next answer.

        Args:
            options: what the template is told besides, by names among its `options`.

        Raises:
            DataError: if the template refuses the conversation.
        """
        self._check_tools(tools)
        return self._render(messages, tools, prompt=True, options=options).text

    def render_rows(
        self,
        messages: Messages,
        *,
        tools: Tools = (),
        learn_history: bool = True,
        weights: Sequence[float] = (),
    ) -> list[tuple[Piece, ...]]:
        """Render a conversation and tell what of it is learned.

        Args:
            tools: what may be called, each as OpenAI's API takes it.
            weights: how much each message counts if it is learned; none for all alike.

        Returns:
            One row, or one per answer where the template rewrites earlier turns.

        Raises:
            DataError: if the template refuses the conversation, leaves out a part of it, or it has
                no answer.
        """
        self._check_tools(tools)
        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise DataError("the conversation has no answer", hint="add one", where=self.name)
        asked = answers if learn_history else answers[-1:]
        weights = weights or [1.0] * len(messages)
        turns = [
            replace(self._render_turn(messages, tools, at), weight=weights[at]) for at in asked
        ]
        for message in messages:
            if message["role"] == "tool":
                self._check_written(message, turns[-1].text)
        whole = self._join(turns)
        return [whole] if whole is not None else [self._pieces_of(turn) for turn in turns]

    def spell_answer(self, messages: Messages, tools: Tools = ()) -> str:
        """Write the last answer alone, with its calls, as a model would write it.

        Raises:
            DataError: if the template refuses the conversation.
        """
        turn = self._render_turn(messages, tools, len(messages) - 1)
        text = "".join(turn.text[start:end] for start, end in turn.learned)
        return text.replace(BREAK, "").removesuffix(turn.ending).strip()

    @cached_property
    def call_end(self) -> str:
        """The special token at which an answer is over that calls a tool."""
        try:
            return self._render_turn(CALLED, [TOOL], 1).ending
        except DataError:  # it writes no calls
            return self.turn_end

    def _render_turn(self, messages: Messages, tools: Tools, at: int) -> Turn:
        prompt = self._render(messages[:at], tools, prompt=True).text
        full = self._render(messages[: at + 1], tools)
        start = self._answer_start(messages[:at], tools, prompt, full.text)
        self._check_written(messages[at], full.text[start:])
        if self._marks_for_tools if tools else self._has_marks:
            spans = tuple(span for span in full.marked if span[1] > start)
        else:
            spans = ((start, len(full.text)),)
        turn = self._close(full.text, spans, self.turn_end)
        if messages[at].get("tool_calls") and not turn.closed:
            return self._close(full.text, spans, self._call_end)
        return turn

    def _check_tools(self, tools: Tools) -> None:
        """Refuse tools that the template would not write."""
        if tools and not self.writes_tools:
            raise self._unwritten(f"writes no tools; {OTHER}")

    def _check_written(self, message: Mapping[str, Any], text: str) -> None:
        if missing := left_out(message, text):
            raise self._unwritten(missing)

    def _unwritten(self, what: str) -> DataError:
        return DataError(f"the chat template {what}", hint=OTHER, where=self.name)

    def _answer_start(self, before: Messages, tools: Tools, prompt: str, full: str) -> int:
        """Find where the answer starts in the text that ends with it."""
        if full.startswith(prompt):
            return len(prompt)
        # The prompt opens what the answer does not have, such as a thought: compare with another
        # answer, so that an answer's own first letters are never taken for the template's.
        probe = self._render([*before, {"role": "assistant", "content": PROBE}], tools).text
        header = _common_start(prompt, probe)
        before_all = self._render(before, tools).text.rstrip()
        if header and full.startswith(header) and full.startswith(before_all):
            return max(len(header), len(before_all))
        raise DataError(
            "the chat template renders the answer elsewhere than its prompt asks for it",
            hint="name another template with model.template",
            where=self.name,
        )

    def _close(self, text: str, spans: tuple[Span, ...], ending: str) -> Turn:
        """Let the last learned span end with the turn's end."""
        if not spans:
            return Turn(text, (), closed=True, ending=ending)
        start, end = spans[-1]
        inside = text.find(ending, start)
        after = end + len(text[end:]) - len(text[end:].lstrip())
        if inside != -1 and inside < max(end, after + 1):
            wanted = inside + len(ending)
            return Turn(text, (*spans[:-1], (start, wanted)), closed=True, ending=ending)
        return Turn(text, spans, closed=False, ending=ending)

    def _join(self, turns: list[Turn]) -> tuple[Piece, ...] | None:
        """Join turns into one row, or return None where the last text changed an earlier turn."""
        last = turns[-1]
        spans: list[tuple[Span, float]] = []
        for turn in turns[:-1]:
            if last.text[: turn.end] != turn.text[: turn.end]:
                return None
            again = turn if turn.closed else self._close(last.text, turn.learned, turn.ending)
            if not again.closed:
                return None
            spans += [(span, turn.weight) for span in again.learned]
        return self._pieces_of(last, spans)

    def _pieces_of(
        self, turn: Turn, before: Sequence[tuple[Span, float]] = ()
    ) -> tuple[Piece, ...]:
        """Part the text of a turn into what is learned, earlier answers too, and what is not."""
        text, spans = turn.text, turn.learned
        if not turn.closed:
            text += turn.ending
            spans = (*spans[:-1], (spans[-1][0], len(text)))
        pieces: list[Piece] = []
        done = 0
        for (start, end), weight in [*before, *((span, turn.weight) for span in spans)]:
            pieces += [
                Piece(text[done:start], False),
                Piece(text[start:end], weight > 0, weight),
            ]
            done = end
        pieces.append(Piece(text[done:], False))
        return tuple(piece for piece in pieces if piece.text)

    def _render(
        self,
        messages: Messages,
        tools: Tools = (),
        *,
        prompt: bool = False,
        options: Mapping[str, Any] = NONE,
    ) -> Rendering:
        compiled = self._for_tools if tools else self._compiled
        try:
            text = compiled.render(
                messages=[self._broken(message) for message in messages],
                add_generation_prompt=prompt,
                tools=[self._broken_in(tool, self._break) for tool in tools] or None,
                documents=None,
                **self._tokens,
                **self._broken_in(options, self._break),
            )
        except DataError:
            raise
        except Exception as problem:  # noqa: BLE001  a template may raise anything
            raise DataError(
                f"the chat template refuses the conversation: {problem}",
                hint="change the row, or name another template with model.template",
                where=self.name,
            ) from None
        return read_marks(text)

    def _broken(self, message: Mapping[str, Any]) -> dict[str, Any]:
        broken = self._break_answer if message["role"] == "assistant" else self._break
        rest = {name: value for name, value in message.items() if name not in APART}
        texts = part_at_places(message["content"])
        parts = [(kind, self._broken_in(text, broken)) for kind, text in texts]
        content: Any = parts[0][1]
        if self._in_parts or len(parts) > 1:
            content = in_parts(parts)
        return {"role": message["role"], "content": content, **self._broken_in(rest, broken)}

    def _broken_in(self, value: Any, broken: Breaker) -> Any:
        """Break the special tokens that the texts of a value spell, however deep they lie."""
        if isinstance(value, str):
            if has_reserved(value):
                raise DataError(
                    "the text holds a character from U+FDD0 to U+FDD5, which are reserved",
                    hint="remove it",
                    where=self.name,
                )
            return broken(value)
        if isinstance(value, Mapping):
            return {
                self._broken_in(key, broken): self._broken_in(inner, broken)
                for key, inner in value.items()
            }
        return [self._broken_in(v, broken) for v in value] if isinstance(value, list) else value

    def _writes_text(self) -> bool:
        """Whether a message's text is written where it does not come in parts."""
        try:
            return PROBE in self._render([{**QUESTION, "content": PROBE}]).text
        except DataError:
            return False

    @cached_property
    def writes_tools(self) -> bool:
        """Whether the name of an offered tool is found in what the template writes."""
        try:
            return PROBE in self._render([QUESTION], [TOOL], prompt=True).text
        except DataError:
            return False

    @cached_property
    def _call_end(self) -> str:
        """Find the token that ends a call where it is another one than ends an answer.

        It closes the call, or opens the result.
        """
        text, longer = (self._render(given, [TOOL]).text.rstrip() for given in CALLED_TWICE)
        ends = [found for found in self._special.finditer(text) if found.end() == len(text)]
        if ends and not self._opens:
            return ends[-1].group()
        found = self._special.match(longer[len(text) :].lstrip())
        if found is None or not longer.startswith(text):
            raise self._unwritten("ends a call with no special token")
        return found.group()

    def _find_turn_end(self) -> tuple[str, bool]:
        """Render a probe and take the first special token after its answer.

        Some families close an answer only by the token that opens the next turn; there that one
        ends the turn.

        Returns:
            the token, and whether it opens the next turn.
        """
        probe = [QUESTION, {"role": "assistant", "content": PROBE}]
        for messages in (probe, [*probe, QUESTION]):
            try:
                text = self._render(messages).text
            except DataError as problem:
                raise ModelError(
                    f"{problem.message}, though it is a plain question and its answer",
                    hint="name another template with model.template",
                    where=self.name,
                ) from None
            found = self._special.search(text, text.rfind(PROBE) + len(PROBE))
            if PROBE in text and found:
                return found.group(), len(messages) > len(probe)
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
