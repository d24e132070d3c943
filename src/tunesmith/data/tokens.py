"""Text to token ids, the same way for training and for serving.

A text is split where a special token was merely spelled (see templates.breaks) and each side is
tokenized alone, so that nothing a person writes is ever read as a special token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from tunesmith.templates import BREAK, Breaker, Piece

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

Span = tuple[int, int]
LEADS = ("\n", ".", "a")
"""One of them makes no common token with the start of a text."""


@dataclass(frozen=True)
class TokenRow:
    """Token ids and the spans of them that are learned.

    Attributes:
        answers: of a row with two answers, where each begins; both go on from the tokens before
            the first.
        was_cut: whether the conversation it comes from was longer.
        weights: how much the tokens of each learned span count; none where all count 1.
    """

    ids: list[int]
    learned: list[Span]
    answers: Span | None = None
    was_cut: bool = False
    weights: list[float] = field(default_factory=list)

    @property
    def num_learned(self) -> int:
        """Count the learned tokens."""
        return sum(end - start for start, end in self.learned)

    def cut(self, length: int) -> TokenRow:
        """Keep the first `length` tokens."""
        if len(self.ids) <= length:
            return self
        kept = [(start, min(end, length)) for start, end in self.learned if start < length]
        return TokenRow(
            self.ids[:length], kept, was_cut=self.was_cut, weights=self.weights[: len(kept)]
        )


@dataclass(frozen=True)
class Segment:
    """A stretch of a row without BREAKs, with the spans of its characters that are learned.

    Attributes:
        weights: how much each span counts.
    """

    row: int
    text: str
    learned: tuple[Span, ...]
    first: bool
    weights: tuple[float, ...] = ()


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Tokenize a rendered text; only special tokens that a template wrote are read as such."""
    return encode_rows(tokenizer, [(Piece(text, False),)])[0].ids


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[TokenRow]:
    """Tokenize plain texts, each between the tokens that begin and end a text, all learned.

    The beginning is written where the tokenizer itself puts one before plain text.

    Args:
        tokenizer: one with an end-of-text token.
        texts: may spell special tokens; they are not read as such.
    """
    broken = _breaker(tokenizer)
    rows = encode_rows(tokenizer, [(Piece(broken(text), True),) for text in texts])
    before, after = _around(tokenizer)
    return [TokenRow(ids, [(0, len(ids))]) for ids in ([*before, *row.ids, *after] for row in rows)]


def encode_labelled(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], limit: int
) -> list[TokenRow]:
    """Tokenize texts that a head reads, between the tokens that the tokenizer puts around any.

    The last token is the one after which the class is read. Longer texts lose their end.

    Args:
        texts: may spell special tokens; they are not read as such.
        limit: most tokens of a row.
    """
    broken = _breaker(tokenizer)
    rows = encode_rows(tokenizer, [(Piece(broken(text), False),) for text in texts])
    before, after = put_around(tokenizer)
    room = max(limit - len(before) - len(after), 1)
    found = []
    for row in rows:
        ids = [*before, *row.ids[:room], *after]
        found.append(TokenRow(ids, [(len(ids) - 1, len(ids))], was_cut=len(row.ids) > room))
    return found


