"""Labelled texts and images to rows of tokens; an image counts as so many, and holds none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.meaning import Meaning, read_set
from tunesmith.data.media.images import decode, read_image
from tunesmith.data.report import DataReport
from tunesmith.data.rows import LabelledImage, Problem, Row, RowFault, Text
from tunesmith.data.sources import RowSet
from tunesmith.data.tokens import TokenRow, encode_labelled

if TYPE_CHECKING:
    from tunesmith.data.tokenizing import Tokenizing

Tokenized = list[tuple[Row, TokenRow]] | Problem


def hash_images(how: Tokenizing, rows: RowSet, meaning: Meaning) -> dict[str, list[str | int]]:
    """Hash the images that the rows name, and how many tokens each counts as."""
    digest = hashlib.sha256()
    for row in read_set(rows, meaning, how.options.encoding, how.options.system):
        seen = row.sha256 if isinstance(row, LabelledImage) else "bad"
        digest.update(seen.encode())
    return {"images": [digest.hexdigest(), how.learn.image_tokens]}


def tokenize_labelled(how: Tokenizing, batch: Sequence[Row], report: DataReport) -> list[Tokenized]:
    """Tokenize labelled texts, or look at labelled images; count those that are cut."""
    if how.learn.kind == "image":
        size = how.learn.image_tokens
        return [_look(row, size) for row in batch if isinstance(row, LabelledImage)]
    limit, cuts = how.options.max_tokens, how.options.on_long_row == "cut"
    texts = [row.text for row in batch if isinstance(row, Text)]
    found: list[Tokenized] = []
    for row, tokens in zip(batch, encode_labelled(how.words, texts, limit), strict=True):
        if tokens.was_cut and not cuts:
            reason = f"it has over {limit:,} tokens (data.max_tokens)"
            found.append(Problem(row.place, reason, "long"))
        else:
            report.num_cut += tokens.was_cut
            found.append([(row, tokens)])
    return found


def _look(row: LabelledImage, size: int) -> Tokenized:
    found = look_into(row)
    return (
        found if isinstance(found, Problem) else [(row, TokenRow([0] * size, [(size - 1, size)]))]
    )


def look_into(row: LabelledImage) -> LabelledImage | Problem:
    """Decode an image once, so that a damaged one is named before anything is learned."""
    try:
        decode(read_image(row.file), row.file)
    except RowFault as fault:
        return Problem(row.place, str(fault))
    return row
