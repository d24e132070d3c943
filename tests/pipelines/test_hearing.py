"""A model that hears: trained on conversations with sounds, asked, exported; bad ones named."""

from __future__ import annotations

import base64
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForMultimodalLM

from tests import seeing, tiny
from tunesmith.data.media.sounds import read_sound
from tunesmith.data.prepare import prepare
from tunesmith.errors import DataError, MissingPackage, RequestError
from tunesmith.export.export import export
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.methods import build_method
from tunesmith.methods.classify import learn_of
from tunesmith.methods.method import Joining
from tunesmith.models.chat import load_chat_model
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.models.seeing import let_see
from tunesmith.recipe.data import Data
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.method import SFT
from tunesmith.serving.schema.messages import ChatMessage
from tunesmith.templates import PLACES
from tunesmith.training.train import train

PITCHES = {"low": 300, "high": 3000}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spread = {"initializer_range": 0.1}
    folder = tmp_path_factory.mktemp("models") / "hears"
    return seeing.make_seeing_model(folder, "Qwen 2 Audio", vision=spread, **spread)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    found = []
    for label, pitch in PITCHES.items():
        for number in range(4):
            seconds = 0.3 + 0.05 * number
            seeing.write_sound(
                tmp_path / f"{label}{number}.wav", pitch + 20 * number, seconds=seconds
            )
            row = {"instruction": "<audio>high or low?", "output": label}
            found.append({**row, "audios": [f"{label}{number}.wav"]})
    return tiny.write_rows(tmp_path / "rows.jsonl", found)


def test_loss_and_gradients_are_those_of_transformers(model: Path, rows: Path) -> None:
    reader = find_reader(model)
    assert reader.senses is not None
    method = build_method(SFT())
    data = Data(train=(str(rows),), max_tokens=256)
    found = prepare(data, learn_of(method, reader), reader.tokenizer, reader.template, seed=0).train
    mine: Any = load_model(model, dtype=torch.float32, device=torch.device("cpu")).eval()
    let_see(mine, reader.senses)
    batch = method.collate([found[0], found[5]], Joining(flat=False))
    summed = method.loss(mine, batch)
    (summed.total / summed.count).backward()
    theirs: Any = AutoModelForMultimodalLM.from_pretrained(str(model)).eval()
    losses = []
    for row, name in ((found[0], "low0.wav"), (found[5], "high1.wav")):
        sound = read_sound((rows.parent / name).read_bytes(), Path(name)).numbers
        text = seeing.HEARS["written"] + "high or low?"
        given = reader.senses.processor(
            text=[text], audio=[sound], sampling_rate=16_000, return_tensors="pt"
        )
        ids = torch.tensor([row["input_ids"]])
        count = int((given["input_ids"] == reader.senses.processor.audio_token_id).sum())
        assert int((ids == reader.senses.processor.audio_token_id).sum()) == count > 5
        sounds = {name: given[name] for name in ("input_features", "feature_attention_mask")}
        labels = torch.tensor([row["labels"]])
        learned = int((labels != -100).sum())
        whole = {"attention_mask": torch.ones_like(ids), "labels": labels}
        losses.append(theirs(input_ids=ids, **sounds, **whole).loss * learned)
    expected = torch.stack(losses).sum() / summed.count
    expected.backward()
    assert summed.total.item() / summed.count == pytest.approx(expected.item(), abs=1e-6)
    wanted = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    for name, weight in mine.named_parameters():
        if weight.grad is not None:
            allowed = max(1e-6, 1e-5 * float(wanted[name].abs().max()))
            torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-4, atol=allowed)


@pytest.mark.proof
def test_it_comes_to_tell_pitches_and_is_exported(tmp_path: Path, model: Path, rows: Path) -> None:
    recipe = tiny.write_recipe(
        tmp_path / "recipe.json",
        model,
        rows,
        tuning={"kind": "full", "parts": ["language", "projector", "tower"]},
        optimizer={"learning_rate": 3e-3},
        run={"steps": 100},
    )
    run = train(load_recipe(recipe))
    tuned = load_chat_model(run.name, precision="fp32", device="cpu")
    for label, pitch in PITCHES.items():
        sound = seeing.write_sound(tmp_path / "new.wav", pitch + 10)
        content = PLACES["audio"] + "high or low?"
        talk = [{"role": "user", "content": content, "media": [["audio", str(sound), ""]]}]
        (given,) = answer(tuned, [encode_prompt(tuned, talk)], Sampling(max_tokens=6))
        assert given.text == label
    assert export(run.name, tmp_path / "out").distance.top1 == 1.0