def put_around(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Find the tokens that a tokenizer itself puts before and after a text."""
    backend = tokenizer.backend_tokenizer
    plain = list(backend.encode("a", add_special_tokens=False).ids)
    whole = list(backend.encode("a").ids)
    starts = [at for at in range(len(whole)) if whole[at : at + len(plain)] == plain]
    if not starts:
        return [], []
    return whole[: starts[0]], whole[starts[0] + len(plain) :]


class PlainText:
    """Tokenize plain texts that are gone on with, and what goes on from them.

    Special tokens that they spell are not read as such.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._before = opening_of(tokenizer)
        self._broken = _breaker(tokenizer)
        self._joined = _Joiner(tokenizer)

    def start(self, text: str) -> list[int]:
        """Tokenize the start of a text."""
        return [*self._before, *encode(self._tokenizer, self._broken(text))]

    def go_on(self, text: str) -> list[int]:
        """Tokenize what goes on from another text."""
        parts = self._broken(text).split(BREAK)
        return [token for part in parts if part for token in self._joined.encode(part, ())[0]]


def _breaker(tokenizer: PreTrainedTokenizerFast) -> Breaker:
    """Return what keeps special tokens that a plain text spells from being read as such."""
    return Breaker([str(t) for t in tokenizer.added_tokens_decoder.values() if t.special])


def opening_of(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the token that begins a plain text, where the tokenizer itself puts one before it."""
    bos = tokenizer.bos_token_id
    starts = tokenizer.backend_tokenizer.encode("a").ids[:1]
    return [int(bos)] if isinstance(bos, int) and starts == [bos] else []


def _around(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    eos = tokenizer.eos_token_id
    return opening_of(tokenizer), [int(eos)] if isinstance(eos, int) else []


def encode_rows(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[Sequence[Piece]]
) -> list[TokenRow]:
    """Tokenize rows of pieces in one batch.

    Each row is tokenized as the one text it is. Where a token would reach from an unlearned piece
    into a learned one, the text is split there, as it is when a server asks for the answer.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    joined = _Joiner(tokenizer)
    segments = [segment for at, pieces in enumerate(rows) for segment in _segments(at, pieces)]
    firsts = [segment.text for segment in segments if segment.first]
    encoded = iter(backend.encode_batch(firsts, add_special_tokens=False))
    result = [TokenRow([], []) for _ in rows]
    for segment in segments:
        if segment.first:
            encoding = next(encoded)
            ids, spans = list(encoding.ids), _learned_tokens(encoding, segment)
        else:
            ids, spans = joined.encode(segment.text, segment.learned)
        if spans is None:
            ids, spans, weights = _encode_split(joined, segment)
        else:
            weights = segment.weights
        _append(result[segment.row], ids, spans, weights)
    for row in result:
        if all(weight == 1 for weight in row.weights):
            row.weights.clear()
    return result


def _segments(row: int, pieces: Sequence[Piece]) -> list[Segment]:
    text = "".join(piece.text for piece in pieces)
    spans: list[tuple[int, int, float]] = []
    at = 0
    for piece in pieces:
        if piece.learned:
            spans.append((at, at + len(piece.text), piece.weight))
        at += len(piece.text)
    found: list[Segment] = []
    start = 0
    for part in text.split(BREAK):
        end = start + len(part)
        inside = [span for span in spans if span[0] < end and span[1] > start]
        if part:
            edges = tuple((max(s, start) - start, min(e, end) - start) for s, e, _ in inside)
            weights = tuple(weight for _, _, weight in inside)
            found.append(Segment(row, part, edges, first=not found, weights=weights))
        start = end + 1
    return found


def _learned_tokens(encoding: Encoding, segment: Segment) -> list[Span] | None:
    """Find the learned tokens; None if a token reaches over the edge of a learned span."""
    if not segment.learned:
        return []
    whole = (0, len(segment.text))
    if segment.learned == (whole,):
        return [(0, len(encoding.ids))]
    offsets = encoding.offsets
    starts = [start for start, _ in offsets]
    found: list[Span] = []
    for span in segment.learned:
        edges = [bisect_left(starts, edge) for edge in span]
        for edge, at in zip(span, edges, strict=True):
            if at and offsets[at - 1][1] > edge:
                return None
        found.append((edges[0], edges[1]))
    return found


def _encode_split(
    joined: _Joiner, segment: Segment
) -> tuple[list[int], list[Span], Sequence[float]]:
    """Tokenize a segment in parts, one a learned span and one a stretch between."""
    edges = sorted({0, len(segment.text), *(edge for span in segment.learned for edge in span)})
    row = TokenRow([], [])
    for start, end in pairwise(edges):
        part = segment.text[start:end]
        if start == 0 and segment.first:
            ids = list(joined.backend.encode(part, add_special_tokens=False).ids)
        else:
            ids, _ = joined.encode(part, ())
        inside = [
            weight
            for (s, e), weight in zip(segment.learned, segment.weights, strict=True)
            if s <= start and end <= e
        ]
        _append(row, ids, [(0, len(ids))] * len(inside), inside)
    return row.ids, row.learned, row.weights


def _append(row: TokenRow, ids: list[int], spans: Sequence[Span], weights: Sequence[float]) -> None:
    shift = len(row.ids)
    row.ids.extend(ids)
    for (start, end), weight in zip(spans, weights, strict=True):
        touches = bool(row.learned) and row.learned[-1][1] == start + shift
        if touches and row.weights[-1] == weight:
            row.learned[-1] = (row.learned[-1][0], end + shift)
        elif end > start:
            row.learned.append((start + shift, end + shift))
            row.weights.append(weight)


class _Joiner:
    """Tokenize a text that goes on from another one.

    Some tokenizers put a space before every text. A text that goes on gets a letter before it
    instead, whose tokens are taken away again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.backend = tokenizer.backend_tokenizer
        leads = {lead: ids for lead in LEADS if (ids := self._plain(lead).ids)}
        alone = self._plain("a").ids
        spaced = any(self._rest(lead, ids, "a") not in (None, alone) for lead, ids in leads.items())
        self._leads = leads if spaced else {}

    def encode(self, text: str, learned: tuple[Span, ...]) -> tuple[list[int], list[Span] | None]:
        """Tokenize a text that goes on, and find its learned tokens."""
        for lead, ids in self._leads.items():
            led = self._plain(lead + text)
            if led.ids[: len(ids)] == ids:
                shifted = tuple((start + 1, end + 1) for start, end in learned)
                spans = _learned_tokens(led, Segment(0, lead + text, shifted, first=False))
                count = len(ids)
                moved = None if spans is None else [(s - count, e - count) for s, e in spans]
                return list(led.ids[count:]), moved
        plain = self._plain(text)
        return list(plain.ids), _learned_tokens(plain, Segment(0, text, learned, first=False))

    def _rest(self, lead: str, ids: list[int], text: str) -> list[int] | None:
        """Return the tokens of a text after a lead; None if the two do not part."""
        led = self._plain(lead + text).ids
        return led[len(ids) :] if led[: len(ids)] == ids else None

    def _plain(self, text: str) -> Encoding:
        return self.backend.encode(text, add_special_tokens=False)
