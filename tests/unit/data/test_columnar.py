"""Parquet and Arrow: rows are named by their number, damage ends with one problem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.files import read, write
from tunesmith.errors import DataError

ROWS = [
    {"instruction": f"question {n} 好", "output": f"answer {n}", "history": [["q", "a"]] * (n % 3)}
    for n in range(700)
]


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=300)


def write_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


WRITERS: dict[str, tuple[str, Callable[[Path, pa.Table], None]]] = {
    "parquet": ("a.parquet", write_parquet),
    "arrow file": ("a.arrow", write_file),
    "arrow stream": ("a.arrow", write_stream),
}
every_writer = pytest.mark.parametrize("kind", WRITERS)


def make(folder: Path, kind: str, table: pa.Table) -> Path:
    name, writer = WRITERS[kind]
    writer(folder / name, table)
    return folder / name


@every_writer
def test_all_rows_come_back_with_their_numbers(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind, pa.Table.from_pylist(ROWS))
    found = read(path)
    assert found.rows == ROWS
    assert found.places == [f"{path.name}:{n}" for n in range(1, 701)]
    assert found.problems == []


@every_writer
def test_dictionary_and_large_columns_are_texts_too(tmp_path: Path, kind: str) -> None:
    table = pa.table(
        {
            "instruction": pa.array(["a", "b", "a"]).dictionary_encode(),
            "output": pa.array(["c", None, "d"], pa.large_string()),
        }
    )
    found = read(make(tmp_path, kind, table))
    assert [row["instruction"] for row in found.rows] == ["a", "b", "a"]
    assert [row["output"] for row in found.rows] == ["c", None, "d"]


@every_writer
def test_a_column_that_stands_twice_is_refused(tmp_path: Path, kind: str) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(DataError, match="has the column `text` twice") as caught:
        read(make(tmp_path, kind, table))
    assert caught.value.hint == "rename one of them"


@every_writer
def test_a_value_that_cannot_be_read_costs_only_its_row(tmp_path: Path, kind: str) -> None:
    letters = pa.py_buffer(b"good\xff\xfegood")
    edges = pa.array([0, 4, 6, 10], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 3, [None, edges, letters])
    path = make(tmp_path, kind, pa.table({"text": broken}))
    found = read(path)
    assert found.rows == [{"text": "good"}] * 2
    assert found.places == [f"{path.name}:1", f"{path.name}:3"]
    assert found.problems[0].startswith(f"{path.name}:2: `text` cannot be read: ")
    assert len(found.problems) == 1


@every_writer
def test_a_date_that_no_calendar_holds_costs_only_its_row(tmp_path: Path, kind: str) -> None:
    days = pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())
    found = read(make(tmp_path, kind, pa.table({"text": ["a", "b"], "day": days})))
    assert [row["text"] for row in found.rows] == ["a"]
    assert "`day` cannot be read" in found.problems[0]


@every_writer
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_cut_file_ends_with_one_problem(tmp_path: Path, kind: str, share: float) -> None:
    path = make(tmp_path, kind, pa.Table.from_pylist(ROWS))
    content = path.read_bytes()
    found = read(write(path, content[: int(len(content) * share)]))
    assert found.rows == ROWS[: len(found.rows)]
    if found.problems or kind == "parquet":
        assert len(found.problems) == 1
        assert found.problems[0].startswith(
            f"{path.name}:{len(found.rows) + 1}: the file cannot be read from here: "
        )


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_text_under_the_name_of_a_table_is_one_problem(tmp_path: Path, name: str) -> None:
    found = read(write(tmp_path / name, '{"instruction": "a"}\n' * 20))
    assert found.rows == []
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{name}:1: the file cannot be read from here: ")


@every_writer
def test_a_table_without_rows_gives_none(tmp_path: Path, kind: str) -> None:
    table = pa.table({"text": pa.array([], pa.string())})
    assert read(make(tmp_path, kind, table)) == ([], [], [])
