"""Rows for the training loop: whole, cut, or packed without losing a token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunesmith.data.rows import Place, Text
from tunesmith.data.store import ROWS_FILE, Store, write_store
from tunesmith.data.token_rows import TokenRows, cut_rows, pack_rows, whole_rows
from tunesmith.data.tokens import TokenRow

LENGTHS = [[5, 1, 12, 3], [7, 4]]


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    """Two sets of texts; every token's id tells its set, row and place."""
    made = []
    for number, lengths in enumerate(LENGTHS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with write_store(folder / ROWS_FILE) as writer:
            for row, length in enumerate(lengths):
                ids = [number * 10_000 + row * 100 + at for at in range(length)]
                text = Text(f"{number}.{row}", Place("x", row + 1))
                writer.add(TokenRow(ids, [(0, length)]), text, 0, row)
        made.append(Store(folder, (Path("x"),)))
    return made


def chosen(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 2)


ALL = chosen(*((number, row) for number, of in enumerate(LENGTHS) for row in range(len(of))))


def ids_of(rows: TokenRows) -> list[list[int]]:
    return [rows[row]["input_ids"] for row in range(len(rows))]


def flat(stores: list[Store], order: np.ndarray) -> list[int]:
    return [int(token) for store, row in order.tolist() for token in stores[store].ids(row)]


def test_whole_rows_stand_alone_in_the_order_chosen(stores: list[Store]) -> None:
    rows = whole_rows(stores, chosen((1, 1), (0, 0), (1, 1)))
    assert rows.lengths.tolist() == [4, 5, 4]
    one, two = stores[1].ids(1).tolist(), stores[0].ids(0).tolist()
    assert ids_of(rows) == [one, two, one]
    assert (rows.num_tokens, rows.num_learned) == (13, 13)


def test_labels_stand_where_something_is_learned(tmp_path: Path) -> None:
    with write_store(tmp_path / ROWS_FILE) as writer:
        source = Text("x", Place("x", 1))
        writer.add(TokenRow([10, 11, 12, 13, 14], [(1, 2), (3, 5)]), source, 0, 0)
    rows = whole_rows([Store(tmp_path, (Path("x"),))], chosen((0, 0)))
    assert rows[0] == {"input_ids": [10, 11, 12, 13, 14], "labels": [-100, 11, -100, 13, 14]}
    assert (rows.num_tokens, rows.num_learned) == (5, 3)


@pytest.mark.parametrize("size", [1, 2, 5, 12, 100])
def test_cut_rows_hold_every_token_once_and_none_is_too_long(
    stores: list[Store], size: int
) -> None:
    rows = cut_rows(stores, ALL, size)
    assert [token for row in ids_of(rows) for token in row] == flat(stores, ALL)
    assert all(1 <= len(row) <= size for row in ids_of(rows))
    assert rows.lengths.tolist() == [len(row) for row in ids_of(rows)]
    assert rows.num_tokens == rows.num_learned == 32


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 31, 32, 100])
def test_packed_rows_are_full_but_the_last_and_lose_no_token(
    stores: list[Store], size: int
) -> None:
    order = ALL[[4, 0, 2, 5, 1, 3]]
    rows = pack_rows(stores, order, size)
    found = ids_of(rows)
    assert [token for row in found for token in row] == flat(stores, order)
    assert {len(row) for row in found[:-1]} <= {size}
    assert 1 <= len(found[-1]) <= size
    assert [row["labels"] for row in map(rows.__getitem__, range(len(rows)))] == found
    assert rows.num_tokens == rows.num_learned == 32


def test_a_packed_row_tells_the_first_text_that_begins_in_it(stores: list[Store]) -> None:
    rows = pack_rows(stores, ALL, 8)
    told = [rows.conversation(row) for row in range(len(rows))]
    assert [text.text for text in told if isinstance(text, Text)] == ["0.0", "0.2", "0.3", "1.1"]


def test_rows_are_counted_from_the_end_too_but_never_beyond(stores: list[Store]) -> None:
    rows = whole_rows(stores, ALL)
    assert rows[-1] == rows[5]
    for row in (6, -7):
        with pytest.raises(IndexError, match=r"of 6"):
            rows[row]


def test_no_rows_are_rows_too(stores: list[Store]) -> None:
    for rows in (
        whole_rows(stores, chosen()),
        cut_rows(stores, chosen(), 4),
        pack_rows(stores, chosen(), 4),
    ):
        assert (len(rows), rows.num_tokens, rows.num_learned) == (0, 0, 0)
