"""The models that one engine answers as: a base and adapters over it, which come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tunesmith.errors import RequestError
from tunesmith.inference.batching.adapters import Adapters
from tunesmith.inference.batching.lora import read_deltas
from tunesmith.inference.batching.weights import Weights
from tunesmith.inference.speech import ModelSpeech
from tunesmith.models.chat import ChatModel, Subject
from tunesmith.models.reader import find_reader


@dataclass(frozen=True)
class Served:
    """One model as clients see it.

    Attributes:
        model: with its own template and ends of answers.
        adapter: what its adapter is called in steps; empty for the base.
    """

    model: ChatModel
    speech: ModelSpeech
    adapter: str = ""


class ServedModels:
    """All models of an engine, by the names clients call them; the first is the main.

    Args:
        base: what the model was loaded from.
    """

    def __init__(self, model: ChatModel, base: Subject, weights: Weights) -> None:
        self._base, self._weights = base, weights
        self._by_name = {model.name: Served(model, ModelSpeech(model))}
        self._base_model = model
        self._count = 0
        self._lock = threading.Lock()
        self._leaving: set[str] = set()
        self.adapters = Adapters()

    def speeches(self) -> Mapping[str, ModelSpeech]:
        """Return how each is spoken with."""
        return {name: served.speech for name, served in self._by_name.items()}

    def find(self, name: str) -> Served:
        """Find a model; the main one if no name is given.

        Raises:
            RequestError: if there is none of that name.
        """
        known = self._by_name
        return next(iter(known.values())) if not name else self._named(name)

    def _named(self, name: str) -> Served:
        known = self._by_name
        if name not in known:
            raise RequestError(
                f"there is no model {name}",
                hint=f"ask one of {', '.join(known)}",
                where="model",
            )
        return known[name]

    def put_on(self, name: str, subject: Subject, *, first: bool = False) -> None:
        """Let an adapter answer.

        Args:
            first: make it the main one.

        Raises:
            RequestError: if the name is taken.
            ModelError: if it does not fit, or does more than add products.
        """
        with self._lock:
            if name in self._by_name:
                raise RequestError(
                    f"there is a model {name} already",
                    hint="choose another name, or remove that one first",
                    where="name",
                )
            self._count += 1
            adapter = f"{name}#{self._count}"
            deltas = read_deltas(subject, self._base, self._weights, adapter)
            model = self._model_of(name, subject)
            self.adapters.by_name[adapter] = deltas
            served = {name: Served(model, ModelSpeech(model), adapter)}
            self._by_name = served | self._by_name if first else self._by_name | served

    def remove(self, name: str) -> None:
        """Let an adapter answer no further request; those in work go on to their ends.

        Raises:
            RequestError: if there is none of that name.
        """
        with self._lock:
            served = self._named(name)
            if not served.adapter:
                raise RequestError(
                    f"{name} is what the adapters lie on",
                    hint=f"remove one of {', '.join(self._removable()) or 'the adapters'}",
                    where="name",
                )
            rest = {key: each for key, each in self._by_name.items() if key != name}
            self._by_name = rest
            self._leaving.add(served.adapter)

    def forget(self, in_work: Iterable[str]) -> None:
        """Free the adapters that were removed and that no answer in work needs any more."""
        if not self._leaving:
            return
        needed = set(in_work)
        for adapter in [each for each in self._leaving if each not in needed]:
            del self.adapters.by_name[adapter]
            self._leaving.discard(adapter)

    def _removable(self) -> list[str]:
        return [name for name, served in self._by_name.items() if served.adapter]

    def _model_of(self, name: str, subject: Subject) -> ChatModel:
        """Return the base with the template and the ends of answers of an adapter's run."""
        if subject.template == self._base.template:
            return replace(self._base_model, name=name)
        reader = find_reader(subject.base, subject.template)
        return replace(
            self._base_model,
            name=name,
            tokenizer=reader.tokenizer,
            template=reader.template,
            stop_ids=reader.stop_ids,
        )
