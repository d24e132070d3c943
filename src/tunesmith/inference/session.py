"""A talk with a model: what was said so far, and what to say next."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import RequestError, RunError
from tunesmith.inference.engine_model import EngineModel
from tunesmith.inference.generate import Stream, encode_prompt, stream_answer
from tunesmith.inference.looked import check_shown, in_open_parts
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel
from tunesmith.templates import PLACES


@dataclass
class ChatSession:
    """One conversation with one model.

    Attributes:
        system: system prompt; none if empty.
        messages: what was said so far, without the system prompt.
        waiting: what the next question shows, as kind, path and hash.
    """

    model: ChatModel | EngineModel
    sampling: Sampling
    system: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[list[Any]] = field(default_factory=list)

    def show(self, kind: str, path: Path) -> None:
        """Let the next question show a file too.

        Raises:
            RequestError: if it cannot be read, or the model does not take its kind.
        """
        self.waiting.append(check_shown(self.model.senses, kind, path))

    def ask(self, question: str) -> Iterator[str]:
        """Ask, and yield the answer in pieces; it is remembered once it is whole.

        Raises:
            RequestError: if the conversation is longer than the model takes.
        """
        said: dict[str, Any] = {"role": "user", "content": question}
        if self.waiting:
            places = "".join(PLACES[kind] for kind, *_ in self.waiting)
            said |= {"content": places + question, "media": list(self.waiting)}
        asked = [*self.messages, said]
        try:
            stream = self._begin(self._with_system(asked))
        except RequestError as problem:
            if not self.messages:
                raise
            hint = "forget what was said with /clear, or ask something shorter"
            raise RequestError(problem.message, hint=hint, where=problem.where) from None
        pieces: list[str] = []
        with closing(stream):
            for piece in stream:
                pieces.append(piece)
                yield piece
        self.messages = [*asked, {"role": "assistant", "content": "".join(pieces)}]
        self.waiting = []

    def _begin(self, messages: list[dict[str, Any]]) -> Stream | Generator[str, None, None]:
        model = self.model
        if isinstance(model, EngineModel):
            return model.stream(model.encode(messages), self.sampling)
        return stream_answer(model, encode_prompt(model, messages), self.sampling)

    def close(self) -> None:
        """End what was started for the talk."""
        if isinstance(self.model, EngineModel):
            self.model.close()

    def clear(self) -> None:
        """Forget what was said."""
        self.messages, self.waiting = [], []

    def save(self, path: Path) -> None:
        """Append the conversation to a file of messages, ready to be learned from.

        Raises:
            RunError: if the file cannot be written.
        """
        try:
            with path.open("ab") as file:
                said = [in_open_parts(message) for message in self._with_system(self.messages)]
                file.write(orjson.dumps({"messages": said}) + b"\n")
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            raise RunError(
                f"the conversation cannot be saved: {reason}",
                hint="name a file in a folder that can be written",
                where=str(path),
            ) from None

    def _with_system(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages
