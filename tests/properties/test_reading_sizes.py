"""Files of any size are read in little memory: lines of 25 MB, a million rows, two gigabytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.proof
MIB = 1 << 20
MOST_MIB = 500
CHILD = """
import resource, sys
from pathlib import Path
from tunesmith.data.reading import read_records
from tunesmith.data.rows import Problem

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = peak()
rows = problems = 0
for record in read_records(Path(sys.argv[1])):
    if isinstance(record, Problem):
        problems += 1
    else:
        rows += 1
print(rows, problems, peak() - before)
"""


def read_in_child(path: Path) -> tuple[int, int]:
    """Read a file in a fresh process; return rows and problems, and hold its memory."""
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
        )
    finally:
        path.unlink()  # pytest keeps the folders of its last runs
    rows, problems, grown = child.stdout.split()
    assert float(grown) < MOST_MIB
    return int(rows), int(problems)


def write_parts(path: Path, parts: Iterable[str]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(parts)
    return path


LONG = "x" * (25 * 10**6)
CHINESE = "好" * (25 * 10**6 // 3)
ESCAPES = '\\"\\n' * (25 * 10**6 // 4)
LONG_LINES: dict[str, tuple[str, str, tuple[int, int]]] = {
    "json lines": ("a.jsonl", '{{"text": "{0}"}}\n{{"text": "a"}}\n', (2, 0)),
    "a json array": ("a.json", '[{{"text": "{0}"}},\n{{"text": "a"}}]', (2, 0)),
    "an array in one line": ("a.json", '[{{"text": "{0}"}}, {{"text": "a"}}]', (2, 0)),
    "a constant behind it": ("a.jsonl", '{{"text": "{0}", "n": NaN}}\n{{"text": "a"}}\n', (1, 1)),
    "a constant in an array": ("a.json", '[{{"text": "{0}", "n": NaN}}, {{"a": 1}}]', (1, 1)),
    "a fault before it": ("a.json", '[{{"n": oops, "text": "{0}"}}, {{"a": 1}}]', (1, 1)),
    "a fault behind it": ("a.json", '[{{"text": "{0}" 5}}, {{"a": 1}}]', (1, 1)),
    "a repeated key": ("a.jsonl", '{{"text": "{0}", "text": "b"}}\n{{"text": "a"}}\n', (1, 1)),
}


@pytest.mark.parametrize("content", [LONG, CHINESE, ESCAPES], ids=["ascii", "chinese", "escapes"])
@pytest.mark.parametrize("kind", LONG_LINES)
def test_a_line_of_25_megabytes_is_read_in_little_memory(
    tmp_path: Path, kind: str, content: str
) -> None:
    name, form, expected = LONG_LINES[kind]
    path = write_parts(tmp_path / name, [form.format(content)])
    assert read_in_child(path) == expected


def test_a_cell_of_25_megabytes_is_read_in_little_memory(tmp_path: Path) -> None:
    quoted = 'say ""hi""\n' * (25 * 10**6 // 11)
    path = write_parts(tmp_path / "a.csv", ["text,b\n", CHINESE, ",1\n", f'"{quoted}",2\n'])
    assert read_in_child(path) == (2, 0)


def test_a_text_of_25_megabytes_is_read_in_parts(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "a.txt", [CHINESE, "\nend\n"])
    assert read_in_child(path) == (len(CHINESE) // MIB + 2, 0)


def test_a_value_of_25_megabytes_in_parquet_is_read_in_little_memory(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [LONG, "a"]}), tmp_path / "a.parquet")
    assert read_in_child(tmp_path / "a.parquet") == (2, 0)


def count_lines() -> Iterable[str]:
    for number in range(10**6):
        yield f'{{"instruction": "question {number}", "output": "answer {number}"}}\n'


def count_array() -> Iterable[str]:
    yield "["
    for number, line in enumerate(count_lines()):
        yield f"{',' if number else ''}{line}"
    yield "]"


def count_cells() -> Iterable[str]:
    yield "instruction,output\n"
    for number in range(10**6):
        yield f'question {number},"answer, {number}"\n'


MILLIONS: dict[str, Callable[[], Iterable[str]]] = {
    "a.jsonl": count_lines,
    "a.json": count_array,
    "a.csv": count_cells,
    "a.txt": count_lines,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_a_million_rows_are_read_in_little_memory(tmp_path: Path, name: str) -> None:
    assert read_in_child(write_parts(tmp_path / name, MILLIONS[name]())) == (10**6, 0)


def test_a_million_bad_rows_are_read_in_little_memory(tmp_path: Path) -> None:
    path = write_parts(tmp_path / "a.jsonl", (line.replace(":", "") for line in count_lines()))
    assert read_in_child(path) == (0, 10**6)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_million_rows_in_one_batch_are_read_in_little_memory(tmp_path: Path, kind: str) -> None:
    table = pa.table({"instruction": map(str, range(10**6)), "output": ["answer"] * 10**6})
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=10**6)
    else:
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    assert read_in_child(path) == (10**6, 0)


BLOCK_ROWS, BLOCKS = 100, 2048


def make_block(row: str) -> str:
    """A megabyte of rows."""
    return row * BLOCK_ROWS


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_two_gigabytes_of_rows_are_read_in_little_memory(tmp_path: Path, name: str) -> None:
    text = "some words, " * (10 * 1024 // 12)
    row = json.dumps({"text": text, "n": 1})
    line = {"a.json": f"{row},\n", "a.jsonl": f"{row}\n", "a.csv": f'"{text}",1\n'}
    block = make_block(line.get(name, f"{text}\n"))
    starts, ends = {"a.json": "[", "a.csv": "text,n\n"}, {"a.json": f"{row}]"}
    with (tmp_path / name).open("w", encoding="utf-8") as file:
        file.write(starts.get(name, ""))
        for _ in range(BLOCKS):
            file.write(block)
        file.write(ends.get(name, ""))
    assert (tmp_path / name).stat().st_size > 2 * 10**9
    expected = BLOCK_ROWS * BLOCKS + (name == "a.json")
    assert read_in_child(tmp_path / name) == (expected, 0)


SPARSE = {
    "a.jsonl": (b'{"text": "a"}\n{"text": "', (1, 1)),
    "a.json": (b'[{"text": "a"},\n{"text": "', (1, 1)),
    "a.csv": (b"text,b\na,b\nc,", (1, 1)),
}


@pytest.mark.parametrize("name", SPARSE)
def test_a_line_of_two_gigabytes_is_reported_in_little_memory(tmp_path: Path, name: str) -> None:
    start, expected = SPARSE[name]
    path = tmp_path / name
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(2 * 10**9)
    assert read_in_child(path) == expected


def test_two_gigabytes_in_parquet_are_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{number}" + "some words, " * 800 for number in range(2000)]
    table = pa.table({"text": texts})
    with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(104):
            writer.write_table(table)
    assert read_in_child(path) == (2000 * 104, 0)
