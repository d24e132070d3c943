"""Load what answers: an engine, with adapters beside it, or a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.errors import RequestError
from tunesmith.hardware import PrecisionOption
from tunesmith.inference.choose import Engines, choose_engine, only_embeds, which_engine
from tunesmith.inference.engine import Engine, Speech
from tunesmith.inference.structured import Outline, Wanted
from tunesmith.inference.tool_calls import ToolFormat, named_tool_format
from tunesmith.logs import logger
from tunesmith.models.chat import Subject, find_subject, load_reward_model
from tunesmith.models.inspect import is_scorer, labels_of
from tunesmith.paths import last_part
from tunesmith.serving.guard import read_key
from tunesmith.serving.judge import Judge
from tunesmith.serving.limits import MAX_WAITING
from tunesmith.serving.service import Service
from tunesmith.serving.usual import Usual
from tunesmith.serving.workspace import find_workspace

log = logger(__name__)
SCORE, EMBED = "/score", "/v1/embeddings"


@dataclass(frozen=True)
class Answering:
    """How a model answers.

    Attributes:
        called: what clients call the main model; the last part of its name if empty.
        adapters: runs whose adapters answer too, by the names clients call them.
        max_active: how many answers are written at the same time; None for what suits.
        max_waiting: how many more may wait for their turn.
        tool_format: how the models write calls of tools; found out if empty.
        engine: which engine writes; `auto` takes the one that fits.
        precision: numbers that it counts in.
        url: where the paths of a remote server begin.
        key_file: holds the key that it asks for.
        usual: how it answers where a request does not say it.
    """

    called: str = ""
    adapters: Mapping[str, str] = field(default_factory=dict)
    max_active: int | None = None
    max_waiting: int = MAX_WAITING
    tool_format: str = ""
    engine: str = "auto"
    precision: PrecisionOption = "auto"
    url: str = ""
    key_file: Path | None = None
    usual: Usual = field(default_factory=Usual)


def open_answers(name: str | Path | Subject, how: Answering) -> Service | Judge:
    """Load a model that answers, or one that scores.

    Raises:
        TunesmithError: if it, or an adapter beside it, cannot be used.
    """
    chosen, beside = which_engine(name, how.engine), []
    if chosen in ("own", "generate", "vllm"):
        name = subject = find_subject(name)
        weights = subject.adapter or subject.base
        if chosen != "vllm" and is_scorer(weights) and not labels_of(weights):
            _refuse_options(how)
            model = load_reward_model(subject)
            return Judge(model, how.called or last_part(model.name), max_waiting=how.max_waiting)
        beside = [subject, *map(find_subject, how.adapters.values())]
    tools = named_tool_format(how.tool_format) if how.tool_format else None
    engine = choose_engine(name, _engines(how)).engine
    try:
        return _serve(engine, how, tools, beside)
    except BaseException:
        engine.close()
        raise


def _serve(
    engine: Engine, how: Answering, tools: ToolFormat | None, beside: Sequence[Subject]
) -> Service:
    first, *others = engine.models()
    main = how.called or last_part(first)
    if main in others:
        raise RequestError(
            f"two models would be called {main}",
            hint="call one of them otherwise: --served-model-name, or --adapter NAME=...",
            where="--served-model-name" if how.called else "--adapter",
        )
    for speech in engine.models().values():
        _read_vocabulary(speech)
    return Service(
        engine,
        main,
        max_waiting=how.max_waiting,
        tools=tools,
        usual=how.usual,
        workspace=find_workspace(beside),
    )


def only_address(answers: Service | Judge) -> str:
    """Return the one address that a model answers at that writes nothing; empty for others."""
    if isinstance(answers, Judge):
        return SCORE
    try:
        answers.engine.check_writes()
    except RequestError:
        return EMBED
    return ""


def address_of(subject: Subject) -> str:
    """Say the same of a model that is not loaded."""
    weights = subject.adapter or subject.base
    if is_scorer(weights) and not labels_of(weights):
        return SCORE
    return EMBED if only_embeds(subject) else ""


def _engines(how: Answering) -> Engines:
    key = "" if how.key_file is None else read_key(how.key_file)
    return Engines(how.engine, how.adapters, how.max_active, how.precision, how.url, key)


def _read_vocabulary(speech: Speech) -> None:
    """Have a model's vocabulary read now: later it would keep everybody waiting."""
    try:
        speech.forms(Outline(Wanted("choice", ["a"], "")), 1)
    except RequestError as problem:
        log.debug("%s", problem)


def _refuse_options(how: Answering) -> None:
    """Refuse what means nothing to a reward model."""
    refused = {
        "--adapter": how.adapters,
        "--max-active": how.max_active,
        "--tool-format": how.tool_format,
        "--engine": how.engine != "auto",
        "--precision": how.precision != "auto",
        "--remote-url": how.url,
        "--remote-key-file": how.key_file,
    }
    for option, given in refused.items():
        if given:
            raise RequestError(
                "a reward model scores one request at a time, calls nothing and takes no adapters",
                hint="leave it out",
                where=option,
            )
