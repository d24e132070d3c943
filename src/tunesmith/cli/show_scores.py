"""Print what an evaluation found."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tunesmith.cli.show_run import say
from tunesmith.cli.tables import spell_figure, table

if TYPE_CHECKING:
    from tunesmith.evaluation.classes import Confusion
    from tunesmith.evaluation.scores import Compared, Scores

MOST_CLASSES = 20
"""Classes of which a whole table can be read."""

LABELS = {
    "loss": "held-out loss",
    "reward": "reward an answer",
    "pair_accuracy": "chosen above rejected (0 to 1)",
    "rouge_l": "ROUGE-L (0 to 1)",
    "bleu": "BLEU (0 to 100)",
    "chrf": "chrF (0 to 100)",
    "exact_match": "exact match (0 to 1)",
    "fact_rate": "holds the fact (0 to 1)",
    "accuracy": "accuracy (0 to 1)",
    "macro_f1": "macro-F1 (0 to 1)",
}


def show_scores(scores: Scores, *, show: int) -> None:
    """Print the measures of base and tuned model side by side, and some answers."""
    say(f"{scores.run} on {scores.num_rows:,} rows ({scores.rows})", style="bold")
    base = asdict(scores.base) if scores.base else {}
    rows = [
        [LABELS.get(name, name), spell_figure(base.get(name)), spell_figure(value)]
        for name, value in asdict(scores.tuned).items()
        if value is not None
    ]
    table(["", "base", "tuned"], rows)
    if scores.classes is not None:
        show_confusion(scores.classes)
    show_answers(scores.answers[:show])


def show_confusion(found: Confusion) -> None:
    """Print what was taken for what: a table, or the commonest mistakes of many classes."""
    labels = found.labels
    if len(labels) <= MOST_CLASSES:
        say("\nrows of each class by what they were named", style="bold")
        table(
            ["", *labels], [[label, *row] for label, row in zip(labels, found.counts, strict=True)]
        )
        return
    mistakes = [
        (count, labels[at], labels[named])
        for at, row in enumerate(found.counts)
        for named, count in enumerate(row)
        if count and at != named
    ]
    say("\nthe commonest mistakes", style="bold")
    shown = sorted(mistakes, key=lambda mistake: -mistake[0])[:MOST_CLASSES]
    table(["rows", "of", "named"], shown)


def show_answers(answers: list[Compared]) -> None:
    """Print questions with the answers of base and tuned model."""
    for item in answers:
        say(f"\n{item.question}", style="bold")
        say(f"  expected  {item.expected}", style="dim")
        if item.base is not None:
            say(f"  base      {item.base}{_mark(item.base_has_fact)}")
        say(f"  tuned     {item.tuned}{_mark(item.tuned_has_fact)}")


def _mark(has_fact: bool | None) -> str:
    return {True: "  ✓", False: "  ✗", None: ""}[has_fact]
