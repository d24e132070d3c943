"""Rows that show images: tokens, loss and gradients equal those of transformers' own code."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests import seeing, tiny
from tunesmith.data.prepare import prepare
from tunesmith.data.token_rows import TokenRows
from tunesmith.methods import build_method
from tunesmith.methods.classify import learn_of
from tunesmith.methods.method import Joining
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model
from tunesmith.models.reader import Reader, find_reader
from tunesmith.models.seeing import let_see
from tunesmith.recipe.data import Data
from tunesmith.recipe.method import SFT

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


def read_rows(reader: Reader, folder: Path) -> TokenRows:
    learn = learn_of(build_method(SFT()), reader)
    data = Data(train=(str(write_rows(folder)),), max_tokens=256)
    return prepare(data, learn, reader.tokenizer, reader.template, seed=0).train


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # GLM 4V's own code
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_loss_and_gradients_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    reader = find_reader(folder)
    assert reader.senses is not None
    rows = read_rows(reader, tmp_path)
    device = torch.device("cpu")
    mine = load_model(folder, dtype=torch.float32, device=device).eval()
    theirs: Any = copy.deepcopy(mine)
    let_see(mine, reader.senses)
    layout = find_layout(mine)
    assert bool(layout.padded_because) == (family in PADDED), layout.padded_because

    losses, learned = [], 0
    for number in range(len(rows)):
        given, row = theirs_of(reader, number), rows[number]
        ids = given["input_ids"][0].tolist()
        assert row["input_ids"] == ids[: len(row["input_ids"])]  # the template writes a newline
        labels = torch.full_like(given["input_ids"], -100)
        labels[0, : len(row["labels"])] = torch.tensor(row["labels"])
        count = sum(label != -100 for label in row["labels"])
        losses.append(theirs(**given, labels=labels).loss * count)
        learned += count
    expected = torch.stack(losses).sum() / learned
    expected.backward()

    method = build_method(SFT())
    for flat in {layout.is_flat, False}:
        mine.zero_grad()
        batch = method.collate([rows[n] for n in range(len(rows))], Joining(flat=flat))
        summed = method.loss(mine, batch)
        (summed.total / summed.count).backward()
        assert summed.total.item() / summed.count == pytest.approx(expected.item(), abs=1e-6)
        found = {n: p.grad for n, p in mine.named_parameters() if p.grad is not None}
        wanted = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
        assert found.keys() == wanted.keys()
        assert any("vis" in name for name in found)
        for name, gradient in found.items():
            allowed = max(1e-6, 1e-5 * float(wanted[name].abs().max()))
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=allowed, msg=name)


@pytest.mark.parametrize("family", sorted(seeing.REFUSED))
def test_a_family_whose_processor_lacks_a_package_says_which(tmp_path: Path, family: str) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    senses = find_reader(folder).senses
    assert senses is not None
    assert seeing.REFUSED[family] in senses.why_not("image")
