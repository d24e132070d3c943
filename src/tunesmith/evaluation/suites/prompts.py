"""Questions as a model is asked them: examples first, in the suite's language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunesmith.evaluation.suites.questions import LETTERS, Kind, Language, Question, Subject

Score = Literal["letter", "text"]


@dataclass(frozen=True)
class Wording:
    """What a language says around a question.

    Attributes:
        about: heads questions of a subject that has a title; `bare` those of one that has none.
        gap: what stands between the call for an answer and the answer.
    """

    about: str
    bare: str
    question: str
    answer: str
    gap: str


WORDINGS: dict[Language, Wording] = {
    "en": Wording(
        about="The following are multiple choice questions (with answers) about {title}.",
        bare="The following are multiple choice questions (with answers).",
        question="Question: ",
        answer="Answer:",
        gap=" ",
    ),
    "zh": Wording(
        about="以下是中国关于{title}考试的单项选择题，请选出其中的正确答案。",
        bare="以下是单项选择题，请选出其中的正确答案。",
        question="问题：",
        answer="答案：",
        gap="",
    ),
}
STEPS = "Answer step by step, and end with #### and the number."


@dataclass(frozen=True)
class Way:
    """How questions are asked.

    Attributes:
        score: whether the letter of a choice is scored or its whole text.
        chat: whether the model's chat template writes the question.
        max_tokens: longest answer that is written.
    """

    kind: Kind
    score: Score
    shots: int
    chat: bool
    max_tokens: int

    @property
    def shows_choices(self) -> bool:
        """Whether a prompt lists the choices."""
        return self.kind == "choice" and self.score == "letter"


@dataclass(frozen=True)
class Posed:
    """A question as tokens.

    Attributes:
        answers: the choices as they go on from the prompt; none where the answer is written.
        num_dropped: examples that found no room.
        fits: whether the prompt and the longest choice, or a first token, have room.
    """

    prompt: list[int]
    answers: list[list[int]]
    num_dropped: int
    fits: bool


class Reader(Protocol):
    """How one model reads texts.

    Attributes:
        longest: tokens of a prompt and what follows it.
        can_chat: whether it has a chat template.
    """

    longest: int
    can_chat: bool

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokenize a conversation as its template writes it."""

    def start(self, text: str) -> list[int]:
        """Tokenize the start of a plain text."""

    def go_on(self, text: str) -> list[int]:
        """Tokenize what goes on from another text."""


class Poser:
    """Write questions as one model reads them."""

    def __init__(self, reader: Reader, way: Way) -> None:
        self._reader, self._way = reader, way

    def pose(self, subject: Subject, question: Question) -> Posed:
        """Write a question as tokens, with as many examples as fit before it.

        The last examples are dropped first, so that those of a subject keep a common start.
        """
        way, longest = self._way, self._reader.longest
        answers = self._answers(question, WORDINGS[subject.language])
        least = longest + 1 - max(map(len, answers)) if answers else longest - 1
        room = least if answers else longest - way.max_tokens
        shown = subject.examples[: way.shots]
        for count in range(len(shown), -1, -1):
            prompt = self._encode(write(subject, shown[:count], question, way))
            if len(prompt) <= room:
                break
        return Posed(prompt, answers, len(shown) - count, len(prompt) <= least)

    def _answers(self, question: Question, wording: Wording) -> list[list[int]]:
        letters = LETTERS[: len(question.choices)]
        texts = letters if self._way.shows_choices else question.choices
        gap = "" if self._way.chat else wording.gap
        return [self._reader.go_on(gap + text) for text in texts]

    def _encode(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if self._way.chat:
            return self._reader.chat(messages)
        return self._reader.start(plain_text(messages))


def write(
    subject: Subject, examples: Sequence[Question], question: Question, way: Way
) -> list[dict[str, str]]:
    """Write examples and the question as messages."""
    wording = WORDINGS[subject.language]
    messages = []
    for example in examples:
        messages += [
            {"role": "user", "content": _ask(example, way, wording)},
            {"role": "assistant", "content": _solution(example, way)},
        ]
    messages.append({"role": "user", "content": _ask(question, way, wording)})
    if head := _head(subject, way, wording):
        messages[0]["content"] = f"{head}\n\n{messages[0]['content']}"
    return messages


def _head(subject: Subject, way: Way, wording: Wording) -> str:
    if way.kind == "number":
        return STEPS
    if not way.shows_choices:
        return ""
    return wording.about.format(title=subject.title) if subject.title else wording.bare


def _ask(question: Question, way: Way, wording: Wording) -> str:
    if way.shows_choices:
        listed = zip(LETTERS, question.choices, strict=False)
        choices = "\n".join(f"{letter}. {text}" for letter, text in listed)
        return f"{question.text}\n{choices}\n{wording.answer}"
    return question.text if way.chat else f"{wording.question}{question.text}\n{wording.answer}"


def _solution(question: Question, way: Way) -> str:
    if way.kind == "choice" and way.score == "text":
        return question.choices[question.right]
    return question.answer


def plain_text(messages: Sequence[dict[str, str]]) -> str:
    """Write messages as one text without a template: questions with their answers behind them."""
    text = ""
    for message in messages:
        said = message["content"]
        if message["role"] == "user":
            text += f"\n\n{said}" if text else said
        else:
            text += said if text.endswith("：") else f" {said}"
    return text
