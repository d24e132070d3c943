"""Show a row as the exact tokens a model learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import category

from rich.text import Text as RichText

from tunesmith.data.meaning import find_meaning, meaning_for, read_set
from tunesmith.data.render import render_conversation
from tunesmith.data.rows import (
    Conversation,
    Judged,
    Labelled,
    Learn,
    Place,
    Preference,
    Problem,
    Text,
)
from tunesmith.data.sources import find_sets
from tunesmith.data.tokenizing import Tokenizing
from tunesmith.data.tokens import TokenRow, encode_labelled, encode_rows, encode_texts
from tunesmith.errors import DataError
from tunesmith.recipe.data import Data, Source
from tunesmith.templates import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LEARNED, UNLEARNED = ("bold green", "bold cyan"), ("dim", "")
"""Neighbouring tokens take turns, so that the edges between them are seen."""


class ShownToken(NamedTuple):
    """A token: its number, the text it stands for, and whether it is learned."""

    id: int
    text: str
    learned: bool


@dataclass(frozen=True)
class ShownRow:
    """A row of tokens, as `prepare` gives it to the training loop.

    Attributes:
        place: where the row stands in its file.
        num_cut: tokens over `max_tokens` that were cut off.
        more: the further rows of a conversation that became one row per answer, or the row of the
            rejected answer.
        title: what it is where there are more.
    """

    place: Place
    tokens: list[ShownToken]
    num_cut: int = 0
    more: tuple[ShownRow, ...] = ()
    title: str = ""

    @property
    def num_learned(self) -> int:
        """Count the learned tokens."""
        return sum(token.learned for token in self.tokens)


def show(
    data: Data | Path | str,
    row: int,
    tokenizer: PreTrainedTokenizerFast | None,
    template: Template | None,
    learn: Learn,
) -> ShownRow:
    """Tokenize one row.

    Args:
        data: a file, or a recipe's data.
        tokenizer: None for images, which have no tokens to show.
        row: its number in the file, counted from 1, bad rows counted too.

    Raises:
        DataError: if there is no such row, or it is bad.
    """
    options = data if isinstance(data, Data) else Data(train=(Source(path=str(data)),))
    how = Tokenizing(options, learn, tokenizer, template, seed=0)
    if tokenizer is None:
        raise DataError(
            "an image is learned from its pixels and has no tokens to show",
            hint="see what the rows hold with `tunesmith data check`",
            where=options.train[0].path,
        )
    found = _find_row(how, row)
    if isinstance(found, Problem):
        raise DataError(
            f"row {row} is bad: {found.reason}",
            hint="mend it, or show another one",
            where=str(found.place),
        )
    shown = [_show(tokens, how, found.place) for tokens in _tokenize(found, how)]
    names = [f"row {number} of {len(shown)}" for number in range(1, len(shown) + 1)]
    if isinstance(found, Preference):
        names = ["chosen", "rejected"]
    if isinstance(found, Judged):
        names = ["good" if found.good else "bad"]
    if isinstance(found, Labelled):
        names = [found.label]
    if len(shown) > 1 or isinstance(found, Judged | Labelled):
        shown = [replace(row, title=name) for row, name in zip(shown, names, strict=True)]
    return replace(shown[0], more=tuple(shown[1:]))


def render(shown: ShownRow, *, marks: bool = False) -> RichText:
    """Colour the tokens: learned ones green, newlines marked so that they are seen.

    Args:
        marks: put learned tokens in ⟦ ⟧ too, for where there are no colours.
    """
    text = RichText()
    for row in (shown, *shown.more):
        title = f"{row.title}, " if row.title else ""
        cut = f", {row.num_cut:,} more cut off" if row.num_cut else ""
        text.append(
            f"{row.place}: {title}{len(row.tokens):,} tokens, {row.num_learned:,} learned{cut}\n",
            style="bold",
        )
        inside = False
        for place, token in enumerate(row.tokens):
            if marks and token.learned != inside:
                text.append("⟦" if token.learned else "⟧")
            inside = token.learned
            styles = LEARNED if token.learned else UNLEARNED
            text.append(token.text.replace("\n", "⏎\n"), style=styles[place % 2])
        if marks and inside:
            text.append("⟧")
        text.append("\n")
    return text


def _find_row(how: Tokenizing, number: int) -> Conversation | Text | Problem:
    options = how.options
    if number < 1:
        raise DataError(
            f"there is no row {number}", hint="rows are counted from 1", where="command line"
        )
    seen = 0
    for rows in find_sets(options.train, options, how.learn.kind):
        meaning = meaning_for(how.learn.kind, find_meaning(rows, options.encoding), rows)
        found = read_set(rows, meaning, options.encoding, options.system)
        for row in islice(found, number - 1 - seen, None):
            return row
        seen += sum(1 for _ in read_set(rows, meaning, options.encoding, options.system))
    raise DataError(
        f"there is no row {number}; there are {seen:,}",
        hint=f"give a number from 1 to {seen:,}" if seen else "give a file that holds some",
        where=", ".join(source.path for source in options.train),
    )


def _tokenize(row: Conversation | Text, how: Tokenizing) -> list[TokenRow]:
    if isinstance(row, Labelled):
        return encode_labelled(how.words, [row.text], how.options.max_tokens)
    if isinstance(row, Text):
        return encode_texts(how.words, [row.text])
    rendered = render_conversation(row, how)
    if isinstance(rendered, Problem):
        raise DataError(
            f"the row is bad: {rendered.reason}",
            hint="mend it, or show it with another template or model",
            where=str(rendered.place),
        )
    return encode_rows(how.words, [pieces for _, pieces in rendered])


def _show(row: TokenRow, how: Tokenizing, place: Place) -> ShownRow:
    cut = row if how.learn.kind == "text" else row.cut(how.options.max_tokens)
    learned = {at for start, end in cut.learned for at in range(start, end)}
    texts = spell_tokens(cut.ids, how.words)
    tokens = [
        ShownToken(token, text, at in learned)
        for at, (token, text) in enumerate(zip(cut.ids, texts, strict=True))
    ]
    return ShownRow(place, tokens, len(row.ids) - len(cut.ids))


def spell_tokens(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    """Spell tokens so that nothing is hidden.

    Bytes that are part of a character are spelled <E4>, characters that cannot be seen <U+200B>.
    """
    letters = _byte_letters() if "ByteLevel(" in repr(tokenizer.backend_tokenizer.decoder) else {}
    added = tokenizer.added_tokens_decoder
    for number in ids:
        token = str(tokenizer.convert_ids_to_tokens(number))
        if number in added:
            text = token
        elif letters and all(letter in letters for letter in token):
            data = bytes(letters[letter] for letter in token)
            text = data.decode("utf-8", "surrogateescape")
        else:
            text = token.replace("▁", " ")
        yield "".join(map(_spell_character, text))


def _spell_character(character: str) -> str:
    if character in "\n\t" or character.isprintable() or category(character) == "Zs":
        return character
    code = ord(character)
    return f"<{code - 0xDC00:02X}>" if 0xDC80 <= code <= 0xDCFF else f"<U+{code:04X}>"


def _byte_letters() -> dict[str, int]:
    """Map the letters in which byte-level vocabularies spell bytes (Radford et al. 2019)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(256 + at): byte for at, byte in enumerate(others)}
