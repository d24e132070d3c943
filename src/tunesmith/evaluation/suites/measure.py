"""Ask a model the questions of a benchmark, beside its base, and keep what it reached."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from tunesmith.data.progress import counting
from tunesmith.errors import DataError, RunError
from tunesmith.evaluation.kept import keep_suite
from tunesmith.evaluation.suites.examinee import Examinee, Gguf, load_examinee
from tunesmith.evaluation.suites.lines import read_agieval, read_gsm8k, read_own
from tunesmith.evaluation.suites.prompts import Posed, Poser, Score, Way
from tunesmith.evaluation.suites.questions import Question, Suite
from tunesmith.evaluation.suites.tables import LAYOUTS, read_tables
from tunesmith.evaluation.suites.tally import Tally, count
from tunesmith.evaluation.suites.written import is_right, write_answers
from tunesmith.hardware import Precision
from tunesmith.models.chat import Subject as Weights
from tunesmith.models.chat import find_subject
from tunesmith.models.gguf_file import find_gguf, name_of_gguf
from tunesmith.paths import exists, expand

SHOTS = 5
"""Examples that MMLU, C-Eval and CMMLU are asked with where nobody says otherwise."""
MAX_TOKENS = 256


@dataclass(frozen=True)
class SuiteOptions:
    """How a benchmark is asked.

    Attributes:
        score: of choices; None for the letter.
        shots: examples before a question; None for the benchmark's usual number.
        plain: whether a chat model gets the bare text.
        limit: questions of each subject, the first ones; None for all.
        max_tokens: longest answer that is written; None for 256.
        base: whether a run's base is asked too.
    """

    score: Score | None = None
    shots: int | None = None
    plain: bool = False
    limit: int | None = None
    max_tokens: int | None = None
    base: bool = True


@dataclass(frozen=True)
class Reached:
    """What one model reached on a benchmark.

    Attributes:
        subject_mean: mean accuracy of the subjects, each counting alike.
        num_dropped: examples that found no room in a prompt.
        num_too_long: questions longer than the model takes, counted as wrong.
        num_tokens: tokens computed; what questions share counts once.
    """

    total: Tally
    categories: list[Tally]
    subjects: list[Tally]
    subject_mean: float
    num_dropped: int
    num_too_long: int
    num_tokens: int
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True)
class SuiteScores:
    """A model on a benchmark, beside its base where it is a run.

    Attributes:
        score: None where answers are written.
        prompt: `chat` if the model's template wrote the questions, else `plain`.
        precision: what the model counts in; `gguf` for the numbers of a file.
        num_published: subjects of the whole benchmark; 0 if nobody can know.
        left_out: questions that were not asked, by the reason.
    """

    model: str
    suite: str
    data: str
    score: Score | None
    shots: int
    prompt: str
    limit: int | None
    precision: Precision | Literal["gguf"]
    num_published: int
    left_out: dict[str, int]
    tuned: Reached
    base: Reached | None

    @property
    def label(self) -> str:
        """Name the benchmark with all that makes its figures others."""
        parts = [self.suite, self.score, f"{self.shots} shots", self.prompt]
        if self.limit is not None:
            parts.append(f"first {self.limit}")
        return ", ".join(part for part in parts if part)


def measure_suite(
    name: str | Path | Weights, suite: str, data: Path | None, options: SuiteOptions
) -> SuiteScores:
    """Ask a model a benchmark, and keep the result in its run's `scores.json`.

    Args:
        suite: one of SUITES, or a file of questions.
        data: the folder of a published benchmark.

    Raises:
        DataError: if the files are not what they should be.
        RunError: if an option has no effect.
        TunesmithError: if llama.cpp is to answer, and cannot.
    """
    if options.shots is None:
        options = replace(options, shots=SHOTS if suite in LAYOUTS else 0)
    read = _limit(_read(suite, data, options.shots or 0), options.limit)
    _refuse_idle(read, options)
    weights = _find(name)
    run = None if isinstance(weights, Path) else weights.run
    called = name_of_gguf(weights) if isinstance(weights, Path) else weights.name
    if run is None and not options.base:
        raise RunError(
            f"--no-base has no effect: {called} is no run",
            hint="leave it away",
            where="--no-base",
        )
    tuned, way, precision = _ask(weights, read, options, "tuned")
    base = None
    if run is not None and options.base and not run.recipe().model.from_scratch:
        base, _, _ = _ask(find_subject(run.path, base_only=True), read, options, "base")
    scores = SuiteScores(
        model=called,
        suite=read.name,
        data=str(data or suite),
        score=way.score if way.kind == "choice" else None,
        shots=way.shots,
        prompt="chat" if way.chat else "plain",
        limit=options.limit,
        precision=precision,
        num_published=read.num_published,
        left_out=dict(read.left_out),
        tuned=tuned,
        base=base,
    )
    if run is not None and not isinstance(weights, Path):
        keep_suite(run, weights, scores.label, asdict(scores))
    return scores


SUITES = (*LAYOUTS, "gsm8k", "agieval")


def _find(name: str | Path | Weights) -> Weights | Path:
    """Find the weights that a person means, or the GGUF."""
    file = None if isinstance(name, Weights) else find_gguf(name)
    return find_subject(name) if file is None else file


def _read(suite: str, data: Path | None, shots: int) -> Suite:
    if suite not in SUITES:
        return _read_file(suite, data, shots)
    if data is None:
        raise DataError(
            f"where the files of {suite} lie is not said",
            hint="name their folder: --data FOLDER",
            where="--data",
        )
    folder = expand(data)
    if not folder.is_dir():
        raise DataError("there is no such folder", hint="check --data", where=str(folder))
    if suite == "agieval":
        found = read_agieval(folder, shots)
    elif suite == "gsm8k":
        found = read_gsm8k(folder, shots)
    else:
        found = read_tables(suite, folder, shots)
    return _with_examples(found, shots)


def _read_file(suite: str, data: Path | None, shots: int) -> Suite:
    path = expand(suite)
    if not exists(path) or path.is_dir():
        near = difflib.get_close_matches(suite, SUITES, n=1)
        raise DataError(
            f"there is no benchmark and no file {suite}",
            hint=f"did you mean {near[0]}?" if near else f"name a file, or {', '.join(SUITES)}",
            where="--suite",
        )
    if data is not None:
        raise DataError(
            "--data has no effect: the questions stand in the file",
            hint="leave it away",
            where="--data",
        )
    return _with_examples(read_own(path, shots), shots)


def _with_examples(suite: Suite, shots: int) -> Suite:
    for subject in suite.subjects:
        if len(subject.examples) < shots:
            raise DataError(
                f"the subject {subject.name!r} has {len(subject.examples)} examples, not {shots}",
                hint=f"ask with --shots {len(subject.examples)}, or add examples",
                where=suite.name,
            )
    return suite


def _limit(suite: Suite, limit: int | None) -> Suite:
    subjects = tuple(
        replace(subject, questions=subject.questions[:limit]) for subject in suite.subjects
    )
    return replace(suite, subjects=subjects)


def _refuse_idle(suite: Suite, options: SuiteOptions) -> None:
    """Refuse options without effect.

    Raises:
        RunError: naming one.
    """
    chosen = suite.kind == "choice"
    idle = {
        "--score": options.score is not None and not chosen,
        "--max-tokens": options.max_tokens is not None and chosen,
    }
    for option, given in idle.items():
        if given:
            raise RunError(
                f"{option} has no effect: answers are {'chosen' if chosen else 'written'}",
                hint="leave it away",
                where=option,
            )


def _ask(
    weights: Weights | Path, suite: Suite, options: SuiteOptions, label: str
) -> tuple[Reached, Way, Precision | Literal["gguf"]]:
    with closing(_open(weights, suite)) as examinee:
        way = Way(
            kind=suite.kind,
            score=options.score or "letter",
            shots=options.shots or 0,
            chat=examinee.can_chat and not options.plain,
            max_tokens=options.max_tokens or MAX_TOKENS,
        )
        return _pose(examinee, suite, way, label), way, examinee.precision


def _open(weights: Weights | Path, suite: Suite) -> Examinee:
    if isinstance(weights, Path):
        return Gguf(weights, writes=suite.kind != "choice")
    return load_examinee(weights)


def _pose(examinee: Examinee, suite: Suite, way: Way, label: str) -> Reached:
    started = time.perf_counter()
    asked = [(subject, question) for subject in suite.subjects for question in subject.questions]
    poser, posed = Poser(examinee, way), []
    with counting(f"{suite.name}, questions as tokens", len(asked)) as done:
        for subject, question in asked:
            posed.append(poser.pose(subject, question))
            done(1)
    questions = [question for _, question in asked]
    right, num_tokens = _answer(examinee, questions, posed, way, f"{suite.name}, {label} model")
    seconds = time.perf_counter() - started
    return _reach(suite, right, posed, num_tokens=num_tokens, seconds=seconds)


def _answer(
    examinee: Examinee,
    questions: Sequence[Question],
    posed: Sequence[Posed],
    way: Way,
    label: str,
) -> tuple[list[bool], int]:
    """Return whether each question is answered rightly, and the tokens computed."""
    fitting = [place for place, one in enumerate(posed) if one.fits]
    right = [False] * len(posed)
    given = [posed[place] for place in fitting]
    with counting(label, len(fitting)) as done:
        if way.kind == "choice":
            found = examinee.choose(given, done)
            for place, logps in zip(fitting, found.logps, strict=True):
                question = questions[place]
                right[place] = choose(question, logps, way.score) == question.right
            return right, found.num_tokens
        written = write_answers(examinee.write, given, way, done)
    for place, said in zip(fitting, written.texts, strict=True):
        right[place] = is_right(questions[place], said, way)
    return right, written.num_tokens


def choose(question: Question, logps: Sequence[float], score: Score) -> int:
    """Choose the likeliest choice; of whole texts, the likeliest by the byte of UTF-8."""
    sizes = [len(text.encode()) if score == "text" else 1 for text in question.choices]
    shares = [logp / size for logp, size in zip(logps, sizes, strict=True)]
    return shares.index(max(shares))


def _reach(
    suite: Suite,
    right: Sequence[bool],
    posed: Sequence[Posed],
    *,
    num_tokens: int,
    seconds: float,
) -> Reached:
    subjects: list[Tally] = []
    categories: dict[str, list[bool]] = {}
    start = 0
    for subject in suite.subjects:
        own = right[start : start + len(subject.questions)]
        start += len(own)
        subjects.append(count(subject.name, own))
        for category in subject.categories:
            categories.setdefault(category, []).extend(own)
    return Reached(
        total=count("all", right),
        categories=[count(name, found) for name, found in sorted(categories.items())],
        subjects=subjects,
        subject_mean=sum(one.accuracy for one in subjects) / len(subjects),
        num_dropped=sum(one.num_dropped for one in posed),
        num_too_long=sum(not one.fits for one in posed),
        num_tokens=num_tokens,
        seconds=seconds,
        tokens_per_second=num_tokens / seconds,
    )
