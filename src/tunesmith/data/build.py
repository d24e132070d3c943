"""Rows to tokens, once: built aside, sealed, and found again by a hash of all they depend on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from tunesmith.data.cached_report import pack_report, read_report
from tunesmith.data.labelled import hash_images, tokenize_labelled
from tunesmith.data.leftover import Leftover
from tunesmith.data.meaning import Meaning, read_set
from tunesmith.data.media.places import hash_media, keeps_media
from tunesmith.data.pairs import join_answers
from tunesmith.data.progress import track
from tunesmith.data.render import render_conversation
from tunesmith.data.report import NOTHING_LEARNED, DataReport
from tunesmith.data.rows import (
    Conversation,
    Problem,
    Row,
    Text,
    count_chars,
)
from tunesmith.data.sources import RowSet
from tunesmith.data.store import (
    ROWS_FILE,
    Store,
    StoreWriter,
    seal_store,
    write_store,
)
from tunesmith.data.tokenizing import Tokenizing
from tunesmith.data.tokens import TokenRow, encode_rows, encode_texts
from tunesmith.errors import DataError
from tunesmith.settings import read_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORM = 6
"""Number of the way tokens are made and kept; raise it when that changes."""
BATCH_ROWS, BATCH_CHARS = 256, 1 << 21


def cache_key(how: Tokenizing, rows: RowSet, meaning: Meaning) -> str:
    """Hash everything that the tokens of a set depend on."""
    drawn = {"max_rows": rows.max_rows, "seed": how.seed} if rows.max_rows else {}
    formats = [meaning.of(path).format.name for path in rows.files]
    others = {"formats": formats} if meaning.others else {}
    limits = [how.options.max_tokens, how.options.on_long_row]
    images = hash_images(how, rows, meaning) if how.learn.kind == "image" else {}
    if how.learn.senses is not None:
        images = hash_media(how, rows, meaning)
    parts = {
        "form": FORM,
        "files": [[path.suffix.lower(), _hash_file(path)] for path in rows.files],
        "format": meaning.format.name,
        "columns": dict(meaning.columns),
        "tags": dict(meaning.tags),
        "told": meaning.told,
        "encoding": how.options.encoding,
        "system": how.options.system,
        "limits": [] if how.learn.kind in ("text", "image") else limits,
        "learn": [how.learn.kind, how.learn.prompts, how.learn.history],
        "tokenizer": hash_tokenizer(how.tokenizer) if how.tokenizer else "",
        "template": how.template.sha256 if how.template else "",
        **others,
        **drawn,
        **images,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hash what a tokenizer does to a text; truncation and padding are never used here."""
    specials = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    digest = hashlib.sha256(json.dumps(specials).encode())
    digest.update(backend.to_str().encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Built:
    """The tokens of a set.

    Attributes:
        store: None where bad rows stop the run.
        report: what became of every row.
        key: hash of all that the tokens depend on.
    """

    store: Store | None
    report: DataReport
    key: str


def build_store(how: Tokenizing, rows: RowSet, meaning: Meaning) -> Built:
    """Return the tokens of a set, from the cache or made now.

    Only one process makes the tokens of a set; others wait and take them.
    Where the recipe stops at bad rows, all rows are still looked at, so that all bad ones are
    named at once.
    """
    key = cache_key(how, rows, meaning)
    folder = read_settings().cache / "tokens" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            report = read_report(folder, rows) or _make(how, rows, meaning, folder)
    except OSError as problem:
        raise DataError(
            f"the tokens cannot be kept: {problem.strerror or problem}",
            hint="make room, or set TUNESMITH_CACHE to a folder that has some",
            where=str(folder.parent),
        ) from None
    return Built(Store(folder, rows.files) if folder.is_dir() else None, report, key)


def _make(how: Tokenizing, rows: RowSet, meaning: Meaning, folder: Path) -> DataReport:
    aside, left = folder.with_suffix(".part"), folder.with_suffix(".left")
    _keep_the_longer(aside, left)
    for stale in (aside, folder):
        shutil.rmtree(stale, ignore_errors=True)
    aside.mkdir()
    with write_store(aside / ROWS_FILE) as writer:
        job = _Job(how, rows, meaning, writer)
        report = job.run(Leftover(left / ROWS_FILE, rows.files))
    shutil.rmtree(left, ignore_errors=True)
    if job.gave_up():
        shutil.rmtree(aside)
        return report
    seal_store(aside, pack_report(report, rows))
    aside.rename(folder)
    return report


def _keep_the_longer(part: Path, left: Path) -> None:
    """Keep what interrupted runs have made, the longer of two."""
    sizes = [
        file.stat().st_size if file.exists() else -1
        for file in (part / ROWS_FILE, left / ROWS_FILE)
    ]
    if sizes[0] > sizes[1]:
        shutil.rmtree(left, ignore_errors=True)
        part.rename(left)


class _Job:
    """One pass over a set: read, render, tokenize, write."""

    def __init__(
        self, how: Tokenizing, rows: RowSet, meaning: Meaning, writer: StoreWriter
    ) -> None:
        self._how, self._rows, self._meaning, self._writer = how, rows, meaning, writer
        self._report = DataReport(files=[str(path) for path in rows.files])
        self._numbers = {str(path): number for number, path in enumerate(rows.files)}
        self._units = 0

    def run(self, leftover: Leftover) -> DataReport:
        """Tokenize every good row, or the drawn ones, but those that were left over."""
        self._leftover = leftover
        drawn = self._draw()
        good = 0
        batch: list[Row] = []
        chars = 0
        for row in self._read():
            if isinstance(row, Problem):
                continue
            good += 1
            if drawn is not None and good - 1 not in drawn:
                self._report.num_kept += 1
                continue
            batch.append(row)
            chars += count_chars(row)
            if len(batch) == BATCH_ROWS or chars > BATCH_CHARS:
                self._write(batch)
                batch, chars = [], 0
        self._write(batch)
        self._report.problems.sort(key=self._order)
        return self._report

    def _order(self, problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        return self._numbers[place.path], place.line, place.column

    def gave_up(self) -> bool:
        """Whether a bad row made tokens useless."""
        return self._how.options.on_bad_row == "stop" and self._report.num_bad > 0

    def _read(self) -> Iterator[Row | Problem]:
        """Read the set and count what is not a good row."""
        options = self._how.options
        found = read_set(self._rows, self._meaning, options.encoding, options.system)
        for row in track(found, f"tokens of {self._rows.name}"):
            self._report.num_read += 1
            if isinstance(row, Problem):
                self._report.add_problem(row)
            yield row

    def _draw(self) -> set[int] | None:
        """Choose the numbers of the good rows to use; None for all."""
        if self._rows.max_rows is None:
            return None
        options = self._how.options
        found = read_set(self._rows, self._meaning, options.encoding, options.system)
        total = sum(not isinstance(row, Problem) for row in found)
        if total <= self._rows.max_rows:
            return None
        random = np.random.default_rng([self._how.seed, 1])
        return set(random.choice(total, self._rows.max_rows, replace=False).tolist())

    def _write(self, batch: Sequence[Row]) -> None:
        if not batch:
            return
        for row, result in zip(batch, self._tokenize(batch), strict=True):
            if isinstance(result, Problem):
                self._report.add_problem(result)
                continue
            self._report.num_kept += 1
            self._report.num_split += len(result) > 1
            if self.gave_up():
                continue
            file = self._numbers[row.place.path]
            for source, tokens in result:
                self._writer.add(tokens, source, file, self._units)
            self._units += 1

    def _tokenize(self, batch: Sequence[Row]) -> list[list[tuple[Row, TokenRow]] | Problem]:
        known = [self._take(row) for row in batch]
        asked = [row for row, taken in zip(batch, known, strict=True) if taken is None]
        made = iter(self._tokenize_anew(asked) if asked else [])
        return [next(made) if taken is None else taken for taken in known]

    def _take(self, row: Row) -> list[tuple[Row, TokenRow]] | None:
        """Take what is left over of a row, if nobody has to know how long it was before a cut."""
        found = self._leftover.take(row)
        return None if found and any(tokens.was_cut for _, tokens in found) else found

    def _tokenize_anew(self, batch: Sequence[Row]) -> list[list[tuple[Row, TokenRow]] | Problem]:
        kind = self._how.learn.kind
        if kind in ("labelled", "image"):
            return tokenize_labelled(self._how, batch, self._report)
        if kind == "text":
            texts = [row.text for row in batch if isinstance(row, Text)]
            encoded = encode_texts(self._how.words, texts)
            return [[pair] for pair in zip(batch, encoded, strict=True)]
        conversations = [row for row in batch if isinstance(row, Conversation)]
        rendered = [render_conversation(row, self._how) for row in conversations]
        flat = [pieces for each in rendered if not isinstance(each, Problem) for _, pieces in each]
        tokens = iter(encode_rows(self._how.words, flat))
        result: list[list[tuple[Row, TokenRow]] | Problem] = []
        for each in rendered:
            if isinstance(each, Problem):
                result.append(each)
            else:
                result.append(self._fit([(source, next(tokens)) for source, _ in each]))
        return result

    def _fit(
        self, parts: list[tuple[Conversation, TokenRow]]
    ) -> list[tuple[Row, TokenRow]] | Problem:
        """Hold the rows of one conversation to the limit of length."""
        limit, kind = self._how.options.max_tokens, self._how.learn.kind
        longest = max(len(tokens.ids) for _, tokens in parts)
        place = parts[0][0].place
        fitted: list[tuple[Row, TokenRow]] = []
        if longest > limit:
            if whole := self._why_whole(parts):
                reason = f"it has {longest:,} tokens, over data.max_tokens ({limit:,}){whole}"
                return Problem(place, reason.strip(), "long")
            self._report.num_cut += 1
        for source, tokens in parts:
            cut = replace(tokens.cut(self._end(tokens)), was_cut=longest > limit)
            if cut.num_learned or kind == "prompt":
                fitted.append((source, cut))
        if not fitted or (kind == "preference" and len(fitted) < len(parts)):
            return Problem(place, self._nothing_learned(longest))
        if kind != "preference":
            return fitted
        joined = self._join(fitted)
        self._report.num_cut -= isinstance(joined, Problem) and longest > limit
        return joined

    def _join(self, pair: Sequence[tuple[Row, TokenRow]]) -> list[tuple[Row, TokenRow]] | Problem:
        """Lay the two answers of a pair after the question that both share."""
        (source, chosen), (_, rejected) = pair
        joined, senses = join_answers(chosen, rejected), self._how.learn.senses
        if joined is None:
            return Problem(source.place, "both answers are the same tokens, so none is preferred")
        assert joined.answers is not None
        if senses is not None and senses.ids & set(joined.ids[joined.answers[0] :]):
            return Problem(
                source.place, "the chat template writes the question otherwise for each answer"
            )
        return [(source, joined)]

    def _why_whole(self, parts: list[tuple[Conversation, TokenRow]]) -> str:
        """Say why rows are not cut; a space if nobody wants it."""
        limit, policy = self._how.options.max_tokens, self._how.options.on_long_row
        if policy != "cut" or self._how.learn.kind == "prompt":
            return " "  # half a question asks something else
        if not all(keeps_media(*part, limit, self._how.learn.senses) for part in parts):
            smaller = "data.image_pixels, data.video_pixels and data.video_frames make it smaller"
            return f", and what it shows would be cut; {smaller}"
        return ""

    def _end(self, tokens: TokenRow) -> int:
        """Find where a row is cut: after a judged answer comes nothing."""
        judged = self._how.learn.kind == "judged" and tokens.learned
        limit = self._how.options.max_tokens
        return min(limit, tokens.learned[-1][1]) if judged else limit

    def _nothing_learned(self, longest: int) -> str:
        limit = self._how.options.max_tokens
        if longest > limit:
            self._report.num_cut -= 1
            return (
                f"nothing of it is learned: its prompt fills data.max_tokens ({limit:,} of "
                f"{longest:,} tokens)"
            )
        return NOTHING_LEARNED


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise DataError(
            f"the file cannot be read: {problem.strerror or problem}",
            hint="check the path and its permissions",
            where=str(path),
        ) from None
