"""From records to conversations and texts: which format a set is in, and its rows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunesmith.data.formats import FORMATS, Classed, Format, Judgement, Pair, Question
from tunesmith.data.formats.format import is_label
from tunesmith.data.formats.media import COLUMNS
from tunesmith.data.formats.tools import read_tools, without_nulls
from tunesmith.data.media.images import look_at
from tunesmith.data.media.medium import Showing, show_media
from tunesmith.data.media.videos import Frames
from tunesmith.data.reading import read_records
from tunesmith.data.rows import (
    Conversation,
    Judged,
    Kind,
    Labelled,
    LabelledImage,
    Message,
    Place,
    Preference,
    Problem,
    Prompt,
    Record,
    Row,
    RowFault,
    Text,
    image_file,
    spell,
)
from tunesmith.data.sources import RowSet
from tunesmith.errors import DataError

CODE = re.compile(r"`(\w+)`")
NESTED = {"messages", "conversations", "tools", "prompt", "completion", "chosen", "rejected"}
PLURALS: dict[Kind, str] = {
    "text": "plain texts",
    "conversation": "conversations",
    "preference": "preference pairs",
    "judged": "judged answers",
    "prompt": "questions",
    "labelled": "labelled texts",
    "image": "labelled images",
}
LEARNERS: dict[Kind, tuple[str, str]] = {
    "text": ("pretrain", "a `text`"),
    "conversation": ("sft", "`instruction` and `output`"),
    "preference": (
        "dpo",
        "`chosen` and `rejected` (`format: alpaca_pairs` or its like, and `columns`, `tags`)",
    ),
    "judged": ("kto", "a `label` that is true or false beside the answer"),
    "prompt": ("grpo", "a `prompt`, or conversations"),
    "labelled": ("classify", "`text` and `label`"),
    "image": ("classify", "`image_path` and `label`"),
}
"""The first method that learns from rows of a kind, and columns that it takes."""
ASKED: set[Kind] = {"conversation", "prompt"}
"""Rows that hold a question; its answer may be missing from the latter."""
LOOKED_AT = 100
"""Rows that are looked at before what holds questions only is taken for questions."""
TEXT_ALONE, TEXT_TOO = ("labelled", "text"), ("conversation", "text")
"""Rows that another method learns without their labels."""

Said = tuple[Message, ...] | Pair | Judgement | Question
"""What a row says, and what is known of its last answer."""


@dataclass(frozen=True)
class Meaning:
    """A format with the names of columns and tags that a set uses.

    Attributes:
        showing: where what rows show lies, and how large it may be.
        told: whether the recipe names the format; a row of a guessed one is refused where it holds
            more than the format can learn.
        others: meanings of the files that are written in another format than the first one.
    """

    format: Format
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    told: bool = False
    showing: Showing = field(default_factory=Showing)
    others: Mapping[Path, Meaning] = field(default_factory=dict)

    def of(self, path: Path) -> Meaning:
        """Return the meaning of one file."""
        return self.others.get(path, self)

    def rename(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's columns under our names; the ones the format does not use are left out."""
        named = {ours: name for ours, name in self.columns.items() if name}
        return {ours: fields[name] for ours, name in named.items() if name in fields}

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Whether a row looks written so."""
        return self.format.matches(self.rename(fields), self.tags)

    def read(self, record: Record, system: str | None) -> Row | Problem:
        """Give a record its meaning."""
        try:
            if not self.told:
                self._refuse_unlearned(record.fields)
            fields = self._fields(record)
            content, tools = self.format.read(fields, self.tags), read_tools(fields)
            if isinstance(content, Classed):
                return self._classed(content, record.place)
            if not isinstance(content, str):
                content = self._shown(content, fields, record.place)
        except RowFault as fault:
            return Problem(record.place, CODE.sub(self._spell_column, str(fault)))
        if isinstance(content, str):
            return Text(content, record.place)
        messages = content if isinstance(content, tuple) else content.messages
        if system and messages[0].role != "system":
            messages = (Message("system", system), *messages)
        bare = Conversation(messages, record.place, tools=tools)
        return bare if isinstance(content, tuple) else _with_verdict(bare, content)

    def _fields(self, record: Record) -> dict[str, Any]:
        """Return a record's columns under our names, without what a table filled up."""
        fields = self.rename(record.fields)
        if not record.place.column:
            fields |= {name: without_nulls(fields[name]) for name in NESTED & fields.keys()}
        return fields

    def _shown(self, content: Said, fields: Mapping[str, Any], place: Place) -> Said:
        """Give messages what their row shows; both answers of a pair go on from the same."""
        if isinstance(content, tuple):
            return show_media(content, fields, place, self.showing)
        if isinstance(content, Pair):
            both = (*content.messages, content.rejected)
            found = show_media(both, fields, place, self.showing)
            return Pair(found[:-1], found[-1])
        messages = show_media(content.messages, fields, place, self.showing)
        return replace(content, messages=messages)

    def _classed(self, content: Classed, place: Place) -> Labelled:
        if self.format.kind != "image":
            return Labelled(content.text, place, content.label)
        sha256 = look_at(image_file(content.text, place))
        return LabelledImage(content.text, place, content.label, sha256)

    def _spell_column(self, found: re.Match[str]) -> str:
        """Call a column as the file does."""
        return f"`{spell(self.columns.get(found[1]) or found[1])}`"

    def _is_verdict(self, value: object) -> bool:
        """Whether a value says that an answer is good or bad; beside completions 0 and 1 do."""
        return is_label(value) or (self.format.name == "completion" and value in (0, 1))

    def _refuse_unlearned(self, fields: Mapping[str, Any]) -> None:
        """Refuse a row whose answer may be a bad one, or of which the half would be missing."""
        left = fields.keys() - self.columns.values()
        found = next((f"`{name}`" for name in COLUMNS if name in left and fields[name]), "")
        for name in ("label", "kto_tag"):
            if name in left and self._is_verdict(fields[name]):
                found = f"a `{name}` that it is good or bad (KTO)"
        if {"chosen", "rejected"} <= left:
            found = "a preference pair (`chosen`, `rejected`)"
        if "functions" in left and fields["functions"]:
            raise RowFault("it offers `functions`; `columns: {tools: functions}` would read them")
        if found:
            raise RowFault(
                f"it holds {found}, which is not learned here; "
                f"`format: {self.format.name}` would learn it without"
            )


