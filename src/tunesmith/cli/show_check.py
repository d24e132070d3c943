"""Print what a look at data found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.show_run import say
from tunesmith.cli.tables import pairs
from tunesmith.data.rows import spell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunesmith.data.check_report import CheckReport, Lengths

SHOWN = 5
SHOWN_LABELS = 20


def show_check(report: CheckReport) -> None:
    """Print counts first, then what is wrong with rows, by kind."""
    formats = ", ".join(sorted(set(report.formats.values())))
    rows = f"{report.num_read:,} read = {report.num_kept:,} good + {report.num_reported:,} bad"
    values: dict[str, object] = {"kind": f"{report.kind} ({formats})", "rows": rows}
    if report.labels:
        most = sorted(report.labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{spell(label)} {count:,}" for label, count in most[:SHOWN_LABELS])
        values["labels"] = f"{len(most):,}: {shown}" + (", ..." if len(most) > SHOWN_LABELS else "")
    if report.chars:
        values["characters"] = _spell(report.chars)
    if report.tokens:
        values["tokens"] = _spell(report.tokens)
    if report.unused_columns:
        values["columns not read"] = ", ".join(report.unused_columns)
    pairs(", ".join(report.files), values)
    _show(
        "bad rows, of them empty answers: {0:,}",
        report.problems,
        report.num_reported,
        report.num_empty_answers,
    )
    _show(f"rows over {report.max_tokens:,} tokens", report.long_rows, report.num_long)
    _show("rows that call tools they do not offer", report.unoffered, report.num_unoffered)
    _show("rows that repeat another", report.duplicate_rows, report.num_duplicate_rows)
    _show(
        "rows whose answer other questions have too",
        report.duplicate_answers,
        report.num_duplicate_answers,
    )
    _show(
        "contradictions: one question, several answers",
        report.contradictions,
        report.num_contradictions,
    )
    _show("validation rows that are learned too", report.overlap, report.num_overlap)
    if report.num_overlap_questions:
        say(f"{report.num_overlap_questions:,} validation questions are training questions too")


def _show(what: str, found: Sequence[object], count: int, *more: int) -> None:
    if not count:
        return
    say(f"\n{count:,} {what.format(*more)}", style="yellow")
    for item in found[:SHOWN]:
        say(f"  {item}")
    if len(found) > SHOWN:
        say("  ... (all of them with --json)")


def _spell(lengths: Lengths) -> str:
    return (
        f"{lengths.shortest:,} to {lengths.longest:,}, median {lengths.median:,}, "
        f"90 % up to {lengths.p90:,}, 99 % up to {lengths.p99:,}"
    )
