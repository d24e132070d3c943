"""What an evaluation found: measures of a model, and its answers beside expected ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.evaluation import metrics
from tunesmith.evaluation.classes import Confusion
from tunesmith.evaluation.rows import Asked
from tunesmith.templates.parts import spell_places


@dataclass(frozen=True)
class Measures:
    """What one model reached on the rows.

    Attributes:
        loss: nats a learned token, or a pair; None where answers are rewarded.
        perplexity: None for pairs.
        pair_accuracy: share of pairs whose preferred answer has the larger reward, 0 to 1; with a
            reference that means it gained more. Of judged answers, the share that gained if good
            and lost if bad, against answers at large. None where a model is compared with itself.
        rouge_l, exact_match, fact_rate: 0 to 1; None where there are no answers or no facts.
        bleu, chrf: 0 to 100.
        accuracy, macro_f1: of classes that are named, 0 to 1.
        reward: mean over the answers, of a method that learns from rewards.
    """

    loss: float | None = None
    perplexity: float | None = None
    pair_accuracy: float | None = None
    rouge_l: float | None = None
    bleu: float | None = None
    chrf: float | None = None
    exact_match: float | None = None
    fact_rate: float | None = None
    accuracy: float | None = None
    macro_f1: float | None = None
    reward: float | None = None


@dataclass(frozen=True)
class Compared:
    """A question with the expected answer and those of both models."""

    question: str
    expected: str
    base: str | None
    tuned: str
    base_has_fact: bool | None
    tuned_has_fact: bool | None


@dataclass(frozen=True)
class Scores:
    """A trained model beside its base.

    Attributes:
        base: None for a model trained from scratch, and where the base cannot do what it learned:
            score answers.
        classes: what a classifier took for what.
    """

    run: str
    rows: str
    num_rows: int
    tuned: Measures
    base: Measures | None
    answers: list[Compared]
    classes: Confusion | None = None


def summarize(asked: Sequence[Asked], said: Sequence[str]) -> Measures:
    """Measure answers against the expected ones, where there are some."""
    known = [place for place, row in enumerate(asked) if row.expected]  # a question may stand alone
    asked, said = [asked[place] for place in known], [said[place] for place in known]
    if not asked:
        return Measures()
    expected = [row.expected for row in asked]
    pairs = list(zip(said, expected, strict=True))
    with_facts = [
        metrics.holds_fact(text, row.facts)
        for text, row in zip(said, asked, strict=True)
        if row.facts
    ]
    return Measures(
        rouge_l=_mean([metrics.rouge_l(*pair) for pair in pairs]),
        bleu=metrics.bleu(said, expected),
        chrf=metrics.chrf(said, expected),
        exact_match=_mean([metrics.exact_match(*pair) for pair in pairs]),
        fact_rate=_mean(with_facts) if with_facts else None,
    )


def compare_answers(
    asked: Sequence[Asked], base: Sequence[str] | None, tuned: Sequence[str]
) -> Iterator[Compared]:
    """Put each question beside its answers."""
    for place, row in enumerate(asked):
        before = base[place] if base is not None else None
        has_fact = [
            metrics.holds_fact(text, row.facts) if row.facts and text is not None else None
            for text in (before, tuned[place])
        ]
        question = spell_places(row.messages[-1]["content"])
        yield Compared(question, row.expected, before, tuned[place], *has_fact)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
