"""One answer in work: what was read and written of it, and who hears of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.errors import RequestError
from tunesmith.inference.choosing import Way
from tunesmith.inference.engine import Hear, Piece, Request, Token, Work
from tunesmith.inference.generate import Answer, Finish, check_room
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent
from tunesmith.inference.text_stream import TextStream
from tunesmith.models.chat import ChatModel
from tunesmith.models.inner import token_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Row(Work):
    """An answer in work.

    Attributes:
        tokens: the prompt and what was written.
        limit: how many tokens may be written.
        way: how it goes on.
        model: which adapter answers; the base if empty.
        is_over: whether nothing is to be written any more, whatever the reason.
        remembers: whether what was read before for others may be used for it.
        reused: how many tokens of the prompt were, as it was read first.
    """

    def __init__(
        self,
        request: Request,
        hear: Hear,
        tokenizer: PreTrainedTokenizerFast,
        *,
        stop_ids: Sequence[int],
        limit: int,
    ) -> None:
        self.prompt = request.prompt
        self.tokens, self.num_prompt = list(request.prompt), len(request.prompt)
        self.limit = limit
        self.model, self.remembers, self.is_over = "", True, False
        self.reused: int | None = None
        assert not isinstance(request.form, Sent)  # check_request refuses it
        self.way = Way(request.prompt, request.sampling, request.form)
        self.finish: Finish | None = None
        self.end: int | None = None
        self.text = ""
        self._hear, self._stop_ids = hear, frozenset(stop_ids)
        self._stream = TextStream(tokenizer, request.sampling.stop, request.keep)
        self._untold: list[Token] = []

    def cancel(self) -> None:
        """Write nothing more; nothing more is heard."""
        self.is_over = True

    def take(self, chosen: Token | Exception) -> None:
        """Go on by what was chosen, and tell whoever hears."""
        if self.is_over:
            return
        try:
            piece = self._go_on(chosen)
        except Exception as problem:  # noqa: BLE001  of this answer alone
            self.fail(problem)
            return
        if piece is not None:
            self._tell(piece)

    def fail(self, problem: Exception) -> None:
        """End with what went wrong."""
        if not self.is_over:
            self.is_over = True
            self._tell(problem)

    def answer(self) -> Answer:
        """Return what was written, once it is over."""
        written = tuple(self.tokens[self.num_prompt :])
        return Answer(self.text, written, self.finish or "length", self.num_prompt, self.end)

    def _go_on(self, chosen: Token | Exception) -> Piece | None:
        """Add a token; return what is to be told now."""
        if isinstance(chosen, Exception):
            raise chosen
        if chosen.id in self._stop_ids:
            self.end, self.finish = chosen.id, "stop"
            return self._last("")
        self.tokens.append(chosen.id)
        self._untold.append(chosen)
        self.way.take(chosen.id)
        text = self._stream.push(chosen.id)
        form = self.way.form
        if self._stream.stopped or (form is not None and form.is_over()):
            self.finish = "stop"
        elif len(self.tokens) >= self.num_prompt + self.limit:
            self.finish = "length"
        if self.finish:
            return self._last(text)
        return self._piece(text) if text else None

    def _last(self, text: str) -> Piece:
        text += self._stream.end()
        if self._stream.stopped:
            self.finish = "stop"
        self.is_over = True
        return self._piece(text)

    def _piece(self, text: str) -> Piece:
        self.text += text
        told, self._untold = tuple(self._untold), []
        return Piece(text, told, self.finish, reused=self.reused if self.finish else None)

    def _tell(self, heard: Piece | Exception) -> None:
        """Tell whoever hears; one who fails hears no more."""
        try:
            self._hear(heard)
        except Exception:  # noqa: BLE001  theirs, and no other answer's
            self.is_over = True


class Awaited:
    """Somebody who hears an answer and waits for its end."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._problem: Exception | None = None

    def hear(self, told: Piece | Exception) -> None:
        """Note the end, or what went wrong."""
        if isinstance(told, Exception):
            self._problem = told
        if isinstance(told, Exception) or told.finish:
            self._over.set()

    def wait(self) -> None:
        """Wait for the end.

        Raises:
            Exception: what went wrong.
        """
        self._over.wait()
        if self._problem is not None:
            raise self._problem


def check_request(model: ChatModel, request: Request) -> int:
    """Return how many tokens may be written.

    Raises:
        RequestError: if the request asks for what cannot be given.
    """
    request.sampling.check()
    room = check_room(model, request.prompt)
    if isinstance(request.form, Sent):
        raise RequestError(
            "the form was made for an engine elsewhere",
            hint="make it with the speech of this engine's model",
            where="response_format",
        )
    vocab = len(token_ends(model.model)[0].weight)
    for where, tokens in (("prompt", request.prompt), ("logit_bias", request.sampling.logit_bias)):
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocab:
            raise RequestError(
                f"{where} holds token ids that the model does not have",
                hint=f"its ids go from 0 to {vocab - 1:,}",
                where=where,
            )
    return min(request.sampling.max_tokens, room)


def sampling_of(sampling: Sampling, place: int) -> Sampling:
    """Let each of several answers draw for itself, and the same each time."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=(sampling.seed * 1_000_003 + place) % (1 << 63))
