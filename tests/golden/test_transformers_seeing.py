"""Rows that show images: tokens, loss and gradients equal those of transformers' own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import seeing, tiny
from tests.golden.shown import assert_learned_alike, read_rows
from tunesmith.models.reader import Reader, find_reader

if TYPE_CHECKING:
    from PIL import Image

FAMILIES = [family for family in seeing.FAMILIES if family not in seeing.REFUSED]
PADDED = {"Gemma 3"}
"""Families whose images are seen by both sides, which rows laid end to end do not give."""
WORDS = ("<image>which colour?", "is <image> like <image>?", "what is it?")
PICTURES: Sequence[Sequence[Image.Image]] = (
    [seeing.make_picture("red")],
    [seeing.make_picture("blue", 1), seeing.make_picture("green", 2)],
    [],
)
ANSWERS = ("red", "no", "It is 7.")


def write_rows(folder: Path) -> Path:
    rows = []
    for number, (words, shown, answer) in enumerate(zip(WORDS, PICTURES, ANSWERS, strict=True)):
        names = [f"{number}-{at}.png" for at in range(len(shown))]
        for name, image in zip(names, shown, strict=True):
            image.save(folder / name)
        rows.append({"instruction": words, "output": answer, "images": names})
    return tiny.write_rows(folder / "rows.jsonl", rows)


def theirs_of(reader: Reader, number: int) -> Any:
    """Let transformers' processor write a row as its users do."""
    written: list[dict[str, str]] = []
    for at, text in enumerate(WORDS[number].split("<image>")):
        written += [{"type": "image"}] if at else []
        written += [{"type": "text", "text": text}] if text else []
    talk = [
        {"role": "user", "content": written},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[number]}]},
    ]
    assert reader.senses is not None
    text = reader.tokenizer.apply_chat_template(talk, tokenize=False)
    shown = {"images": [list(PICTURES[number])]} if PICTURES[number] else {}
    return reader.senses.processor(text=[text], **shown, return_tensors="pt")


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # GLM 4V's own code
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_loss_and_gradients_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    reader = find_reader(folder)
    rows = read_rows(reader, write_rows(tmp_path), 256)
    assert_learned_alike(folder, reader, rows, theirs_of, padded=family in PADDED)


@pytest.mark.parametrize("family", sorted(seeing.REFUSED))
def test_a_family_whose_processor_lacks_a_package_says_which(tmp_path: Path, family: str) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    senses = find_reader(folder).senses
    assert senses is not None
    assert seeing.REFUSED[family] in senses.why_not("image")
