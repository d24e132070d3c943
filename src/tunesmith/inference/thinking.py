"""Thoughts that a model writes down before it speaks, told apart from what it says."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.inference.parts import Part, Text, Thought
from tunesmith.inference.text_stream import overlap

KNOWN = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))


@dataclass(frozen=True)
class Thinking:
    """The marks around a model's thoughts."""

    opening: str
    closing: str

    def is_opened_by(self, prompt: str) -> bool:
        """Whether a prompt's end has the model think at once."""
        return prompt.rstrip().endswith(self.opening)

    def is_closed_by(self, prompt: str) -> bool:
        """Whether a prompt's end has the model think no more."""
        return prompt.rstrip().endswith(self.closing)


def find_thinking(source: str) -> Thinking | None:
    """Find the marks that a chat template writes around thoughts; None if it knows none."""
    return next((Thinking(*marks) for marks in KNOWN if marks[1] in source), None)


class ThoughtSplitter:
    """Part an answer into a thought, if it begins with one, and the rest.

    Line ends around the marks belong to neither.

    Attributes:
        num_read: how many characters the thought has so far, with its marks.
    """

    def __init__(self, marks: Thinking, *, opened: bool) -> None:
        self._marks, self._held = marks, ""
        self._state = "thought" if opened else "start"
        self._begun = False
        self.num_read = 0

    def push(self, text: str) -> list[Part]:
        """Add a text and return what is now certain."""
        self._held += text
        if self._state == "thought":
            self.num_read += len(text)
        return self._go_on(ended=False)

    def end(self) -> list[Part]:
        """Return what was held back."""
        return self._go_on(ended=True)

    def _go_on(self, *, ended: bool) -> list[Part]:
        parts: list[Part] = []
        if self._state == "start":
            self._start(ended=ended)
        if self._state == "thought":
            parts += self._think(ended=ended)
        if self._state == "rest":
            self._held = self._held.lstrip("\r\n")
            self._state = "said" if self._held else "rest"
        if self._state == "said" and self._held:
            parts.append(Text(self._held))
            self._held = ""
        return parts

    def _start(self, *, ended: bool) -> None:
        opening, seen = self._marks.opening, self._held.lstrip()
        if seen.startswith(opening):
            self.num_read = len(self._held)
            self._held, self._state = seen[len(opening) :], "thought"
        elif ended or not opening.startswith(seen):
            self._state = "said"

    def _think(self, *, ended: bool) -> list[Part]:
        closing = self._marks.closing
        thought, mark, rest = self._held.partition(closing)
        if not self._begun:
            thought = thought.lstrip("\r\n")
        if mark:
            self._held, self._state = rest, "rest"
            self.num_read -= len(rest)
            thought = thought.rstrip()
        elif ended:
            self._held = ""
        else:
            told = thought[: len(thought) - overlap(thought, closing)].rstrip()
            self._held, thought = thought[len(told) :], told
        self._begun |= bool(thought)
        return [Thought(thought)] if thought else []