def _with_verdict(bare: Conversation, content: Pair | Judgement | Question) -> Conversation:
    """Add what is known of the last answer."""
    messages, place, tools = bare.messages, bare.place, bare.tools
    if isinstance(content, Pair):
        return Preference(messages, place, content.rejected, tools=tools)
    if isinstance(content, Judgement):
        return Judged(messages, place, content.good, tools=tools)
    return Prompt(messages, place, content.reference, tools=tools)


def read_set(
    rows: RowSet, meaning: Meaning, encoding: str, system: str | None
) -> Iterator[Row | Problem]:
    """Read all rows of a set, streaming; every record gives a row or a problem."""
    for path in rows.files:
        own = meaning.of(path)
        for record in read_records(path, encoding):
            yield record if isinstance(record, Problem) else own.read(record, system)


def find_meaning(rows: RowSet, encoding: str) -> Meaning:
    """Tell the format of a set: the one it names, or the one each file's first rows look like.

    Raises:
        DataError: if it has no row, its rows look like no format, or some are conversations and
            some are plain text.
    """
    if rows.format != "auto":
        told = replace(_meaning(FORMATS[rows.format], rows, strict=True), told=True)
        _check_columns(rows, encoding)
        return told
    looks = {path: _look(path, rows, encoding) for path in rows.files}
    found = {path: look for path, look in looks.items() if isinstance(look, Format)}
    if not found:
        _check_columns(rows, encoding)
        raise _unknown(rows, list(looks.values()))
    main = next(iter(found.values()))
    for path, known in found.items():
        if {known.kind, main.kind} not in ({main.kind}, ASKED):
            raise DataError(
                f"some files hold {PLURALS[main.kind]} and some {PLURALS[known.kind]}",
                hint="name those to learn from",
                where=f"{next(iter(found))}, {path}",
            )
    meaning = _meaning(main, rows, strict=True)
    _check_columns(rows, encoding)
    others = {path: _meaning(known, rows) for path, known in found.items() if known is not main}
    return replace(meaning, others=others)


def _look(path: Path, rows: RowSet, encoding: str) -> Format | Record | Problem | None:
    """Tell the format of a file, or return its first row, if it has some."""
    named = {ours for ours, name in rows.columns.items() if name}
    ordered = sorted(FORMATS.values(), key=lambda known: not named <= known.columns.keys())
    candidates = [_meaning(known, rows) for known in ordered]
    first: Record | Problem | None = None
    asked: Format | None = None  # a row that has lost its answer looks like a question too
    for number, record in enumerate(read_records(path, encoding)):
        if asked is not None and number > LOOKED_AT:
            break
        if isinstance(record, Problem):
            first = first or record
            continue
        first = first if isinstance(first, Record) else record
        known = next((known for known in candidates if known.matches(record.fields)), None)
        if known is not None and known.format.kind != "prompt":
            return known.format
        asked = asked or (known.format if known is not None else None)
    return asked or first


def _check_columns(rows: RowSet, encoding: str) -> None:
    """Refuse names of columns that no row has."""
    missing = {name for name in rows.columns.values() if name}
    seen: tuple[str, ...] = ()
    for path in rows.files if missing else ():
        for record in read_records(path, encoding):
            if isinstance(record, Record):
                missing -= record.fields.keys()
                seen = seen or tuple(record.fields)
            if not missing:
                return
    for name in sorted(missing) if seen else ():
        near = difflib.get_close_matches(name, seen, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"no row has the column {name!r} that `columns` names",
            hint=f"{guess}there are {', '.join(map(spell, seen[:12]))}",
            where=_names(rows),
        )


def meaning_for(kind: Kind, meaning: Meaning, rows: RowSet) -> Meaning:
    """Return what a set means to a method: of conversations the last question may be all it takes.

    Raises:
        DataError: naming the method that would take it, if this one does not.
    """
    if kind == "prompt":
        meaning = _as_prompts(meaning)
    for each in (meaning, *meaning.others.values()):
        _check_kind(each, rows, kind)
    return meaning


