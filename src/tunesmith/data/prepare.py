"""Files to rows of tokens, training and validation: the one way data comes to a method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.data.build import build_store
from tunesmith.data.meaning import find_meaning, meaning_for
from tunesmith.data.mix import Unit, find_units, hold_out, limit, mix, shuffle
from tunesmith.data.report import DataReport
from tunesmith.data.rows import Learn
from tunesmith.data.sources import RowSet, find_sets
from tunesmith.data.store import Store
from tunesmith.data.token_rows import TokenRows, cut_rows, join_rows, pack_rows, whole_rows
from tunesmith.data.tokenizing import Tokenizing
from tunesmith.errors import DataError
from tunesmith.logs import logger
from tunesmith.recipe.data import Data, Source
from tunesmith.templates import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logger(__name__)


@dataclass(frozen=True)
class Splits:
    """What a run learns from and is measured on.

    Attributes:
        fingerprint: hash of all that the rows and their order depend on.
    """

    train: TokenRows
    validation: TokenRows | None
    report: DataReport
    fingerprint: str


@dataclass(frozen=True)
class _Built:
    """Some sources, their tokens, and the keys that these are cached under."""

    sets: list[RowSet]
    stores: list[Store]
    keys: list[str]


def prepare(
    options: Data,
    learn: Learn,
    tokenizer: PreTrainedTokenizerFast | None,
    template: Template | None,
    *,
    seed: int,
) -> Splits:
    """Read, check, render, tokenize and part the rows of a recipe.

    Tokens are kept in the cache: a second call with the same content makes none.

    Args:
        tokenizer: None for images.
        template: needed for conversations only.
        seed: of every draw: rows left out by `max_rows`, held out, or mixed by weight.

    Raises:
        DataError: if rows are bad and `on_bad_row` is stop, or nothing is left to learn.
    """
    how = Tokenizing(options, learn, tokenizer, template, seed)
    _check_tokenizer(how)
    report = DataReport()
    train = _build(options.train, how, report)
    held = _build(options.validation, how, report)
    if options.on_bad_row == "stop":
        report.raise_if_bad()
    if options.on_long_row == "stop":
        report.raise_if_long()
    learned, measured = _part(train, held, options, seed, report)
    rows = _rows(train.stores, learned, how)
    validation = None
    if held.stores:
        validation = _measured_rows(held, measured, how)
    elif len(measured):
        validation = _rows(train.stores, measured, how)
    report.num_train, report.num_tokens = len(rows), rows.num_tokens
    report.num_learned = rows.num_learned
    report.num_validation = len(validation) if validation else 0
    _log_outcome(report)
    rows = rows.with_senses(learn.senses)
    validation = None if validation is None else validation.with_senses(learn.senses)
    return Splits(rows, validation, report, _fingerprint(how, train, held))


def _check_tokenizer(how: Tokenizing) -> None:
    if how.learn.kind == "text" and how.words.eos_token_id is None:
        raise DataError(
            "the tokenizer has no end-of-text token, so no model could learn where a text ends",
            hint="name its eos_token in tokenizer_config.json",
        )


def _build(sources: Sequence[Source], how: Tokenizing, report: DataReport) -> _Built:
    built = _Built(find_sets(sources, how.options, how.learn.kind), [], [])
    found = [find_meaning(rows, how.options.encoding) for rows in built.sets]
    meanings = [
        meaning_for(how.learn.kind, meaning, rows)
        for rows, meaning in zip(built.sets, found, strict=True)
    ]
    for rows, meaning in zip(built.sets, meanings, strict=True):
        made = build_store(how, rows, meaning)
        if made.report.num_read == 0:
            raise DataError(
                "there are no rows", hint="give a file that holds some", where=rows.name
            )
        report.add(made.report)
        built.keys.append(made.key)
        if made.store is not None:
            built.stores.append(made.store)
    return built


def _part(
    train: _Built, held: _Built, options: Data, seed: int, report: DataReport
) -> tuple[Unit, Unit]:
    """Choose the rows to learn and the rows to measure on, no row among both."""
    units = find_units(train.stores)
    if held.stores:
        measured = find_units(held.stores)
        apart = ~np.isin(measured.digest, units.digest)
        report.num_overlap = int((~apart).sum())
        measured = measured.take(np.flatnonzero(apart))
        if not len(measured):
            raise DataError(
                "every validation row is a training row too, or none can be used",
                hint="give other rows, or leave data.validation out and set data.validation_share",
                where="data.validation",
            )
    else:
        units, measured = hold_out(units, options.validation_share, seed, options.validation_rows)
        _check_held_out(options, units, measured)
    weights = [rows.weight for rows in train.sets]
    mixed = mix(units, weights, seed, options.mix_until)
    learned = limit(mixed, options.max_rows, seed)
    if not len(learned):
        raise DataError(
            f"none of the {report.num_read:,} rows can be learned; "
            f"the first: {report.problems[0] if report.problems else 'nothing is left'}",
            hint="see `tunesmith data check` for what is wrong with each",
            where=", ".join(report.files[:3]),
        )
    return learned, measured


def _check_held_out(options: Data, units: Unit, measured: Unit) -> None:
    """Refuse to hold out what is not there."""
    option = "validation_rows" if options.validation_rows else "validation_share"
    asked = options.validation_rows or options.validation_share
    if asked and len(units) and not len(measured):
        raise DataError(
            f"data.{option}: {asked} holds out no row: all {len(units):,} rows are the same",
            hint="leave it out, or give more rows",
            where=f"data.{option}",
        )
    if options.validation_rows and len(np.unique(measured.digest)) < options.validation_rows:
        raise DataError(
            f"data.validation_rows: {asked} would hold out all there is",
            hint="hold out fewer, or give more rows",
            where="data.validation_rows",
        )


def _measured_rows(held: _Built, measured: Unit, how: Tokenizing) -> TokenRows:
    """Make the rows to measure on, those of a set with a name beside each other.

    Raises:
        DataError: if nothing is left of a set with a name.
    """
    names = [rows.measured_as for rows in held.sets]
    if not any(names):
        return _rows(held.stores, measured, how)
    parts: list[TokenRows] = []
    found: dict[str, range] = {}
    done = 0
    for name in (*dict.fromkeys(filter(None, names)), None):
        own = [number for number, other in enumerate(names) if other == name]
        units = measured.take(np.flatnonzero(np.isin(measured.store, own)))
        if name is not None and not len(units):
            raise DataError(
                f"no row of the held-out set {name!r} is left: all are training rows too",
                hint="give other rows, or leave the set out",
                where="data.validation",
            )
        if len(units):
            parts.append(_laid_out(held.stores, units, how))
            done += len(parts[-1])
        if name is not None:
            found[name] = range(done - len(parts[-1]), done)
    rows = join_rows(parts).with_sets(found)
    return mismatch(rows, how.seed) if how.learn.kind == "judged" else rows


def _rows(stores: Sequence[Store], units: Unit, how: Tokenizing) -> TokenRows:
    rows = _laid_out(stores, units, how)
    return mismatch(rows, how.seed) if how.learn.kind == "judged" else rows


def _laid_out(stores: Sequence[Store], units: Unit, how: Tokenizing) -> TokenRows:
    if how.learn.kind != "text":
        return whole_rows(stores, units.rows())
    if how.learn.pack:
        return pack_rows(stores, shuffle(units, how.seed).rows(), how.options.max_tokens)
    return cut_rows(stores, units.rows(), how.options.max_tokens)


def mismatch(rows: TokenRows, seed: int) -> TokenRows:
    """Let each question have another row's answer too, the same in every epoch.

    The rows stand in one circle drawn by the seed, and each takes the answer of the one before.

    Raises:
        DataError: if there is only one row.
    """
    if len(rows) < 2:
        raise DataError(
            "there is one row only, and kto compares each answer with those of other rows",
            hint="give more rows to learn from, or to measure on",
        )
    circle = np.random.default_rng([seed, 2]).permutation(len(rows))
    givers = np.empty(len(rows), np.int64)
    givers[circle] = np.roll(circle, 1)
    return rows.with_givers(givers)


def _fingerprint(how: Tokenizing, train: _Built, held: _Built) -> str:
    options = how.options
    parts = [
        [train.keys, held.keys, [rows.weight for rows in train.sets]],
        [_held_out(options), options.max_rows, options.max_tokens, how.seed],
        [options.mix_until] * (options.mix_until != "total"),
        [rows.measured_as for rows in held.sets if rows.measured_as],
        [how.learn.kind, how.learn.prompts, how.learn.history, how.learn.pack],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _held_out(options: Data) -> float | list[int]:
    return [options.validation_rows] if options.validation_rows else options.validation_share


def _log_outcome(report: DataReport) -> None:
    if report.num_reported:
        log.warning(
            "%s of %s rows are not used; the first: %s",
            f"{report.num_reported:,}",
            f"{report.num_read:,}",
            report.problems[0],
        )
    if report.num_cut:
        log.warning("%s rows were cut to data.max_tokens", f"{report.num_cut:,}")
    if report.num_split:
        log.info(
            "the chat template rewrites earlier turns: %s conversations became one row an answer",
            f"{report.num_split:,}",
        )
    if report.num_overlap:
        log.warning("%s validation rows are training rows too: left out", report.num_overlap)
