"""Print what a model reached on a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.show_run import say
from tunesmith.cli.tables import spell_seconds, table

if TYPE_CHECKING:
    from tunesmith.evaluation.suites.measure import Reached, SuiteScores
    from tunesmith.evaluation.suites.tally import Tally


def show_suite(scores: SuiteScores) -> None:
    """Print accuracy by subject and category, with 95 % intervals, and what it took."""
    say(f"{scores.model}: {scores.label}", style="bold")
    columns = ["", "questions", "accuracy %", "95 %"]
    models = [scores.tuned]
    if scores.base is not None:
        columns = ["", "questions", "base %", "95 %", "tuned %", "95 %"]
        models = [scores.base, scores.tuned]
    rows = [
        [names[0].name, names[0].num_questions, *(cell for one in names for cell in _spell(one))]
        for names in zip(*map(_lines, models), strict=True)
    ]
    means = (cell for one in models for cell in (f"{100 * one.subject_mean:.1f}", ""))
    if len(scores.tuned.subjects) > 1:
        rows.append(["mean of subjects", "", *means])
    table(columns, rows)
    for note in _notes(scores, models):
        say(note, style="dim")


def _lines(reached: Reached) -> list[Tally]:
    return [*reached.subjects, *reached.categories, reached.total]


def _spell(tally: Tally) -> tuple[str, str]:
    return f"{100 * tally.accuracy:.1f}", f"{100 * tally.low:.1f} to {100 * tally.high:.1f}"


def _notes(scores: SuiteScores, models: list[Reached]) -> list[str]:
    notes = []
    subjects = len(scores.tuned.subjects)
    if scores.num_published > subjects:
        notes.append(f"{subjects} of the benchmark's {scores.num_published} subjects were there")
    notes += [
        f"not asked: {number:,} questions with {why}" for why, number in scores.left_out.items()
    ]
    for label, one in zip(("base", "tuned")[-len(models) :], models, strict=True):
        named = f"{label}: " if len(models) > 1 else ""
        if one.num_dropped:
            notes.append(f"{named}{one.num_dropped:,} examples found no room and were dropped")
        if one.num_too_long:
            notes.append(
                f"{named}{one.num_too_long:,} questions are longer than the model takes, and count "
                "as wrong"
            )
        notes.append(
            f"{named}{one.num_tokens:,} tokens in {spell_seconds(one.seconds)}, "
            f"{one.tokens_per_second:,.0f} a second"
        )
    return notes