def test_sounds_that_cannot_be_heard_are_named(tmp_path: Path, model: Path) -> None:
    seeing.write_sound(tmp_path / "long.wav", 300, seconds=1.5)
    seeing.write_sound(tmp_path / "slow.wav", 300, rate=8_000, seconds=1.5)
    whole = seeing.write_sound(tmp_path / "whole.wav", 300).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:500])
    (tmp_path / "song.mp3").write_bytes(b"ID3" + bytes(100))
    (tmp_path / "none.wav").write_bytes(b"")
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 8000), 16_000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:4000])
    reasons = {
        "long.wav": "it lasts 1.5 s, the model hears 1 s at once",
        "slow.wav": "it lasts 1.5 s, the model hears 1 s at once",
        "cut.wav": "is damaged: it is shorter than it says",
        "song.mp3": "is no sound that can be read",
        "none.wav": "is no sound that can be read",
        "cut.flac": "is damaged",
    }
    for name, reason in reasons.items():
        row = {"instruction": "<audio>what?", "output": "a", "audios": [name]}
        data = tiny.write_rows(tmp_path / "rows.jsonl", [row])
        with pytest.raises(DataError, match=reason):
            train(load_recipe(tiny.write_recipe(tmp_path / "recipe.json", model, data)))


def test_a_prompt_brings_its_sound_along(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 400 * np.arange(22_050) / 44_100)
    soundfile.write(tmp_path / "a.mp3", np.stack([tone, tone], axis=1), 44_100)
    content = base64.b64encode((tmp_path / "a.mp3").read_bytes()).decode()
    part = {"type": "input_audio", "input_audio": {"data": content, "format": "mp3"}}
    sent = ChatMessage.model_validate({"role": "user", "content": [part]}).plain()
    lies = {**sent, "media": [["audio", str(tmp_path / "a.mp3"), ""]]}
    hears = load_chat_model(model, precision="fp32", device="cpu")
    prompts = [encode_prompt(hears, [message]) for message in (sent, lies)]
    assert prompts[0] == prompts[1]
    given = answer(hears, prompts, Sampling(max_tokens=4))
    assert given[0].tokens == given[1].tokens
    monkeypatch.setattr("tunesmith.data.media.medium.MOST_HEARD", 22_049)
    with pytest.raises(
        RequestError, match=r"all sounds have [0-9,]+ samples together, over 22,049"
    ):
        encode_prompt(hears, [sent])


def missing(module: str, *, extra: str) -> Any:
    raise MissingPackage(f"no {module}", hint=f"pip install 'tunesmith[{extra}]'")


def test_without_the_extra_it_is_named(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(800), 16_000)
    seeing.write_sound(tmp_path / "fast.wav", 300, rate=44_100)
    monkeypatch.setattr("tunesmith.data.media.sounds.require", missing)
    monkeypatch.setattr("tunesmith.models.senses.require", missing)
    for name, reason in {
        "a.flac": r"is no WAV file of plain numbers: .*tunesmith\[audio\]",
        "fast.wav": r"44,100 samples a second, the model hears 16,000; .*tunesmith\[audio\]",
    }.items():
        row = {"instruction": "<audio>what?", "output": "a", "audios": [name]}
        data = tiny.write_rows(tmp_path / "rows.jsonl", [row])
        with pytest.raises(DataError, match=reason):
            train(load_recipe(tiny.write_recipe(tmp_path / "recipe.json", model, data)))


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff", "float.wav"])
def test_a_tone_sounds_alike_from_files_of_every_kind_and_rate(
    tmp_path: Path, model: Path, name: str
) -> None:
    senses = find_reader(model).senses
    assert senses is not None
    subtype = "FLOAT" if name == "float.wav" else None
    for rate in (8_000, 16_000, 44_100, 48_000):
        tone = 0.5 * np.sin(2 * np.pi * 400 * np.arange(rate // 2) / rate)
        both = np.stack([tone * 1.5, tone * 0.5], axis=1)  # the mean is the tone
        soundfile.write(tmp_path / name, both, rate, subtype=subtype)
        sound = read_sound((tmp_path / name).read_bytes(), tmp_path / name)
        assert sound.rate == rate
        heard = senses._hear(sound)
        expected = 0.5 * np.sin(2 * np.pi * 400 * np.arange(len(heard)) / 16_000)
        lossy = name in ("a.mp3", "a.ogg")
        assert abs(len(heard) - 8_000) <= (600 if lossy else 1)
        middle = slice(2000, 6000)
        if name == "a.mp3":  # its encoder begins with silence
            assert np.sqrt((heard[middle] ** 2).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.05)
        else:
            allowed = 0.05 if lossy else 2e-3
            np.testing.assert_allclose(heard[middle], expected[middle], atol=allowed)


@pytest.mark.parametrize(("width", "kind"), [(1, np.uint8), (2, "<i2"), (3, None), (4, "<i4")])
def test_numbers_of_every_width_are_read_alike(tmp_path: Path, width: int, kind: Any) -> None:
    values = np.linspace(-0.9, 0.9, 50)
    whole = np.round(values * 2 ** (8 * width - 1)).astype(np.int64)
    if kind is None:
        raw = b"".join(int(value).to_bytes(3, "little", signed=True) for value in whole)
    else:
        raw = (whole + 128 * (width == 1)).astype(kind).tobytes()
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(b"".join(raw[i : i + width] * 2 for i in range(0, len(raw), width)))
    sound = read_sound(path.read_bytes(), path)
    assert sound.rate == 8000
    np.testing.assert_allclose(sound.numbers, values, atol=1.01 / 2 ** (8 * width - 1) + 1e-7)
