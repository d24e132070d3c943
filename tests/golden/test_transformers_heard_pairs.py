"""Pairs and judged answers to sounds equal those of transformers' model, a row at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from tests import seeing, tiny
from tests.golden.pairs import Rows, moved
from tests.golden.seen_pairs import Theirs, check_same, gradients, logps_of
from tests.golden.test_transformers_seen_pairs import learn_once, load, read_rows, text_of
from tunesmith.data.media.sounds import read_sound
from tunesmith.methods import build_method
from tunesmith.methods.method import Joining, Row
from tunesmith.methods.reference import reference_logps
from tunesmith.models.layout import find_layout
from tunesmith.models.reader import Reader
from tunesmith.recipe.method import DPO, KTO

BETA = 0.3
PADDED = Joining(flat=False)
WORDS = ("<audio>high or low?", "is <audio> higher than <audio>?", "what is it?")
PITCHES = ((300,), (3000, 700), ())
CHOSEN = ("It is low.", "yes", "It is 7, I think.")
REJECTED = ("high", "no, they are quite the same", "the lazy dog")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing.make_seeing_model(tmp_path_factory.mktemp("models") / "hears", "Qwen 2 Audio")


def write_sounds(folder: Path) -> list[list[str]]:
    """Write sounds of different lengths."""
    named = [[f"{pitch}.wav" for pitch in pitches] for pitches in PITCHES]
    for pitch in (pitch for pitches in PITCHES for pitch in pitches):
        seeing.write_sound(folder / f"{pitch}.wav", pitch, seconds=0.2 + pitch / 8000)
    return named


def write_pairs(folder: Path) -> Path:
    found = zip(WORDS, write_sounds(folder), CHOSEN, REJECTED, strict=True)
    rows = [
        {"instruction": words, "chosen": one, "rejected": other, "audios": names}
        for words, names, one, other in found
    ]
    return tiny.write_rows(folder / "pairs.jsonl", rows)


def write_judged(folder: Path) -> Path:
    found = enumerate(zip(WORDS, write_sounds(folder), CHOSEN, strict=True))
    rows = [
        {"instruction": words, "output": said, "audios": names, "label": number % 2 == 0}
        for number, (words, names, said) in found
    ]
    return tiny.write_rows(folder / "judged.jsonl", rows)


def theirs_of(reader: Reader, folder: Path, number: int, answer: str) -> Theirs:
    """Let the family's processor write question and answer, and listen to the files."""
    written: list[dict[str, str]] = []
    for at, text in enumerate(WORDS[number].split("<audio>")):
        written += [{"type": "audio"}] if at else []
        written += [{"type": "text", "text": text}] if text else []
    asked = [{"role": "user", "content": written}]
    talk = [*asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    assert reader.senses is not None
    process, write = reader.senses.processor, reader.tokenizer.apply_chat_template
    files = [folder / f"{pitch}.wav" for pitch in PITCHES[number]]
    sounds = [read_sound(file.read_bytes(), file).numbers for file in files]
    heard = {"audio": sounds, "sampling_rate": 16_000} if sounds else {}
    before, given = (
        process(
            text=[write(turns, tokenize=False, add_generation_prompt=turns is asked)],
            **heard,
            return_tensors="pt",
        )
        for turns in (asked, talk)
    )
    ids = given["input_ids"][0].tolist()
    end = reader.tokenizer.convert_tokens_to_ids("<|im_end|>")
    last = len(ids) - 1 - ids[::-1].index(end)
    return Theirs(given, (before["input_ids"].shape[1], last + 1))


def referred(mine: Any, method: Any, rows: list[Row]) -> list[Row]:
    """Note what the base says of the rows, as a run does before it begins."""
    known = reference_logps(mine, method, Rows(rows), how=PADDED, tokens=90)  # type: ignore[arg-type]
    assert known is not None
    return [{**row, "reference": one.tolist()} for row, one in zip(rows, known, strict=True)]


def test_dpo_on_sounds_equals_transformers_in_loss_and_gradients(
    tmp_path: Path, model: Path
) -> None:
    base, mine, theirs, reader = load(model)
    method = build_method(DPO(beta=BETA))
    rows = read_rows(method, reader, write_pairs(tmp_path))
    assert not find_layout(mine).is_flat
    rows = referred(mine, method, rows)
    for each in (mine, theirs):
        moved(each, "")
    gains = []
    for number, answers in enumerate(zip(CHOSEN, REJECTED, strict=True)):
        pair = [theirs_of(reader, tmp_path, number, answer) for answer in answers]
        with torch.no_grad():
            before = [logps_of(base, one).sum() for one in pair]
        now = [logps_of(theirs, one).sum() for one in pair]
        gains.append((now[0] - before[0]) - (now[1] - before[1]))
    expected = -logsigmoid(BETA * torch.stack(gains)).mean()
    expected.backward()
    assert abs(expected.item() - 0.6931) > 1e-3
    loss = learn_once(method, mine, rows, PADDED)
    both = (loss, gradients(mine)), (expected.detach(), gradients(theirs))
    check_same(*both, tower="audio_tower")


def test_kto_on_sounds_equals_transformers_in_loss_and_gradients(
    tmp_path: Path, model: Path
) -> None:
    base, mine, theirs, reader = load(model)
    method = build_method(KTO(beta=BETA, undesirable_weight=0.7))
    rows = read_rows(method, reader, write_judged(tmp_path))
    rows = referred(mine, method, rows)
    for each in (mine, theirs):
        moved(each, "")
    own = [theirs_of(reader, tmp_path, number, answer) for number, answer in enumerate(CHOSEN)]
    others = [other_of(reader, tmp_path, number, row) for number, row in enumerate(rows)]
    with torch.no_grad():
        drawn = [logps_of(theirs, one).sum() - logps_of(base, one).sum() for one in others]
        kl = torch.stack(drawn).mean().clamp(min=0)
        old = [logps_of(base, one).sum() for one in own]
    losses = []
    for number, one in enumerate(own):
        ratio = logps_of(theirs, one).sum() - old[number]
        gain, weight = (ratio - kl, 1.0) if number % 2 == 0 else (kl - ratio, 0.7)
        losses.append(weight * (1 - torch.sigmoid(BETA * gain)))
    expected = torch.stack(losses).mean()
    expected.backward()
    loss = learn_once(method, mine, rows, PADDED)
    both = (loss, gradients(mine)), (expected.detach(), gradients(theirs))
    check_same(*both, tower="audio_tower")


def other_of(reader: Reader, folder: Path, number: int, row: Row) -> Theirs:
    """The other row's answer that a row was given, which may be cut."""
    taken = [token for token in row["mismatched"]["labels"] if token >= 0]
    (text,) = (said for said in CHOSEN if said.startswith(text_of(reader, taken)))
    theirs = theirs_of(reader, folder, number, text)
    start = theirs.span[0]
    assert theirs.given["input_ids"][0, start:].tolist()[: len(taken)] == taken
    return Theirs(theirs.given, (start, start + len(taken)))
