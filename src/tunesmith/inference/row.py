"""One answer in work: what was read and written of it, and who hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.inference.choosing import Way
from tunesmith.inference.engine import Hear, Piece, Request, Token, Work
from tunesmith.inference.generate import Answer, Finish
from tunesmith.inference.text_stream import TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Row(Work):
    """An answer in work.

    Attributes:
        tokens: the prompt and what was written.
        way: how it goes on.
        model: which adapter answers; the base if empty.
        is_over: whether nothing is to be written any more, whatever the reason.
        remembers: whether what was read before for others may be used for it.
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
        self.tokens, self.num_prompt = list(request.prompt), len(request.prompt)
        self.model, self.remembers, self.is_over = "", True, False
        self.way = Way(request.prompt, request.sampling, request.form)
        self.finish: Finish | None = None
        self.end: int | None = None
        self.text = ""
        self._hear, self._stop_ids = hear, frozenset(stop_ids)
        self._limit = self.num_prompt + limit
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
        elif len(self.tokens) >= self._limit:
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
        return Piece(text, told, self.finish)

    def _tell(self, heard: Piece | Exception) -> None:
        """Tell whoever hears; one who fails hears no more."""
        try:
            self._hear(heard)
        except Exception:  # noqa: BLE001  theirs, and no other answer's
            self.is_over = True
