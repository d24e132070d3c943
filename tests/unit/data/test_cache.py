"""Tokens are made once and found again only while nothing they depend on has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tokenizer, write_pairs, write_rows
from tests.unit.data.files import write
from tunesmith.data.build import Built, build_store
from tunesmith.data.meaning import find_meaning
from tunesmith.data.rows import Learn
from tunesmith.data.sources import RowSet
from tunesmith.data.store import MANIFEST_FILE, ROWS_FILE
from tunesmith.data.tokenizing import Tokenizing
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.models.tokenizer import load_template, load_tokenizer
from tunesmith.recipe.data import Data
from tunesmith.settings import read_settings


def tokenizing(reader: Reader, path: Path, *, seed: int = 0, **options: Any) -> Tokenizing:
    data = Data(train=(str(path),), **options)
    return Tokenizing(data, Learn("conversation"), reader.tokenizer, reader.template, seed)


def build(how: Tokenizing, path: Path, **options: Any) -> Built:
    rows = RowSet(path.name, (path,), **options)
    return build_store(how, rows, find_meaning(rows, how.options.encoding))


def kept(built: Built) -> Path:
    return read_settings().cache / "tokens" / built.key


def stamp(built: Built) -> tuple[int, int]:
    """Tell one making of the tokens from another."""
    stat = (kept(built) / ROWS_FILE).stat()
    return stat.st_ino, stat.st_mtime_ns


def rows_of(built: Built) -> list[list[int]]:
    assert built.store is not None
    return [built.store.ids(row).tolist() for row in range(len(built.store))]


def test_a_second_call_makes_no_tokens(reader: Reader, pairs: Path) -> None:
    how = tokenizing(reader, pairs)
    first = build(how, pairs)
    made = stamp(first)
    second = build(how, pairs)
    assert stamp(second) == made
    assert rows_of(second) == rows_of(first)
    assert second.report.to_dict() == first.report.to_dict()


def test_the_same_bytes_elsewhere_are_the_same_tokens(
    reader: Reader, pairs: Path, tmp_path: Path
) -> None:
    first = build(tokenizing(reader, pairs), pairs)
    copy = Path(shutil.copy(pairs, tmp_path / "copy.jsonl"))
    second = build(tokenizing(reader, copy), copy)
    assert stamp(second) == stamp(first)
    assert second.report.files == [str(copy)]
    assert second.store is not None
    assert second.store.source(0).place.path == str(copy)


def test_problems_from_the_cache_name_the_file_of_now(reader: Reader, tmp_path: Path) -> None:
    content = '{"instruction": "a", "output": "b"}\n{"\\ud800": 1, "\\ud800": 2}\n'
    for name in ("one.jsonl", "two.jsonl"):
        path = write(tmp_path / name, content)
        built = build(tokenizing(reader, path, on_bad_row="skip"), path)
        expected = f"{path}:2:1: the key `\\ud800` stands in it twice"
        assert [str(problem) for problem in built.report.problems] == [expected]
        assert (built.report.num_read, built.report.num_kept, built.report.num_bad) == (2, 1, 1)


def with_option(name: str, value: object) -> Callable[[Tokenizing], Tokenizing]:
    return lambda how: replace(how, options=how.options.model_copy(update={name: value}))


CHANGES: dict[str, Callable[[Tokenizing], Tokenizing]] = {
    "max_tokens": with_option("max_tokens", 9),
    "on_long_row": with_option("on_long_row", "skip"),
    "system": with_option("system", "be kind"),
    "encoding": with_option("encoding", "gbk"),
    "prompts": lambda how: replace(how, learn=replace(how.learn, prompts=True)),
    "history": lambda how: replace(how, learn=replace(how.learn, history=False)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_change_of_an_option_makes_other_tokens(reader: Reader, pairs: Path, name: str) -> None:
    how = tokenizing(reader, pairs)
    assert build(CHANGES[name](how), pairs).key != build(how, pairs).key


def test_what_does_not_touch_tokens_changes_nothing(reader: Reader, pairs: Path) -> None:
    key = build(tokenizing(reader, pairs), pairs).key
    assert build(tokenizing(reader, pairs, seed=5), pairs).key == key
    others = {"on_bad_row": "skip", "validation_share": 0.5, "workers": 2, "max_rows": 3}
    assert build(tokenizing(reader, pairs, **others), pairs).key == key


def test_any_change_of_the_rows_makes_other_tokens(reader: Reader, pairs: Path) -> None:
    key = build(tokenizing(reader, pairs), pairs).key
    pairs.write_bytes(pairs.read_bytes().replace(b"question 3", b"Question 3"))
    assert build(tokenizing(reader, pairs), pairs).key != key


def test_another_meaning_of_the_columns_makes_other_tokens(reader: Reader, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"instruction": "a", "output": "b", "other": "c"}])
    how = tokenizing(reader, path)
    plain, renamed = build(how, path), build(how, path, columns={"output": "other"})
    assert plain.key != renamed.key
    assert rows_of(plain) != rows_of(renamed)


def test_a_named_format_and_a_guessed_one_are_kept_apart(reader: Reader, tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "label": True}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    how = tokenizing(reader, path, on_bad_row="skip")
    assert len(rows_of(build(how, path))) == 1
    assert len(rows_of(build(how, path, format="alpaca"))) == 2


def test_a_drawn_part_depends_on_the_seed(reader: Reader, pairs: Path) -> None:
    whole = build(tokenizing(reader, pairs), pairs)
    one, two = (build(tokenizing(reader, pairs, seed=s), pairs, max_rows=9) for s in (1, 2))
    assert len({whole.key, one.key, two.key}) == 3
    assert len(rows_of(one)) == len(rows_of(two)) == 9
    assert rows_of(one) != rows_of(two)
    assert all(row in rows_of(whole) for row in rows_of(one))
    assert one.report.num_kept == one.report.num_read == 40


def test_another_template_or_tokenizer_makes_other_tokens(pairs: Path, tmp_path: Path) -> None:
    keys = set()
    for name, template in (("one", "chatml"), ("two", "alpaca"), ("three", "chatml")):
        folder = tmp_path / name
        make_tokenizer(folder, template)
        write(folder / "config.json", '{"model_type": "qwen3"}')
        if name == "three":
            described = json.loads((folder / "tokenizer.json").read_text("utf-8"))
            described["model"]["merges"].pop()
            write(folder / "tokenizer.json", json.dumps(described))
        tokenizer = load_tokenizer(folder)
        reader = Reader(folder, tokenizer, load_template(folder, tokenizer), ())
        keys.add(build(tokenizing(reader, pairs), pairs).key)
    assert len(keys) == 3


def test_truncation_in_a_tokenizer_does_not_change_its_tokens(
    reader_folder: Path, pairs: Path
) -> None:
    tokenizer = load_tokenizer(reader_folder)
    reader = Reader(reader_folder, tokenizer, load_template(reader_folder, tokenizer), ())
    how = tokenizing(reader, pairs)
    first = build(how, pairs)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=99)
    second = build(how, pairs)
    assert second.key == first.key
    assert stamp(second) == stamp(first)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of the rows": lambda folder: flip(folder / ROWS_FILE),
    "a bit of the manifest": lambda folder: flip(folder / MANIFEST_FILE),
    "cut rows": lambda folder: os.truncate(folder / ROWS_FILE, 100),
    "no rows": lambda folder: (folder / ROWS_FILE).unlink(),
    "no manifest": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "empty manifest": lambda folder: os.truncate(folder / MANIFEST_FILE, 0),
    "nothing at all": lambda folder: [path.unlink() for path in folder.iterdir()] and None,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_tokens_are_made_again(reader: Reader, pairs: Path, name: str) -> None:
    how = tokenizing(reader, pairs)
    first = build(how, pairs)
    expected, made = rows_of(first), stamp(first)
    DAMAGES[name](kept(first))
    second = build(how, pairs)
    assert rows_of(second) == expected
    assert stamp(second) != made
    assert stamp(build(how, pairs)) == stamp(second)


def test_what_a_killed_process_left_is_cleared_away(reader: Reader, pairs: Path) -> None:
    how = tokenizing(reader, pairs)
    first = build(how, pairs)
    expected = rows_of(first)
    kept(first).rename(kept(first).with_suffix(".part"))
    os.truncate(kept(first).with_suffix(".part") / ROWS_FILE, 10)
    assert rows_of(build(how, pairs)) == expected
    assert not kept(first).with_suffix(".part").exists()


def test_rows_that_stop_a_run_leave_nothing_in_the_cache(reader: Reader, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"instruction": "a", "output": "b"}\noops\n')
    built = build(tokenizing(reader, path), path)
    assert built.store is None
    assert (built.report.num_read, built.report.num_bad) == (2, 1)
    assert [p.suffix for p in kept(built).parent.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(
    reader: Reader, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(write(tmp_path / "file", "x")))
    with pytest.raises(DataError, match="the tokens cannot be kept: Not a directory") as caught:
        build(tokenizing(reader, pairs), pairs)
    assert "TUNESMITH_CACHE" in caught.value.hint
    assert caught.value.where == str(tmp_path / "file" / "tokens")


CHILD = """
import sys
from pathlib import Path
from tests.unit.data.test_cache import build, kept, stamp, tokenizing
from tunesmith.models.reader import Reader
from tunesmith.models.tokenizer import load_template, load_tokenizer
folder, path = map(Path, sys.argv[1:])
tokenizer = load_tokenizer(folder)
how = tokenizing(Reader(folder, tokenizer, load_template(folder, tokenizer), ()), path)
print("ready", flush=True)
sys.stdin.readline()
built = build(how, path)
print(built.key, *stamp(built), built.report.num_kept, len(built.store))
"""


def test_two_processes_at_once_make_the_tokens_once(
    reader_folder: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    path = write_pairs(tmp_path / "many.jsonl", 3000)
    command = [sys.executable, "-c", CHILD, str(reader_folder), str(path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, cwd=pytestconfig.rootpath, **pipes) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60)[0] for child in children]
    assert answers[0] == answers[1]
    assert answers[0].endswith(" 3000 3000\n")
