"""Open talks with models by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunesmith.errors import RunError
from tunesmith.inference.generate import template_of
from tunesmith.inference.sampling import Sampling, default_sampling
from tunesmith.inference.session import ChatSession
from tunesmith.models.chat import ChatModel, Subject, find_subject, load_chat_model


def open_sessions(
    name: str | Subject,
    *,
    beside: str | None,
    system: str,
    sampling: Mapping[str, Any],
) -> list[ChatSession]:
    """Open a talk with a model, and with those it is to be compared with, in that order.

    Args:
        beside: another model that answers too; `base` is the one a run started from.
        sampling: options that replace the model's own; None leaves one as it is.

    Raises:
        RunError: if the base is asked for and `name` is no run.
        ModelError: if one of them has no chat template.
        RequestError: if an option means nothing.
    """
    models = [load_chat_model(name)]
    if beside == "base":
        if find_subject(name).run is None:
            raise RunError(
                f"{models[0].name} is no run, so it has no base to compare with",
                hint="name the other model: --compare NAME",
                where="--compare",
            )
        models.append(load_chat_model(name, base_only=True))
    elif beside is not None:
        models.append(load_chat_model(beside))
    for model in models:
        template_of(model)
    return [ChatSession(model, choose_sampling(model, sampling), system) for model in models]


def choose_sampling(model: ChatModel, options: Mapping[str, Any]) -> Sampling:
    """Take a model's own way of sampling, but for the options that are given."""
    given = {name: value for name, value in options.items() if value is not None}
    chosen = replace(default_sampling(model.folder), **given)
    chosen.check()
    return chosen
