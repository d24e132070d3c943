"""`tunesmith evaluate`: a run beside its base, on rows or on a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

if TYPE_CHECKING:
    from tunesmith.models.given import Given

Name = Annotated[
    str,
    typer.Argument(
        help="A run, a checkpoint of one, a GGUF or its folder, or LLaMA-Factory's file; with "
        "--suite any model."
    ),
]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="[KEY=VALUE]...", help="Keys that replace the file's."),
]


def evaluate(
    name: Name,
    overrides: Overrides = None,
    data: Annotated[
        Optional[list[Path]],
        typer.Option(
            help="Rows to measure on, several times if need be; else the held-out rows. "
            "With --suite the folder of its files."
        ),
    ] = None,
    max_rows: Annotated[Optional[int], typer.Option(min=1, help="Ask so many questions.")] = None,
    max_tokens: Annotated[
        Optional[int], typer.Option(min=1, help="Longest answer; 256 if not said.")
    ] = None,
    show: Annotated[
        Optional[int], typer.Option(min=0, help="Answers to print; 10 if not said.")
    ] = None,
    suite: Annotated[
        Optional[str],
        typer.Option(help="A benchmark: mmlu, ceval, cmmlu, gsm8k, agieval, or a file."),
    ] = None,
    score: Annotated[
        Optional[Literal["letter", "text"]],
        typer.Option(help="Of a benchmark's choices, score the letter (default) or whole text."),
    ] = None,
    shots: Annotated[
        Optional[int],
        typer.Option(min=0, help="Examples before a question; 5 for mmlu, ceval, cmmlu, else 0."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Ask a chat model in bare text, without its template.")
    ] = False,
    limit: Annotated[
        Optional[int], typer.Option(min=1, help="Questions of each subject, the first ones.")
    ] = None,
    no_base: Annotated[
        bool, typer.Option("--no-base", help="Do not ask a run's base the benchmark too.")
    ] = False,
) -> None:
    """Measure a run beside its base: held-out loss, answers against expected ones, benchmarks."""
    from tunesmith.cli.refuse import refuse_given
    from tunesmith.cli.show_notes import find_noted

    found = find_noted(name, overrides, "evaluate")
    subject = found.name
    if suite is None:
        given = {"--score": score, "--shots": shots, "--limit": limit}
        refuse_given(given | {"--plain": plain, "--no-base": no_base}, "it needs --suite")
        _measure_rows(found, data or (), max_rows, max_tokens, 10 if show is None else show)
        return
    refuse_given({"--max-rows": max_rows, "--show": show}, "benchmarks have --limit")
    refuse_given({"--data": (data or [])[1:]}, "a benchmark has one folder")
    from tunesmith.cli.show_suite import show_suite
    from tunesmith.evaluation.suites.measure import SuiteOptions, measure_suite

    options = SuiteOptions(score, shots, plain, limit, max_tokens, base=not no_base)
    show_suite(measure_suite(subject, suite, data[0] if data else None, options))


def _measure_rows(
    given: Given,
    data: Sequence[Path],
    max_rows: int | None,
    max_tokens: int | None,
    show: int,
) -> None:
    from tunesmith.cli.refuse import refuse_given
    from tunesmith.cli.show_scores import show_scores
    from tunesmith.evaluation.as_told import evaluate_as_told
    from tunesmith.evaluation.evaluate import evaluate as evaluate_run
    from tunesmith.models.chat import Subject

    measured = None if given.use is None else given.use.measured
    if measured is not None:
        assert isinstance(given.name, Subject)  # files name their parts
        if not measured.answers:
            of_answers = {"--max-rows": max_rows, "--max-tokens": max_tokens}
            refuse_given(of_answers, "the file asks for the loss alone")
        scores = evaluate_as_told(
            given.name, measured, data=data, max_rows=max_rows, max_tokens=max_tokens
        )
    else:
        scores = evaluate_run(given.name, data=data, max_rows=max_rows, max_tokens=max_tokens)
    show_scores(scores, show=show)
