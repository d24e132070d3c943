"""Open talks with models by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.errors import RunError
from tunesmith.inference.engine_model import EngineModel, open_model
from tunesmith.inference.generate import template_of
from tunesmith.inference.sampling import Sampling, default_sampling
from tunesmith.inference.session import ChatSession
from tunesmith.models.chat import ChatModel, Subject, find_subject, load_chat_model
from tunesmith.models.gguf_file import find_gguf


def open_sessions(
    name: str | Subject,
    *,
    beside: str | None,
    system: str,
    sampling: Mapping[str, Any],
) -> list[ChatSession]:
    """Open a talk with a model, and with those it is to be compared with, in that order.

    Args:
        name: a run, a model, or a GGUF, for which the engine answers that serves it.
        beside: another model that answers too; `base` is the one a run started from.
        sampling: options that replace the model's own; None leaves one as it is.

    Raises:
        RunError: if the base is asked for and `name` is no run.
        ModelError: if one of them has no chat template.
        RequestError: if an option means nothing.
    """
    sessions: list[ChatSession] = []
    try:
        for model in _models(name, beside):
            sessions.append(ChatSession(model, Sampling(), system))
            sessions[-1].sampling = choose_sampling(model, sampling)
    except BaseException:
        for session in sessions:
            session.close()
        raise
    return sessions


def _models(name: str | Subject, beside: str | None) -> Iterator[ChatModel | EngineModel]:
    first = _open(name)
    yield first
    if beside == "base":
        if isinstance(first, EngineModel) or find_subject(name).run is None:
            raise RunError(
                f"{first.name} is no run, so it has no base to compare with",
                hint="name the other model: --compare NAME",
                where="--compare",
            )
        yield _load(name, base_only=True)
    elif beside is not None:
        other = _open(beside)
        if isinstance(other, EngineModel) and other.name == first.name:
            other.name = beside
        yield other


def _open(name: str | Subject) -> ChatModel | EngineModel:
    file = None if isinstance(name, Subject) else find_gguf(name)
    return _load(name) if file is None else open_model(file, rows=1)


def _load(name: str | Subject, *, base_only: bool = False) -> ChatModel:
    model = load_chat_model(name, base_only=base_only)
    template_of(model)
    return model


def choose_sampling(model: ChatModel | EngineModel, options: Mapping[str, Any]) -> Sampling:
    """Take a model's own way of sampling, but for the options that are given."""
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(model, EngineModel):
        own = model.speech.defaults
    else:
        own = default_sampling(model.folder)
    chosen = replace(own, **given)
    chosen.check()
    return chosen
