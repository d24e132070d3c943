"""A model that sees videos: trained, taken up again, asked, measured, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests import seeing, tiny, videos
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tunesmith.data.media import medium
from tunesmith.errors import DataError, RequestError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.session import ChatSession
from tunesmith.models.chat import load_chat_model
from tunesmith.models.senses import load_senses
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.templates import PLACES
from tunesmith.training.train import resume, train

ALL = ["language", "projector", "tower"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing.make_seeing_model(tmp_path_factory.mktemp("models") / "model", "Qwen 2.5 VL")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ask whether a video becomes lighter or darker: no frame alone says so."""
    folder, found = tmp_path / "rows", []
    folder.mkdir()
    for number, colour in enumerate(videos.COLOURS.values()):
        frames = light(colour)
        for label, shown in (("lighter", frames), ("darker", frames[::-1])):
            name: object = f"{label}{number}"
            if number == 0:
                videos.write_film(folder / f"{name}.mp4", shown)
                name = f"{name}.mp4"
            elif number == 1:
                videos.write_animation(folder / f"{name}.gif", shown)
                name = f"{name}.gif"
            else:
                stills = videos.write_stills(folder / f"{name}", shown[::3])
                name = [f"{name}/{still}" for still in stills]
            found.append({"instruction": "<video>how?", "output": label, "videos": [name]})
    return tiny.write_rows(folder / "rows.jsonl", found)


def light(colour: tuple[int, int, int]) -> videos.Frames:
    frames = videos.make_frames(12, size=(16, 16), colour=colour).astype(float)
    scale = torch.linspace(0.1, 1, 12).numpy()[:, None, None, None]
    return (frames * scale).astype("uint8")


def train_seeing(folder: Path, model: Path, rows: Path, /, **sections: Any) -> Run:
    usual = {"run": {"steps": 4}, "evaluate": {"sample_rows": 1, "sample_tokens": 4}}
    path = tiny.write_recipe(folder / "recipe.json", model, rows, **{**usual, **sections})
    return train(load_recipe(path))


@pytest.mark.proof
def test_it_comes_to_tell_what_happens_and_is_exported(
    tmp_path: Path, model: Path, rows: Path, command: Command
) -> None:
    run = train_seeing(
        tmp_path,
        model,
        rows,
        tuning={"kind": "full", "parts": ALL},
        optimizer={"learning_rate": 3e-3},
        run={"steps": 60},
    )
    tuned = load_chat_model(run.name, precision="fp32", device="cpu")
    scores = evaluate(run.name, data=[rows])
    assert scores.tuned.exact_match == 1.0
    assert export(run.name, tmp_path / "out").distance.top1 == 1.0
    told = command("data", "show", tmp_path / "recipe.json", "--row", "1")
    assert (told.code, "video_pad" in told.out) == (0, True)

    session = ChatSession(tuned, Sampling(max_tokens=6))
    session.show("video", rows.with_name("darker0.mp4"))
    said = "".join(session.ask("how?"))
    assert said == "darker"
    session.save(tmp_path / "talk.jsonl")
    (kept,) = map(json.loads, (tmp_path / "talk.jsonl").read_text("utf-8").splitlines())
    assert kept["messages"][0]["content"][0] == {
        "type": "video",
        "video": str(rows.with_name("darker0.mp4")),
    }
    again = train_seeing(tmp_path, model, tmp_path / "talk.jsonl", run={"steps": 1})
    assert len(again.metrics()) > 0

    theirs: Any = AutoModelForImageTextToText.from_pretrained(str(tmp_path / "out"))
    senses = load_senses(tmp_path / "out", load_tokenizer(tmp_path / "out"))
    shown = medium.open_all([medium.Medium("video", str(rows.with_name("darker0.mp4")))])
    text = "<|im_start|>user\n<|vision_start|>VIDEO<|vision_end|>how?<|im_end|>\n"
    text = text.replace("VIDEO", senses.spell(shown[0])) + "<|im_start|>assistant\n"
    ids = tuned.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    types = torch.zeros_like(ids)
    types[ids == senses.processor.video_token_id] = 2
    whole = theirs.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=types,
        **{name: torch.as_tensor(value) for name, value in senses.numbers([shown]).items()},
        max_new_tokens=6,
        do_sample=False,
    )
    written = whole[0, ids.shape[1] :].tolist()
    assert tuned.tokenizer.decode(written, skip_special_tokens=True) == "darker"


