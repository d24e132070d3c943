"""Small benchmarks of our own content, in the layouts in which the great ones are published."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from tests import tiny

COLOURS = ["red", "green", "blue", "white", "black", "brown", "grey", "pink"]
HUES = ["红色", "绿色", "蓝色", "白色", "黑色", "棕色", "灰色", "粉色"]
LETTERS = "ABCD"
LONG = {"max_position_embeddings": 2048}
"""What a model must take for questions with examples before them."""


def quiz(number: int, *, zh: bool = False) -> list[str]:
    """Make a question with four choices and the letter of the right one."""
    names = HUES if zh else COLOURS
    choices = [names[(number + step) % len(names)] for step in range(4)]
    asked = f"第{number}号杯子是什么颜色?" if zh else f'What, "of old", is cup {number}?'
    return [asked, *choices, LETTERS[number * 3 % 4]]


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_mmlu(folder: Path, count: int = 6) -> Path:
    for subject, start in (("anatomy", 0), ("high_school_physics", 50)):
        for split, first in (("dev", 100), ("val", 200), ("test", 300)):
            number = 5 if split == "dev" else count
            rows = [quiz(start + first + step) for step in range(number)]
            write_table(folder / split / f"{subject}_{split}.csv", rows)
    return folder


def write_ceval(folder: Path, count: int = 6) -> Path:
    names = ["id", "question", "A", "B", "C", "D", "answer"]
    for subject, start in (("law", 0), ("logic", 50)):
        rows = [[step, *quiz(start + step, zh=True)] for step in range(count)]
        write_table(folder / "val" / f"{subject}_val.csv", [names, *rows])
        rows = [[step, *quiz(start + 100 + step, zh=True), "因为如此"] for step in range(5)]
        write_table(folder / "dev" / f"{subject}_dev.csv", [[*names, "explanation"], *rows])
    return folder


def write_cmmlu(folder: Path, count: int = 6) -> Path:
    names = ["", "Question", "A", "B", "C", "D", "Answer"]
    for subject, start in (("arts", 0), ("chinese_history", 50)):
        for split, first in (("dev", 100), ("test", 300)):
            rows = [[step, *quiz(start + first + step, zh=True)] for step in range(count)]
            write_table(folder / split / f"{subject}.csv", [names, *rows])
    return folder


def write_agieval(folder: Path, count: int = 6) -> Path:
    def row(number: int, *, zh: bool) -> dict[str, object]:
        text, *choices, right = quiz(number, zh=zh)
        options = [f"({letter}){choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
        passage = "There are many cups." if number % 2 else None
        return {"passage": passage, "question": text, "options": options, "label": right}

    several = {**row(9, zh=True), "label": ["A", "C"]}
    cloze = {"passage": None, "question": "2 + 2 = ?", "options": None, "label": None, "answer": 4}
    tiny.write_rows(folder / "logiqa-en.jsonl", [row(step, zh=False) for step in range(count)])
    zh = [row(step, zh=True) for step in range(count)]
    tiny.write_rows(folder / "gaokao-physics.jsonl", [*zh, several])
    tiny.write_rows(folder / "math.jsonl", [cloze])
    return folder


def write_gsm8k(folder: Path, count: int = 6) -> Path:
    def row(number: int) -> dict[str, str]:
        total = f"{number} + {number} = <<{number}+{number}={2 * number}>>{2 * number}"
        return {
            "question": f"Two boxes hold {number} cups each. How many cups?",
            "answer": f"They hold {total} cups.\n#### {2 * number}",
        }

    tiny.write_rows(folder / "test.jsonl", [row(step) for step in range(count)])
    tiny.write_rows(folder / "train.jsonl", [row(100 + step) for step in range(5)])
    return folder


def write_own(path: Path, count: int = 6, **more: object) -> Path:
    rows = []
    for number in range(count):
        text, *choices, right = quiz(number)
        answer = right if number % 2 else LETTERS.index(right)
        rows.append({"question": text, "choices": choices, "answer": answer, **more})
    return tiny.write_rows(path, rows)


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