def _as_prompts(meaning: Meaning) -> Meaning:
    known = FORMATS.get(f"{meaning.format.name}_prompts", meaning.format)
    others = {path: _as_prompts(other) for path, other in meaning.others.items()}
    return replace(meaning, format=known, others=others)


def _check_kind(meaning: Meaning, rows: RowSet, kind: Kind) -> None:
    found = meaning.format.kind
    if found == kind:
        return
    learner, wanted = LEARNERS[kind]
    unjudged = meaning.format.name.removesuffix("_judged")
    without = f", or `format: {unjudged}` to learn them all" if unjudged in FORMATS else ""
    both = "`columns: {instruction: prompt, output: answer}` if they have answers, "
    if {found, kind} == {"labelled", "image"}:
        raise DataError(
            f"the rows are {PLURALS[found]}, and the model reads {PLURALS[kind]}",
            hint="name a model for images alone, such as vit; one that sees beside text learns "
            "labels as answers, from questions with `images` (method.name: sft)"
            if found == "image"
            else f"name a model for text, or rows with {wanted}",
            where=rows.name,
        )
    raise DataError(
        f"the rows are {PLURALS[found]} ({meaning.format.name}); {learner} learns from "
        f"{PLURALS[kind]}",
        hint=("name " + both if found == "prompt" and kind == "conversation" else "")
        + f"use `method.name: {LEARNERS[found][0]}`, or rows with {wanted}"
        + (without if found == "judged" and kind == "conversation" else "")
        + (", or `format: text` to leave the labels" if (found, kind) == TEXT_ALONE else "")
        + (", or `format: text` to learn that alone" if (found, kind) == TEXT_TOO else ""),
        where=rows.name,
    )


def _meaning(known: Format, rows: RowSet, *, strict: bool = False) -> Meaning:
    if strict:
        named = {ours: name for ours, name in rows.columns.items() if name}
        _check_names(named, known.columns, "columns", known.name, rows.name)
        _check_names(rows.tags, known.tags, "tags", known.name, rows.name)
    columns = {ours: rows.columns.get(ours, name) for ours, name in known.columns.items()}
    tags = {ours: rows.tags.get(ours, name) for ours, name in known.tags.items()}
    video = None if rows.video is None else Frames(*rows.video)
    return Meaning(known, columns, tags, showing=Showing(rows.media, rows.image_pixels, video))


def _check_names(
    given: Mapping[str, str], known: Mapping[str, str], what: str, name: str, where: str
) -> None:
    for wrong in given.keys() - known.keys():
        near = difflib.get_close_matches(wrong, known, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"{wrong!r} is none of the {what} of the format {name}",
            hint=f"{guess}{name} has {', '.join(known) or 'none'}",
            where=where,
        )


def _unknown(rows: RowSet, firsts: Sequence[object]) -> DataError:
    first = next((record for record in firsts if isinstance(record, Record)), None)
    problem = next((problem for problem in firsts if isinstance(problem, Problem)), None)
    if first is None and problem is None:
        return DataError(
            "there are no rows", hint="give a file that holds some", where=_names(rows)
        )
    if first is None:
        return DataError(
            f"none of the first rows can be read; the first: {problem and problem.reason}",
            hint="mend the file, or set data.encoding if its text looks wrong",
            where=str(problem and problem.place),
        )
    message, hint = _explain(first.fields)
    return DataError(message, hint=hint, where=str(first.place))


def _explain(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Say what a row of no known format looks like, and what to do."""
    names = ", ".join(map(spell, list(fields)[:12])) or "none"
    lists = [name for name, value in fields.items() if isinstance(value, list)]
    if "chosen" in fields and "rejected" in fields:
        return (
            f"the rows hold two answers, but no question; the columns are {names}",
            "name the question's column: `columns: {prompt: question}`, or give both as messages",
        )
    if len(lists) == len(fields) > 1:
        return (
            f"the file is one object of columns ({names}), not rows",
            "write a list of objects, one a row",
        )
    if len(lists) == 1 and isinstance(next(iter(fields[lists[0]]), None), dict):
        ours = "messages" if "role" in fields[lists[0]][0] else "conversations"
        return (
            f"the rows look like no format; the columns are {names}",
            (
                f"if the rows lie under `{spell(lists[0])}`, write that list alone; if they are "
                f"messages, name it: `columns: {{{ours}: {spell(lists[0])}}}`"
            ),
        )
    return (
        f"the rows look like no format; the columns are {names}",
        (
            "accepted are instruction and output, conversations, messages, prompt and completion, "
            "text, text and label, image_path and label, or chosen and rejected; other names "
            "go into `columns: {instruction: question, output: answer}`"
        ),
    )


def _names(rows: RowSet) -> str:
    return ", ".join(str(path) for path in rows.files[:3])


def file_place(rows: RowSet, number: int, line: int, column: int) -> Place:
    """Name a place by the number of its file in the set."""
    return Place(str(rows.files[number]), line, column)
