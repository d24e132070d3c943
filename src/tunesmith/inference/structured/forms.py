"""Hold a model to a grammar: which tokens may come next. Grammars are read by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from tunesmith.errors import RequestError, require
from tunesmith.inference.engine import Form
from tunesmith.inference.spelling import Spelling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast


class Forms:
    """Make forms for the answers of one model.

    Its vocabulary is read with the first form, which takes some seconds for a large one, and lets
    no other thread of this process go on.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, tuple(stop_ids)

    def build(self, grammar: str) -> GrammarForm:
        """Make the form of one answer.

        Raises:
            RequestError: if the grammar cannot be held to.
            MissingPackage: if llguidance is not installed.
        """
        library = require("llguidance", extra="serve")
        vocabulary = self._vocabulary.read
        matcher = library.LLMatcher(vocabulary, grammar, log_level=0)
        return GrammarForm(matcher, vocabulary.vocab_size)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return read_vocabulary(self._tokenizer, self._stop_ids)


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary as llguidance read it."""

    read: Any


_IN_USE: WeakValueDictionary[tuple[str, tuple[int, ...]], Vocabulary] = WeakValueDictionary()
"""Adapters over one base have its vocabulary, though their tokenizers may be copies of it."""


def read_vocabulary(tokenizer: PreTrainedTokenizerFast, stop_ids: tuple[int, ...]) -> Vocabulary:
    """Read a vocabulary for llguidance, without padding and truncation, which are for batches."""
    from tokenizers import Tokenizer

    backend: Any = tokenizer.backend_tokenizer
    if backend.padding or backend.truncation:
        backend = Tokenizer.from_str(backend.to_str())
        backend.no_padding()
        backend.no_truncation()
    text = backend.to_str()
    key = (sha256(text.encode()).hexdigest(), stop_ids)
    if (found := _IN_USE.get(key)) is None:
        found = _IN_USE[key] = Vocabulary(_read(tokenizer, text, list(stop_ids) or [0]))
    return found


def _read(tokenizer: PreTrainedTokenizerFast, text: str, ends: list[int]) -> Any:
    library = require("llguidance", extra="serve")
    num_tokens = max(tokenizer.get_vocab().values()) + 1
    knows = num_tokens == len(tokenizer) and is_known(json.loads(text)["decoder"] or {})
    read = text if knows else Spelled(tokenizer, num_tokens, ends)
    return library.LLTokenizer(read, n_vocab=num_tokens, eos_token=ends)


def is_known(decoder: Mapping[str, Any]) -> bool:
    """Whether llguidance reads what a decoder makes of tokens as it is meant.

    It knows bytes spelled by letters, and signs that are replaced by blanks; other signs it takes
    for what is written.
    """
    steps = {step["type"] for step in (decoder, *decoder.get("decoders", ())) if step}
    return "ByteLevel" in steps or {"Replace", "ByteFallback"} <= steps


class Spelled:
    """A vocabulary token by token, as llguidance takes one that it cannot read itself."""

    is_tokenizer_wrapper = True

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, num_tokens: int, ends: Sequence[int]
    ) -> None:
        added = tokenizer.added_tokens_decoder.items()
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = ends[0], None
        self.tokens = [*map(Spelling(tokenizer), range(num_tokens))]
        self.special_token_ids = [number for number, token in added if token.special]

    def __call__(self, text: str) -> list[int]:
        """Tokenize a text."""
        return [*map(int, self._tokenizer.encode(text, add_special_tokens=False))]


class GrammarForm(Form):
    """How far one answer got in its grammar.

    The first mask is made at once: it takes the longest, and shows what is too large.

    Raises:
        RequestError: if the grammar is none, or is too large; so does `mask` where an answer
            cannot go on for that reason.
    """

    def __init__(self, matcher: Any, num_tokens: int) -> None:
        self._matcher, self._num_tokens = matcher, num_tokens
        self._check()
        self._ready: torch.Tensor | None = self._mask()

    def mask(self) -> torch.Tensor:
        """Tell which tokens may come next, bool [vocab]."""
        return self._mask() if self._ready is None else self._ready

    def _mask(self) -> torch.Tensor:
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        flags = np.unpackbits(bits, count=self._num_tokens, bitorder="little")
        return torch.from_numpy(flags.view(np.bool_))

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""
        self._ready = None
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
