"""Tokens on disk: what was written comes back, and no damage goes unseen."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from tunesmith.data.rows import Conversation, Message, Place, Text
from tunesmith.data.store import (
    BATCH,
    MANIFEST_FILE,
    ROWS_FILE,
    Store,
    read_seal,
    seal_store,
    write_store,
)
from tunesmith.data.tokens import TokenRow

FILES = (Path("one.jsonl"), Path("two.jsonl"))


def make_row(number: int) -> tuple[TokenRow, Conversation, int, int]:
    """Tokens, the row they are of, the number of its file, and its unit."""
    length = 3 + number % 5
    tokens = TokenRow(list(range(number, number + length)), [(1, 2), (2, length)][number % 2 :])
    question, answer = Message("user", f"question {number % 7}"), Message("assistant", "好")
    place = Place(str(FILES[number % 2]), number + 1, 4)
    return tokens, Conversation((question, answer), place), number % 2, number // 2


def make_store(folder: Path, count: int) -> Store:
    folder.mkdir()
    with write_store(folder / ROWS_FILE) as writer:
        for number in range(count):
            writer.add(*make_row(number))
    return Store(folder, FILES)


@pytest.mark.parametrize("count", [1, 7, BATCH, BATCH + 1, 3 * BATCH + 17])
def test_all_that_was_written_comes_back(tmp_path: Path, count: int) -> None:
    store = make_store(tmp_path / "store", count)
    expected = [make_row(number) for number in range(count)]
    assert len(store) == count
    assert store.lengths.tolist() == [len(tokens.ids) for tokens, *_ in expected]
    assert store.num_learned.tolist() == [tokens.num_learned for tokens, *_ in expected]
    assert store.units.tolist() == [unit for *_, unit in expected]
    for number in (0, count // 2, count - 1):
        tokens, source, *_ = expected[number]
        assert store.ids(number).tolist() == tokens.ids
        assert store.learned(number) == tokens.learned
        assert store.source(number) == source


def test_a_store_without_rows_can_be_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 0)
    assert len(store) == 0
    assert store.digests.dtype == np.uint64


def test_equal_rows_have_equal_digests_wherever_they_stand(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 21)
    assert store.digests[0] == store.digests[7] == store.digests[14]
    assert len(set(store.digests.tolist())) == 7


def test_texts_come_back_as_texts(tmp_path: Path) -> None:
    with write_store(tmp_path / ROWS_FILE) as writer:
        writer.add(TokenRow([1, 2], [(0, 2)]), Text("[1] 好", Place("x", 3)), 0, 0)
    assert Store(tmp_path, FILES).source(0) == Text("[1] 好", Place("one.jsonl", 3))


def test_a_store_goes_to_another_process_as_a_path(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 9)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.ids(8).tolist() == store.ids(8).tolist()
    assert len(pickle.dumps(store)) < 500


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A sealed store of nine rows."""
    make_store(tmp_path / "store", 9)
    seal_store(tmp_path / "store", {"num_kept": 9, "problems": [["a\ud800\n", 1]]})
    return tmp_path / "store"


def test_a_sound_store_gives_back_what_was_sealed_with_it(sealed: Path) -> None:
    found = read_seal(sealed)
    assert found is not None
    assert found["num_kept"] == 9
    assert found["problems"] == [["a\ud800\n", 1]]


@pytest.mark.parametrize("name", [ROWS_FILE, MANIFEST_FILE])
def test_a_flipped_bit_anywhere_is_seen(sealed: Path, name: str) -> None:
    path = sealed / name
    content = path.read_bytes()
    for at in range(0, len(content), 1 + len(content) // 400):
        damaged = bytearray(content)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        assert read_seal(sealed) is None, f"byte {at}"
    path.write_bytes(content)
    assert read_seal(sealed) is not None


@pytest.mark.parametrize("name", [ROWS_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("kept", [0, 1, -1])
def test_a_cut_file_is_seen(sealed: Path, name: str, kept: int) -> None:
    path = sealed / name
    path.write_bytes(path.read_bytes()[:kept])
    assert read_seal(sealed) is None


@pytest.mark.parametrize("name", [ROWS_FILE, MANIFEST_FILE])
def test_a_missing_file_is_seen(sealed: Path, name: str) -> None:
    (sealed / name).unlink()
    assert read_seal(sealed) is None


@pytest.mark.parametrize("content", ["[]", "null", '{"sealed": 1, "seal": 2}', '{"sealed": {}}'])
def test_a_manifest_of_another_form_is_no_seal(sealed: Path, content: str) -> None:
    (sealed / MANIFEST_FILE).write_text(content, "utf-8")
    assert read_seal(sealed) is None
