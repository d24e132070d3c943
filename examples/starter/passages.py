"""Passages: several facts written as prose, a list or a table, with questions about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from facts import Fact, Relation, draw_fact, draw_subject, pronouns
from scenes import read_scenes
from values import Values

HERE = Path(__file__).parent
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!Mr\.)(?<!Ms\.)(?<!Mrs\.)(?<!Dr\.)\s+|(?<=[。！？])|\n+")
MARKS = tuple(".!?。！？")


@dataclass(frozen=True)
class Asked:
    """A question about a passage and its answer.

    Attributes:
        fact: what the answer must contain.
    """

    question: str
    answer: str
    fact: str


@dataclass
class Passage:
    """A text and what can be asked about it."""

    text: str
    asked: list[Asked] = field(default_factory=list)

    def quote(self, asked: Asked) -> str:
        """Answer with the sentence that says it; briefly if no sentence or more than one does."""
        fact = re.compile(rf"(?<![0-9a-z]){re.escape(asked.fact)}(?![0-9a-z])", re.IGNORECASE)
        sentences = (part.strip() for part in SENTENCE_END.split(self.text))
        holding = [sentence for sentence in sentences if fact.search(sentence)]
        if len(holding) == 1 and holding[0].endswith(MARKS):
            return holding[0]
        return asked.answer


class Passages:
    """Make passages of one language."""

    def __init__(self, relations: list[Relation], values: Values) -> None:
        self.values, self.random, self.language = values, values.random, values.language
        self.groups: dict[str, list[Relation]] = {}
        for relation in relations:
            self.groups.setdefault(relation.group, []).append(relation)
        self.scenes = read_scenes(self.language)
        fillers = HERE / f"filler_{self.language}.txt"
        self.fillers = fillers.read_text("utf-8").splitlines()

    def draw(self) -> Passage:
        """Make a passage of facts or a little story."""
        kind = self.random.random()
        if kind < 0.12:
            return self.story()
        if kind < 0.42:
            return self.scene()
        shape = self.random.choices(["one", "many", "grid"], [5, 3, 2])[0]
        group = self._group()
        if group == "self":
            shape = "one"
        return {"one": self.about_one, "many": self.about_many, "grid": self.grid}[shape](group)

    def _group(self) -> str:
        names = list(self.groups)
        weights = [{"noun": 4, "self": 4, "machine": 2}.get(name, 3) for name in names]
        return self.random.choices(names, weights)[0]

    def about_one(self, group: str) -> Passage:
        """Say several things about one thing."""
        relations = self._relations(group, self.random.randint(1, 6))
        subject = draw_subject(relations[0], self.values)
        facts = [draw_fact(relation, self.values, subject) for relation in relations]
        listed = self.random.random() < 0.3
        text = self._list(subject, facts) if listed else self._prose(facts, one=True)
        return self._asked(text, facts)

    def about_many(self, group: str) -> Passage:
        """Say the same of several things: only the name tells the values apart."""
        (relation,) = self._relations(group, 1)
        subjects = self._subjects(relation, self.random.randint(2, 5))
        facts = [draw_fact(relation, self.values, subject) for subject in subjects]
        if self.random.random() < 0.35:
            colon = ": " if self.language == "en" else ":"
            mark = self.random.choice(["", "- ", "* "])
            text = "\n".join(f"{mark}{fact.subject}{colon}{fact.value}" for fact in facts)
            title = self.random.choice(relation.labels)
            text = self.random.choice([f"{title}\n{text}", text])
        else:
            text = self._prose(facts, one=False)
        return self._asked(text, facts)

    def grid(self, group: str) -> Passage:
        """Say several things about several things."""
        relations = self._relations(group, self.random.randint(2, 3))
        subjects = self._subjects(relations[0], self.random.randint(2, 3))
        facts = [
            draw_fact(relation, self.values, subject)
            for subject in subjects
            for relation in relations
        ]
        return self._asked(self._prose(facts, one=False), facts)

    def story(self) -> Passage:
        """Tell who did what, when, where and why."""
        count = self.random.choices([1, 2, 3], [5, 3, 2])[0]
        events = [Event.draw(self.values) for _ in range(count)]
        text = self._join([event.tell() for event in events])
        asked = [asked for event in events for asked in event.questions()]
        return Passage(text, self.random.sample(asked, min(3, len(asked))))

    def scene(self) -> Passage:
        """Fill one to three scenes."""
        count = self.random.choices([1, 2, 3], [5, 4, 2])[0]
        chosen = self.random.sample(self.scenes, count)
        filled = [scene.fill(self.values) for scene in chosen]
        frames = [frame for _, frames in filled for frame in frames]
        asked = [Asked(frame.question, frame.answer, frame.fact) for frame in frames]
        text = self._join([text for text, _ in filled])
        return Passage(text, self.random.sample(asked, min(3, len(asked))))

    def _relations(self, group: str, count: int) -> list[Relation]:
        known = self.groups[group]
        return self.random.sample(known, min(count, len(known)))

    def _subjects(self, relation: Relation, count: int) -> list[str]:
        names: list[str] = []
        while len(names) < count:
            name = draw_subject(relation, self.values)
            if name not in names:
                names.append(name)
        return names

    def _prose(self, facts: list[Fact], *, one: bool) -> str:
        words = pronouns(facts[0].relation.group, self.language)
        word = self.random.choice(words) if one and self.random.random() < 0.5 else None
        sentences = []
        for number, fact in enumerate(facts):
            template = self.random.choice(fact.relation.statements)
            if word and number and "the {s}" not in template.lower():
                sentences.append(fact.fill(template, word))
            else:
                sentences.append(fact.fill(template))
        if self.random.random() < 0.15:
            self.random.shuffle(sentences)
        return self._join(sentences)

    def _join(self, sentences: list[str]) -> str:
        sentences = self._compound(sentences)
        if self.random.random() < 0.25:
            place = self.random.randint(0, len(sentences))
            sentences.insert(place, self.random.choice(self.fillers))
        if self.language == "en":
            return self.random.choice([" ", " ", " ", "\n"]).join(sentences)
        return self.random.choice(["", "", "", "\n"]).join(sentences)

    def _compound(self, sentences: list[str]) -> list[str]:
        """Join some neighbours into one sentence."""
        joined: list[str] = []
        for sentence in sentences:
            if joined and self.random.random() < 0.2 and joined[-1][-1:] in (".", "。"):
                joined[-1] = self._and(joined[-1], sentence)
            else:
                joined.append(sentence)
        return joined

    def _and(self, one: str, other: str) -> str:
        if self.language == "zh":
            return one[:-1] + self.random.choice([",", ",", ";", ",而且"]) + other
        word = other.split(" ", maxsplit=1)[0]
        if word in STARTERS:
            other = other[:1].lower() + other[1:]
        return one[:-1] + self.random.choice([", and ", " and ", "; ", ", while "]) + other

    def _list(self, subject: str, facts: list[Fact]) -> str:
        colon = self.random.choice([": ", ": ", " - "]) if self.language == "en" else ":"
        mark = self.random.choice(["", "- ", "* "])
        lines = [
            f"{mark}{self.random.choice(fact.relation.labels)}{colon}{fact.value}" for fact in facts
        ]
        head = subject[:1].upper() + subject[1:]
        return "\n".join([head, *lines] if head else lines)

    def _asked(self, text: str, facts: list[Fact]) -> Passage:
        held_out = self.values.held_out
        chosen = self.random.sample(facts, min(self.random.randint(1, 3), len(facts)))
        asked = []
        for fact in chosen:
            question = fact.relation.ask(self.random, held_out=held_out)
            answer = self.random.choice(fact.relation.answers)
            asked.append(Asked(fact.fill(question), fact.fill(answer), fact.value))
        return Passage(text, asked)


STARTERS = ("The", "It", "Its", "He", "His", "She", "Her", "We", "Our", "You", "A", "In", "They")
"""Words that lose their capital letter inside a sentence."""


@dataclass(frozen=True)
class Event:
    """Somebody did something to something."""

    language: str
    person: str
    verb: int
    thing: str
    when: str
    spot: str
    reason: str
    parts: frozenset[str]
    words: dict[str, list[str]]

    @classmethod
    def draw(cls, values: Values) -> Event:
        """Draw an event; time, place and reason may be missing."""
        random = values.random
        parts = frozenset(part for part in ("when", "spot", "reason") if random.random() < 0.55)
        return cls(
            values.language,
            values.draw("person"),
            random.randrange(len(values.words["past"])),
            values.draw("object"),
            values.word("when"),
            values.word("spot"),
            values.word("reason"),
            parts,
            values.words,
        )

    @property
    def past(self) -> str:
        """What was done."""
        return self.words["past"][self.verb]

    def tell(self) -> str:
        """Tell it in one sentence."""
        if self.language == "en":
            when = f" {self.when}" if "when" in self.parts else ""
            spot = f" {self.spot}" if "spot" in self.parts else ""
            reason = f" because {self.reason}" if "reason" in self.parts else ""
            return f"{self.person} {self.past} {self.thing}{spot}{when}{reason}."
        when = f"{self.when}," if "when" in self.parts else ""
        spot = f"在{self.spot}" if "spot" in self.parts else ""
        reason = f",因为{self.reason}" if "reason" in self.parts else ""
        return f"{when}{self.person}{spot}{self.past}{self.thing}{reason}。"

    def questions(self) -> list[Asked]:
        """Ask for each part."""
        who, thing, past = self.person, self.thing, self.past
        if self.language == "zh":
            asked = [
                Asked(f"谁{past}{thing}?", f"{who}。", who),
                Asked(f"{who}{past}什么?", f"{who}{past}{thing}。", thing),
            ]
            shapes = {
                "when": (f"{who}什么时候{past}{thing}?", f"{self.when}。", self.when),
                "spot": (f"{who}在哪里{past}{thing}?", f"在{self.spot}。", self.spot),
                "reason": (f"{who}为什么{past}{thing}?", f"因为{self.reason}。", self.reason),
            }
        else:
            base = self.words["base"][self.verb]
            asked = [
                Asked(f"Who {past} {thing}?", f"{who} {past} {thing}.", who),
                Asked(f"What did {who} {base}?", f"{who} {past} {thing}.", thing),
            ]
            shapes = {
                "when": (
                    f"When did {who} {base} {thing}?",
                    f"{who} {past} it {self.when}.",
                    self.when,
                ),
                "spot": (
                    f"Where did {who} {base} {thing}?",
                    f"{who} {past} it {self.spot}.",
                    self.spot,
                ),
                "reason": (
                    f"Why did {who} {base} {thing}?",
                    f"Because {self.reason}.",
                    self.reason,
                ),
            }
        return asked + [Asked(*shapes[part]) for part in shapes if part in self.parts]
