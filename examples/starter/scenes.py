"""Scenes: sentences with questions of their own, filled with random values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from values import Values

HERE = Path(__file__).parent
SLOT = re.compile(r"{([a-z]+)(\d?)}")


@dataclass(frozen=True)
class Frame:
    """A question about a scene, its answer, and what the answer must contain."""

    question: str
    answer: str
    fact: str


@dataclass(frozen=True)
class Scene:
    """A sentence or two whose slots name kinds of values, such as {person} and {person2}."""

    text: str
    frames: tuple[Frame, ...]

    def fill(self, values: Values) -> tuple[str, list[Frame]]:
        """Draw a value for each slot; equal slots get the same one."""
        drawn: dict[str, str] = {}

        def draw(slot: re.Match[str]) -> str:
            name = slot.group()
            while name not in drawn:
                value = values.draw(slot[1])
                if value not in drawn.values():
                    drawn[name] = value
            return drawn[name]

        text = _start(SLOT.sub(draw, self.text))
        return text, [
            Frame(
                _start(SLOT.sub(draw, frame.question)),
                _start(SLOT.sub(draw, frame.answer)),
                SLOT.sub(draw, frame.fact),
            )
            for frame in self.frames
        ]


def read_scenes(language: str) -> list[Scene]:
    """Read `scenes_{language}.txt`: a line is `text | question => answer ~ fact | ...`."""
    scenes = []
    for line in (HERE / f"scenes_{language}.txt").read_text("utf-8").splitlines():
        text, *frames = line.split(" | ")
        scenes.append(Scene(text, tuple(map(_read_frame, frames))))
    return scenes


def _read_frame(text: str) -> Frame:
    question, _, rest = text.partition(" => ")
    answer, _, fact = rest.partition(" ~ ")
    return Frame(question, answer, fact)


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]
