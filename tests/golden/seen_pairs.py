"""Pairs and judged answers that show images, for our methods and for transformers' own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tests import seeing, tiny
from tunesmith.models.reader import Reader

if TYPE_CHECKING:
    from PIL import Image

WORDS = ("<image>which colour?", "is <image> like <image>?", "what is it?")
PICTURES: Sequence[Sequence[Image.Image]] = (
    [seeing.make_picture("red")],
    [seeing.make_picture("blue", 1), seeing.make_picture("green", 2)],
    [],
)
CHOSEN = ("It is red.", "no", "It is 7, I think.")
REJECTED = ("blue", "yes, they are quite the same", "the lazy dog")
Gradients = dict[str, torch.Tensor]


def write_pairs(folder: Path) -> Path:
    return tiny.write_rows(
        folder / "pairs.jsonl",
        [
            {"instruction": words, "chosen": one, "rejected": other, "images": names}
            for words, names, one, other in zip(
                WORDS, save_pictures(folder), CHOSEN, REJECTED, strict=True
            )
        ],
    )


def write_judged(folder: Path) -> Path:
    return tiny.write_rows(
        folder / "judged.jsonl",
        [
            {"instruction": words, "output": said, "images": names, "label": number % 2 == 0}
            for number, (words, names, said) in enumerate(
                zip(WORDS, save_pictures(folder), CHOSEN, strict=True)
            )
        ],
    )


def write_questions(folder: Path) -> Path:
    return tiny.write_rows(
        folder / "questions.jsonl",
        [
            {"prompt": words, "images": names}
            for words, names in zip(WORDS, save_pictures(folder), strict=True)
        ],
    )


def save_pictures(folder: Path) -> list[list[str]]:
    named = []
    for number, shown in enumerate(PICTURES):
        names = [f"{number}-{at}.png" for at in range(len(shown))]
        for name, image in zip(names, shown, strict=True):
            image.save(folder / name)
        named.append(names)
    return named


@dataclass(frozen=True)
class Theirs:
    """A row as transformers' processor writes it, and the span of its answer."""

    given: Any
    span: tuple[int, int]


def theirs_of(reader: Reader, number: int, answer: str) -> Theirs:
    """Let the family's processor write question and answer as its users do."""
    written: list[dict[str, str]] = []
    for at, text in enumerate(WORDS[number].split("<image>")):
        written += [{"type": "image"}] if at else []
        written += [{"type": "text", "text": text}] if text else []
    asked = [{"role": "user", "content": written}]
    talk = [*asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    shown = {"images": [list(PICTURES[number])]} if PICTURES[number] else {}
    assert reader.senses is not None
    process, write = reader.senses.processor, reader.tokenizer.apply_chat_template
    before = process(
        text=[write(asked, tokenize=False, add_generation_prompt=True)], **shown,
        return_tensors="pt",
    )  # fmt: skip
    given = process(text=[write(talk, tokenize=False)], **shown, return_tensors="pt")
    ids = given["input_ids"][0].tolist()
    end = reader.tokenizer.convert_tokens_to_ids("<|im_end|>")
    last = len(ids) - 1 - ids[::-1].index(end)
    return Theirs(given, (before["input_ids"].shape[1], last + 1))


def logps_of(model: Any, row: Theirs) -> torch.Tensor:
    """Log p of each token of the answer, as transformers' model says, alone and unpadded."""
    start, end = row.span
    logits = model(**row.given).logits[0, start - 1 : end - 1].float()
    targets = row.given["input_ids"][0, start:end]
    return torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]


def gradients(model: Any) -> Gradients:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_same(
    mine: tuple[Any, Gradients], theirs: tuple[Any, Gradients], tower: str = "vis"
) -> None:
    torch.testing.assert_close(mine[0].float(), theirs[0].float(), rtol=1e-5, atol=1e-6)
    assert mine[1].keys() == theirs[1].keys()
    assert any(tower in name for name in mine[1])
    for name, wanted in theirs[1].items():
        allowed = max(1e-6, 1e-5 * float(wanted.abs().max()))
        torch.testing.assert_close(mine[1][name], wanted, rtol=1e-4, atol=allowed, msg=name)
