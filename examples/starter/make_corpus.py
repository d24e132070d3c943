"""Write the corpus of the starter model: texts to pretrain on, conversations, held-out rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from conversations import Conversations
from values import Values, read_words

LANGUAGES = ("en", "zh")


def main() -> None:
    """Write the files; the same arguments give the same bytes on every machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=130_000)
    parser.add_argument("--conversations", type=int, default=110_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    _write(options.folder / "texts.jsonl", _texts(options.texts, seed=1))
    _write(options.folder / "texts_heldout.jsonl", _texts(1_000, seed=2, held_out=True))
    _write(options.folder / "chats.jsonl", _chats(options.conversations, seed=3))
    _write(options.folder / "chats_heldout.jsonl", _chats(1_000, seed=4, held_out=True))


def _drawers(seed: int, *, held_out: bool, quoting: bool = False) -> list[Conversations]:
    random = Random(seed)
    return [
        Conversations(Values(random, language, read_words(language), held_out), quoting=quoting)
        for language in LANGUAGES
    ]


def _texts(count: int, *, seed: int, held_out: bool = False) -> Iterator[dict[str, object]]:
    drawers = _drawers(seed, held_out=held_out)
    for number in range(count):
        yield {"text": drawers[number % 2].text()}


def _chats(count: int, *, seed: int, held_out: bool = False) -> Iterator[dict[str, object]]:
    drawers = _drawers(seed, held_out=held_out, quoting=True)
    for number in range(count):
        yield {"messages": drawers[number % 2].draw()}


def _write(path: Path, rows: Iterator[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
