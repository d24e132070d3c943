"""How a loaded model is spoken with: its tokenizer and its template."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tunesmith.data.tokens import encode, opening_of
from tunesmith.inference.engine import Form, Speech, Tokenize
from tunesmith.inference.generate import Messages, Tools, max_positions, template_of
from tunesmith.inference.looked import Written, write_messages
from tunesmith.inference.manner import find_manner
from tunesmith.inference.sampling import default_sampling
from tunesmith.inference.sent import Sent
from tunesmith.inference.spelling import Spelling
from tunesmith.inference.structured import Forms, Outline
from tunesmith.models.chat import ChatModel


class ModelSpeech(Speech):
    """Speech of a model of this process; the tokenizer serves one thread at a time.

    Args:
        longest: tokens of prompt and answer together; None for what the model says.

    Raises:
        ModelError: if the model's own way of sampling means nothing.
    """

    def __init__(self, model: ChatModel, *, longest: int | None = None) -> None:
        self._model, self._lock = model, threading.Lock()
        self.longest, self.stop_ids = longest or max_positions(model), model.stop_ids
        self.defaults = default_sampling(model.folder)
        self.template, self.can_chat = model.template, model.template is not None
        self.options = model.template.options if model.template else frozenset()
        self.num_tokens, self.opening = len(model.tokenizer), opening_of(model.tokenizer)
        self.manner = find_manner(model.template, model.tokenizer)
        self._spelling = Spelling(model.tokenizer)
        self._forms = Forms(model.tokenizer, model.stop_ids)

    def write(self, messages: Messages, tools: Tools, options: Mapping[str, Any]) -> Tokenize:
        """Write a conversation as the model's template does."""
        template, senses = template_of(self._model), self._model.senses
        written = write_messages(template, senses, messages, tools, options)
        return partial(self._tokenize, written)

    def _tokenize(self, written: Written) -> list[int]:
        with self._lock:
            return written.encode(self._model.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Tokenize a text, without what begins it."""
        with self._lock:
            return encode(self._model.tokenizer, text)

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of tokens."""
        with self._lock:
            return str(
                self._model.tokenizer.decode(
                    list(tokens),
                    skip_special_tokens=not keep_special,
                    clean_up_tokenization_spaces=False,
                )
            )

    def spell(self, token: int) -> bytes:
        """Return what a token writes, which may be a part of a character."""
        with self._lock:
            return self._spelling(token)

    def forms(self, outline: Outline, count: int) -> Sequence[Form | Sent]:
        """Make the forms of so many answers."""
        grammar = outline.grammar(self.manner.specials)
        return [self._forms.build(grammar) for _ in range(count)]
