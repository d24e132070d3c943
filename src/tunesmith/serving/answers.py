"""Load what answers: an engine, with adapters beside it, or a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.errors import RequestError
from tunesmith.inference.batching.build import build_engine
from tunesmith.models.chat import Subject, find_subject, load_reward_model
from tunesmith.models.inspect import is_scorer, labels_of
from tunesmith.paths import exists, expand
from tunesmith.serving.judge import Judge
from tunesmith.serving.limits import MAX_WAITING
from tunesmith.serving.service import Service


@dataclass(frozen=True)
class Answering:
    """How a model answers.

    Attributes:
        called: what clients call the main model; the last part of its name if empty.
        adapters: runs whose adapters answer too, by the names clients call them.
        max_active: how many answers are written at the same time; None for what suits.
        max_waiting: how many more may wait for their turn.
    """

    called: str = ""
    adapters: Mapping[str, str] = field(default_factory=dict)
    max_active: int | None = None
    max_waiting: int = MAX_WAITING


def open_answers(name: str | Path | Subject, how: Answering) -> Service | Judge:
    """Load a model that answers, or one that scores.

    Raises:
        TunesmithError: if it, or an adapter beside it, cannot be used.
    """
    subject = find_subject(name)
    weights = subject.adapter or subject.base
    if is_scorer(weights) and not labels_of(weights):
        _refuse_options(how)
        model = load_reward_model(subject)
        return Judge(model, how.called or served_name(model.name), max_waiting=how.max_waiting)
    engine = build_engine(subject, rows=how.max_active).engine
    for called, run in how.adapters.items():
        engine.add(called, run)
    main = how.called or served_name(next(iter(engine.models())))
    return Service(engine, main, max_waiting=how.max_waiting)


def _refuse_options(how: Answering) -> None:
    """Refuse what means nothing to a reward model."""
    for given, option in ((how.adapters, "--adapter"), (how.max_active, "--max-active")):
        if given:
            raise RequestError(
                "a reward model scores one request at a time, and takes no adapters",
                hint="leave it out",
                where=option,
            )


def served_name(name: str) -> str:
    """Return what clients call a model: the last part of its name or path."""
    path = expand(name)
    return (path.resolve() if exists(path) else path).name or name
