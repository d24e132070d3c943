"""Tokens that an interrupted run made are taken up, and only if they are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows
from tests.unit.data.preparing import prepare_files
from tests.unit.data.tokenizers_of import make_byte_level
from tests.unit.templates import families
from tunesmith.data import build
from tunesmith.data.rows import Learn
from tunesmith.models.reader import Reader
from tunesmith.settings import read_settings

COUNT = 2000
KINDS: dict[str, tuple[Learn, Callable[[int], dict[str, Any]]]] = {
    "conversation": (
        Learn("conversation"),
        lambda n: {"instruction": f"why {n}?", "output": "so " * (n % 30) + "it is"},
    ),
    "preference": (
        Learn("preference", history=False),
        lambda n: {"instruction": f"{n}?", "chosen": "so " * (n % 30) + "is", "rejected": "no"},
    ),
    "text": (Learn("text", prompts=True), lambda n: {"text": f"text number {n} " * (n % 7 + 1)}),
}


class Interrupted(Exception):
    """What a killed process would not say."""


def interrupt(patch: pytest.MonkeyPatch, after: int) -> None:
    """Break off after so many batches of rows."""
    writes, whole = iter(range(10**6)), build._Job._write

    def write(self: Any, batch: Any) -> None:
        if next(writes) == after:
            raise Interrupted
        whole(self, batch)

    patch.setattr(build._Job, "_write", write)


def count_tokenized(patch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    whole = build._Job._tokenize_anew

    def tokenize(self: Any, batch: Any) -> Any:
        counts.append(len(batch))
        return whole(self, batch)

    patch.setattr(build._Job, "_tokenize_anew", tokenize)
    return counts


def stores() -> dict[str, bytes]:
    folder = read_settings().cache / "tokens"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("rows.arrow")}


def clear() -> None:
    for path in (read_settings().cache / "tokens").rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path, reader: Reader) -> Callable[[], Any]:
    """A set with some bad rows, some that are cut and some too long to learn."""
    learn, row = KINDS[request.param]
    rows = [row(n) if n % 97 else {"instruction": ""} for n in range(COUNT)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    return lambda: prepare_files(reader, path, learn=learn, max_tokens=80, on_bad_row="skip")


def test_an_interrupted_run_leaves_rows_that_the_next_takes_up(
    made: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made()
    expected = stores()
    clear()
    for after in (5, 3):  # the second one leaves less, so the first one's rows stay
        with monkeypatch.context() as patch:
            interrupt(patch, after)
            with pytest.raises(Interrupted):
                made()
    with monkeypatch.context() as patch:
        counts = count_tokenized(patch)
        again = made()
    assert stores() == expected
    assert vars(again.report) == vars(whole.report)
    assert 0 < sum(counts) < COUNT - 700
    assert not [*(read_settings().cache / "tokens").glob("*.left")]


@pytest.mark.parametrize("damage", ["torn", "changed", "no sums", "nothing"])
def test_what_is_not_whole_is_made_again(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    learn, row = KINDS["conversation"]
    path = write_rows(tmp_path / "rows.jsonl", [row(n) for n in range(COUNT)])
    prepare_files(reader, path, learn=learn)
    expected = stores()
    clear()
    with monkeypatch.context() as patch:
        interrupt(patch, 6)
        with pytest.raises(Interrupted):
            prepare_files(reader, path, learn=learn)
    (part,) = (read_settings().cache / "tokens").glob("*.part")
    rows = part / "rows.arrow"
    content = bytearray(rows.read_bytes())
    if damage == "torn":
        rows.write_bytes(content[: len(content) * 2 // 3])
    if damage == "changed":
        content[len(content) // 4] ^= 1
        rows.write_bytes(content)
    if damage == "no sums":
        (part / "sums.txt").unlink()
    if damage == "nothing":
        rows.write_bytes(b"")
    prepare_files(reader, path, learn=learn)
    assert stores() == expected


def test_conversations_of_several_rows_are_taken_up_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = make_byte_level(tmp_path / "model", families.THINKING)
    history = [["hi", "<think>\nhm\n</think>\n\nhello"], ["so", "yes"]]
    rows: list[dict[str, Any]] = [
        {"instruction": f"{n}?" + " why" * (n % 90), "output": "it is", "history": history}
        for n in range(700)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    options = {"max_tokens": 120}
    whole = prepare_files(reader, path, **options)
    assert 0 < whole.report.num_cut < whole.report.num_split <= 700
    expected = stores()
    clear()
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Interrupted):
            prepare_files(reader, path, **options)
    again = prepare_files(reader, path, **options)
    assert stores() == expected
    assert vars(again.report) == vars(whole.report)