@pytest.mark.proof
def test_a_stopped_run_goes_on_to_the_same_weights_and_not_over_another_video(
    tmp_path: Path, model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.weights(train_seeing(tmp_path, model, rows))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        run = train_seeing(tmp_path, model, rows)
    film = rows.with_name("lighter0.mp4")
    kept = film.read_bytes()
    videos.write_film(film, videos.make_frames(5, size=(16, 16)))
    with pytest.raises(Exception, match="data"):
        resume(Run(run.path))
    film.write_bytes(kept)
    resume(Run(run.path))
    after = tiny.weights(run)
    assert all(torch.equal(weight, after[name]) for name, weight in expected.items())


def test_fewer_and_smaller_frames_take_fewer_tokens(
    tmp_path: Path, model: Path, rows: Path, command: Command
) -> None:
    counts = []
    for options in ({}, {"video_frames": 2}, {"video_fps": 10.0}, {"video_pixels": 64}):
        recipe = tiny.write_recipe(tmp_path / "recipe.json", model, rows, data=options)
        told = command("data", "show", recipe, "--row", "1")
        assert told.code == 0, told.err
        counts.append(told.out.count("video_pad"))
    usual, fewer, more, smaller = counts
    assert fewer < usual < more
    assert smaller < usual


@pytest.mark.proof
def test_a_run_shows_as_it_learned(tmp_path: Path, model: Path, rows: Path) -> None:
    image = rows.with_name("seen.png")
    seeing.make_picture("red").save(image)
    shows = {"instruction": "<image>which colour?", "output": "red", "images": [image.name]}
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps(shows) + "\n")
    run = train_seeing(
        tmp_path,
        model,
        rows,
        run={"steps": 1},
        data={"video_fps": 5.0, "video_frames": 6, "image_pixels": 64},
    )
    tuned = load_chat_model(run.name, precision="fp32", device="cpu")
    base = load_chat_model(model, precision="fp32", device="cpu")
    counts = {}
    for kind, path in (("video", rows.with_name("lighter0.mp4")), ("image", image)):
        talk = [{"role": "user", "content": PLACES[kind] + "?", "media": [[kind, str(path), ""]]}]
        counts[kind] = [len(encode_prompt(chat, talk)) for chat in (tuned, base)]
    six, four = counts["video"]  # of 12 frames at 10 a second: 6 at 5 a second, or the least of 4
    assert six > four
    small, whole = counts["image"]
    assert small < whole


def test_what_cannot_be_shown_is_refused(tmp_path: Path, model: Path, rows: Path) -> None:
    blind = tiny.make_model(tmp_path / "blind")
    with pytest.raises(DataError, match="it holds a video, and the model reads text alone"):
        train_seeing(tmp_path, blind, rows)
    other = seeing.make_seeing_model(tmp_path / "other", "LLaVA")
    with pytest.raises(DataError, match="it holds a video, and the model sees no videos, or in a"):
        train_seeing(tmp_path, other, rows)
    with pytest.raises(DataError, match="and what it shows would be cut"):
        train_seeing(tmp_path, model, rows, data={"max_tokens": 9})
    chat = load_chat_model(model, precision="fp32", device="cpu")
    session = ChatSession(chat, Sampling(max_tokens=4))
    for path, reason in (
        (rows, "is no video that can be read"),
        (tmp_path / "none.mp4", "No such"),
    ):
        with pytest.raises(RequestError, match=reason):
            session.show("video", path)


@pytest.mark.proof
@pytest.mark.parametrize("family", ["Qwen 2 VL", "Qwen 3 VL", "InternVL"])
def test_every_family_learns_from_videos_and_is_exported(
    tmp_path: Path, rows: Path, family: str
) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    run = train_seeing(tmp_path, folder, rows, data={"max_tokens": 2048}, tuning={"kind": "lora"})
    assert export(run.name, tmp_path / "out").distance.top1 == 1.0


@pytest.mark.proof
def test_a_teacher_that_sees_teaches_videos(tmp_path: Path, model: Path, rows: Path) -> None:
    teacher = seeing.make_seeing_model(tmp_path / "teacher", "Qwen 2.5 VL", seed=1)
    run = train_seeing(tmp_path, model, rows, method={"name": "distill", "teacher": str(teacher)})
    assert run.metrics()[-1]["loss"] > 0


def test_videos_and_images_stand_side_by_side(tmp_path: Path, model: Path, rows: Path) -> None:
    chat = load_chat_model(model, precision="fp32", device="cpu")
    film = rows.with_name("lighter0.mp4")
    image = seeing.as_address(seeing.make_picture("red"))
    media = [["image", image, ""], ["video", str(film), ""], ["video", str(film), ""]]
    content = PLACES["image"] + PLACES["video"] + PLACES["video"] + "what?"
    prompt = encode_prompt(chat, [{"role": "user", "content": content, "media": media}])
    plain = encode_prompt(chat, [{"role": "user", "content": "what?"}])
    given = answer(chat, [prompt, plain], Sampling(max_tokens=4))
    alone = [answer(chat, [each], Sampling(max_tokens=4))[0] for each in (prompt, plain)]
    assert [each.tokens for each in given] == [each.tokens for each in alone]
