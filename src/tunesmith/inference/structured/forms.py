"""Hold a model to a grammar: which tokens may come next. Grammars are read by llguidance."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.errors import RequestError, require
from tunesmith.inference.engine import Form

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast


class Forms:
    """Make forms for the answers of one model.

    Its vocabulary is read once, with the first form, which takes a second or two.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, tuple(stop_ids)
        self._lock, self._read = threading.Lock(), None

    def build(self, grammar: str) -> GrammarForm:
        """Make the form of one answer.

        Raises:
            RequestError: if the grammar cannot be held to.
            ModelError: if llguidance is not installed.
        """
        library = require("llguidance", extra="serve")
        matcher = library.LLMatcher(self._vocabulary(), grammar, log_level=0)
        return GrammarForm(matcher, self._vocabulary().vocab_size)

    def _vocabulary(self) -> Any:
        with self._lock:
            if self._read is None:
                self._read = self._read_vocabulary()
            return self._read

    def _read_vocabulary(self) -> Any:
        library = require("llguidance", extra="serve")
        text = _without_limits(self._tokenizer)
        ends = list(self._stop_ids) or [0]
        return library.LLTokenizer(text, n_vocab=len(self._tokenizer), eos_token=ends)


def _without_limits(tokenizer: PreTrainedTokenizerFast) -> str:
    """Spell a tokenizer without padding and truncation, which are for batches."""
    from tokenizers import Tokenizer

    backend: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str())


class GrammarForm(Form):
    """How far one answer got in its grammar.

    Raises:
        RequestError: if the grammar is none, or is too large; so does `mask` where an answer
            cannot go on for that reason.
    """

    def __init__(self, matcher: Any, num_tokens: int) -> None:
        self._matcher, self._num_tokens = matcher, num_tokens
        self._check()

    def mask(self) -> torch.Tensor:
        """Tell which tokens may come next, bool [vocab]."""
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        flags = np.unpackbits(bits, count=self._num_tokens, bitorder="little")
        return torch.from_numpy(flags.view(np.bool_))

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""
        self._matcher.consume_token(token)
        self._check()

    def is_over(self) -> bool:
        """Whether nothing may follow but the end."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = " ".join(str(self._matcher.get_error()).split())[:500]
            raise RequestError(
                f"the answer cannot be held to its form: {problem}",
                hint="ask for a simpler form",
                where="response_format",
            )
