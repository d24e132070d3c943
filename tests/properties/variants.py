"""Files of rows in every form, and what can go wrong with them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Row = dict[str, Any]
EXAMPLES = pytest.mark.parametrize(
    "examples",
    [pytest.param(150, id="some"), pytest.param(5000, id="thousands", marks=pytest.mark.proof)],
)


def hold(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check examples of a strategy; the same ones each time unless there are thousands."""
    few = examples < 1000
    chosen = settings(max_examples=examples, deadline=None, derandomize=few, database=None)
    chosen(given(strategy)(check))()


# Texts that people write, and what machines put into them.
WORDS = st.sampled_from(
    ["hi", "你好，世界", "café", "😀", '"', "\\", "{", "]", ",", "\n", "\t", "<|im_end|>"]
)
TEXT = st.lists(WORDS | st.text(max_size=4), min_size=1, max_size=6).map("".join)
USABLE = TEXT.map(lambda text: "".join(c for c in text if c not in "\x00\ufdd0\ufdd1\ufdd2") + "x")


def talk(names: Sequence[str], keys: Sequence[str]) -> st.SearchStrategy[list[Row]]:
    """Questions and answers in turn, under a format's names."""
    pair = st.tuples(USABLE, USABLE)
    return st.lists(pair, min_size=1, max_size=3).map(
        lambda pairs: [
            {keys[0]: name, keys[1]: text}
            for each in pairs
            for name, text in zip(names, each, strict=True)
        ]
    )


GOOD: dict[str, st.SearchStrategy[Row]] = {
    "alpaca": st.fixed_dictionaries(
        {"instruction": USABLE, "output": USABLE},
        optional={
            "input": USABLE | st.none(),
            "system": USABLE,
            "history": st.lists(st.lists(USABLE, min_size=2, max_size=2), max_size=2),
        },
    ),
    "sharegpt": st.fixed_dictionaries(
        {"conversations": talk(("human", "gpt"), ("from", "value"))}, optional={"id": USABLE}
    ),
    "messages": st.fixed_dictionaries(
        {"messages": talk(("user", "assistant"), ("role", "content"))}
    ),
    "text": st.fixed_dictionaries({"text": USABLE}, optional={"meta": st.integers()}),
}


def nested(depth: int) -> str:
    """Spell a list in a list in a list."""
    return "[" * depth + "]" * depth


# Values that are JSON, or nearly, and no text.
BAD_VALUES = [
    "null", "true", "17", "-1.5e3", "[]", "{}", '""', '" "', '["a"]', '{"a": 1}', '"\\u0000"',
    '"\\ud83d"', '"\\udc00x"', "NaN", "-Infinity", "1e999", "9" * 5000, '[["a"]]', '[["a", null]]',
    '[["a", "b", "c"]]', '[{"role": "user"}]', '[{"from": "gpt", "value": 3}]', nested(200),
    nested(950), nested(5000), '"\\ufdd0"', '[{"role": ' + nested(900) + ', "content": "a"}]',
    '"\\x"', "'a'", "", "tru", '"a', '[{"content": [{"type": "image"}], "role": "user"}]',
]  # fmt: skip
KEYS = ["instruction", "output", "input", "system", "history", "messages", "conversations"]
KEYS += ["text", "tools", "\\ud800", "a\\nb", "x" * 300]
BAD_LINES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(BAD_VALUES), max_size=4).map(
        lambda pairs: "{" + ", ".join(f'"{key}": {value}' for key, value in pairs.items()) + "}"
    ),
    st.sampled_from(
        [
            '{"a": 1, "a": 2}',
            '{"instruction": "a", "output": "b"} {"instruction": "c", "output": "d"}',
            '{"instruction": "a", "output": "b"',
            "oops",
            "[]",
            "[1, 2",
            '"text"',
            "{",
            "}",
            "\x00",
            "\ufeff{}",
            nested(3000),
        ]
    ),
)


@dataclass(frozen=True)
class Layout:
    """How rows lie in a file, and what it is called."""

    name: str
    write: Callable[[Sequence[str]], str]


LAYOUTS = {
    "lines": Layout("a.jsonl", lambda rows: "".join(f"{row}\n" for row in rows)),
    "lines without a last end": Layout("a.ndjson", "\n".join),
    "lines in a json file": Layout("a.json", lambda rows: "".join(f"{row}\n" for row in rows)),
    "an array in one line": Layout("a.json", lambda rows: "[" + ", ".join(rows) + "]"),
    "an array of lines": Layout("a.json", lambda rows: "[\n" + ",\n".join(rows) + "\n]\n"),
    "an indented array": Layout("a.jsonl", lambda rows: "[\n  " + ",\n  ".join(rows) + "\n]"),
}
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
MARKED = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
NAMED = ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]


def spell(rows: Sequence[Row], ascii_only: bool) -> list[str]:
    """Spell rows as JSON."""
    return [json.dumps(row, ensure_ascii=ascii_only) for row in rows]


def as_table(rows: Sequence[Sequence[str]], dialect: str) -> str:
    """Spell cells as csv or tsv."""
    file = io.StringIO()
    csv.writer(file, dialect).writerows(rows)
    return file.getvalue()


def as_arrow(rows: Sequence[Row], kind: str, path: Path) -> None:
    """Write rows as parquet, an Arrow file or an Arrow stream."""
    table = pa.Table.from_pylist(list(rows))
    if kind == "parquet":
        pq.write_table(table, path, compression="none")
        return
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(str(path), table.schema) as writer:
        writer.write_table(table)


JUNK = [
    b"\xff", b"\x00", b"\x00" * 50, b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe4\xbd",
    b"\x81", b"\x80" * 9, b"\xc4\xe3\xba\xc3", b"\xe9\xe8", b"\xd8\x00\xdc", b"\n", b"\r", b"\r\n",
    b'"', b"'", b"\\", b"\\u12", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b",,", b"\t", b";",
    b'{"a":1}{"a":2}', b"[" * 2000, b'{"a":' * 300, b"NaN", b'"output": 1, ',
]  # fmt: skip
PLACES = st.floats(0, 1, exclude_max=True)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), PLACES, st.sampled_from(JUNK)),
        st.tuples(st.just("cut"), PLACES, st.just(b"")),
        st.tuples(st.just("drop"), PLACES, st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("replace"), PLACES, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("repeat"), PLACES, st.binary(min_size=1, max_size=40)),
    ),
    max_size=4,
)


def damage(content: bytes, mutations: Sequence[tuple[str, float, bytes]]) -> bytes:
    """Insert, cut, drop, replace and repeat bytes."""
    for what, share, other in mutations:
        at = math.floor(share * len(content))
        if what == "cut":
            content = content[:at]
        elif what == "insert":
            content = content[:at] + other + content[at:]
        elif what == "drop":
            content = content[:at] + content[at + len(other) :]
        elif what == "replace":
            content = content[:at] + other + content[at + len(other) :]
        else:
            content = content[:at] + content[at : at + len(other)] * 2 + content[at:]
    return content
