"""Facts: something has a property of a value, said, asked and answered in many ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from values import Values

HERE = Path(__file__).parent
HELD_OUT_MARK = "*"
"""Questions that start so are kept for the held-out prompts."""


@dataclass(frozen=True)
class Relation:
    """A property that things of a kind may have.

    Attributes:
        group: the kind of thing, such as `person`; `self` is the one who speaks.
        subject: kind of value that names the thing.
        value: kind of value of the property.
    """

    group: str
    subject: str
    name: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    labels: tuple[str, ...]

    def ask(self, random: Random, *, held_out: bool) -> str:
        """Draw a question; held-out ones only where training never sees them."""
        kept = [q[1:] for q in self.questions if q.startswith(HELD_OUT_MARK)]
        usual = [q for q in self.questions if not q.startswith(HELD_OUT_MARK)]
        return random.choice(kept if held_out and kept else usual)


@dataclass(frozen=True)
class Fact:
    """A property with its value."""

    relation: Relation
    subject: str
    value: str

    def fill(self, template: str, subject: str | None = None) -> str:
        """Put subject and value into a sentence and start it with a capital letter."""
        name = self.subject if subject is None else subject
        if name in POSSESSIVE:
            template = template.replace("{s}'s", POSSESSIVE[name])
        text = template.replace("{s}", name).replace("{v}", self.value)
        return text[:1].upper() + text[1:]


POSSESSIVE = {"it": "its", "he": "his", "she": "her"}
PRONOUNS = {
    "en": {"person": ("he", "she"), "": ("it",)},
    "zh": {"person": ("他", "她"), "shop": ("这家店", "它"), "": ("它",)},
}


def pronouns(group: str, language: str) -> tuple[str, ...]:
    """List the words that may stand for a thing already named."""
    known = PRONOUNS[language]
    return known.get(group, known[""])


def read_relations(language: str) -> list[Relation]:
    """Read `facts_{language}.txt`: `# group: kind of subject`, then a relation a line."""
    relations: list[Relation] = []
    group = subject = ""
    for line in (HERE / f"facts_{language}.txt").read_text("utf-8").splitlines():
        if line.startswith("# "):
            group, _, subject = line[2:].partition(": ")
        elif line.strip():
            name, value, *lists = (part.strip() for part in line.split(" | "))
            statements, questions, answers, labels = (tuple(p.split(" / ")) for p in lists)
            relations.append(
                Relation(group, subject, name, value, statements, questions, answers, labels)
            )
    return relations + _noun_relations(language)


def _noun_relations(language: str) -> list[Relation]:
    """Make a relation of every word that may be anything's property."""
    from values import read_words

    shapes = NOUN_SHAPES[language]
    return [
        Relation(
            group="noun",
            subject="product",
            name=noun,
            value="anything",
            **{part: tuple(text.replace("{n}", noun) for text in shapes[part]) for part in shapes},
            labels=(noun.capitalize(),),
        )
        for noun in read_words(language)["noun"]
    ]


NOUN_SHAPES: dict[str, dict[str, Sequence[str]]] = {
    "en": {
        "statements": (
            "The {n} of the {s} is {v}.",
            "For the {s}, the {n} is {v}.",
            "The {s} has the {n} {v}.",
        ),
        "questions": (
            "What is the {n} of the {s}?",
            "Tell me the {n} of the {s}.",
            "Which {n} does the {s} have?",
            "*Please name the {n} of the {s}.",
        ),
        "answers": ("The {n} is {v}.", "It is {v}.", "The {n} of the {s} is {v}."),
    },
    "zh": {
        "statements": ("{s}的{n}是{v}。", "{s}的{n}为{v}。", "关于{s},{n}是{v}。"),
        "questions": (
            "{s}的{n}是什么?",
            "请问{s}的{n}是什么?",
            "告诉我{s}的{n}。",
            "*{s}有什么样的{n}?",
        ),
        "answers": ("{v}。", "{n}是{v}。", "{s}的{n}是{v}。"),
    },
}


def draw_fact(relation: Relation, values: Values, subject: str) -> Fact:
    """Draw a value for a thing's property."""
    return Fact(relation, subject, values.draw(relation.value))


def draw_subject(relation: Relation, values: Values) -> str:
    """Name a thing that may have the property; the speaker needs no name."""
    return "" if relation.group == "self" else values.draw(relation.subject)
