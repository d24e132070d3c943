"""Rows that show videos: numbers, tokens, loss and gradients equal those of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import seeing, tiny, videos
from tests.golden.shown import assert_learned_alike, read_rows
from tunesmith.data.media.videos import Video
from tunesmith.models.reader import Reader, find_reader

QWEN = ("Qwen 2.5 VL", "Qwen 3 VL", "Qwen 2 VL", "Qwen 3.5")
SOME = [*QWEN[:2], *(pytest.param(name, marks=pytest.mark.proof) for name in QWEN[2:])]
PADDED = {"Qwen 3.5"}
"""Families whose layers carry something from one row to the next."""

WORDS = ("<video>what moves?", "is <video> like <image> or <video>?", "<image>what?", "what?")
ANSWERS = ("red", "no", "blue", "It is 7.")
SHAPES: Sequence[Sequence[tuple[int, int]]] = ((12, 4),), ((25, 5), (6, 10)), (), ()
"""Of the videos of each row, frames and frames a second."""


def write_rows(folder: Path) -> Path:
    rows = []
    seeing.make_picture("blue").save(folder / "seen.png")
    for number, (words, answer, shapes) in enumerate(zip(WORDS, ANSWERS, SHAPES, strict=True)):
        row: dict[str, Any] = {"instruction": words, "output": answer}
        row["images"] = ["seen.png"] * words.count("<image>")
        row["videos"] = [f"{number}-{at}.mkv" for at in range(len(shapes))]
        for name, (count, fps) in zip(row["videos"], shapes, strict=True):
            videos.write_film(folder / name, videos.make_noise(count, seed=count), fps=fps)
        rows.append(row)
    return tiny.write_rows(folder / "rows.jsonl", rows)


def taken(count: int, fps: int) -> list[int]:
    """Say by hand which frames are taken: two a second, four at least, spread evenly."""
    wanted = max(count * 2 // fps, 4)
    return [round(at * (count - 1) / (wanted - 1)) for at in range(wanted)]


def theirs_of(reader: Reader, number: int) -> Any:
    """Let transformers' processor write a row as its users do, who decode videos themselves."""
    written: list[dict[str, str]] = []
    for part in WORDS[number].replace("<", "\0<").replace(">", ">\0").split("\0"):
        if part in ("<video>", "<image>"):
            written.append({"type": part[1:-1]})
        elif part:
            written.append({"type": "text", "text": part})
    talk = [
        {"role": "user", "content": written},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[number]}]},
    ]
    assert reader.senses is not None
    text = reader.tokenizer.apply_chat_template(talk, tokenize=False)
    given: dict[str, Any] = {}
    if "<image>" in WORDS[number]:
        given["images"] = [[seeing.make_picture("blue")]]
    if SHAPES[number]:
        picked = [taken(*shape) for shape in SHAPES[number]]
        given["videos"] = [
            videos.make_noise(count, seed=count)[indices]
            for (count, _), indices in zip(SHAPES[number], picked, strict=True)
        ]
        given["video_metadata"] = [
            {"total_num_frames": count, "fps": fps, "frames_indices": indices}
            for (count, fps), indices in zip(SHAPES[number], picked, strict=True)
        ]
        given["do_sample_frames"] = False
    return reader.senses.processor(text=[text], **given, return_tensors="pt")


@pytest.mark.parametrize("family", SOME)
def test_tokens_loss_and_gradients_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    reader = find_reader(folder)
    rows = read_rows(reader, write_rows(tmp_path), 512)
    assert_learned_alike(folder, reader, rows, theirs_of, padded=family in PADDED)


def show(frames: Any, fps: float = 2.0) -> tuple[str, Video]:
    return "video", Video(frames, tuple(range(len(frames))), len(frames), fps)


@pytest.mark.parametrize("family", QWEN)
def test_patches_are_laid_out_as_the_paper_says(tmp_path: Path, family: str) -> None:
    """Frames that need no resizing, patched by hand: pairs of frames, squares of 2 x 2 patches."""
    reader = find_reader(seeing.make_seeing_model(tmp_path / "model", family))
    assert reader.senses is not None
    frames = videos.make_noise(3, size=(8, 8))  # the last one is taken twice
    found = reader.senses.numbers([[show(frames)]])
    part = reader.senses.processor.video_processor
    scaled = (frames / 255 - np.array(part.image_mean)) / np.array(part.image_std)
    padded = np.concatenate([scaled, scaled[-1:]])
    patches = []
    for pair in (padded[:2], padded[2:]):
        for row in range(2):
            for column in range(2):
                square = pair[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                patches.append(square.transpose(3, 0, 1, 2).reshape(-1))
    assert found["video_grid_thw"].tolist() == [[2, 2, 2]]
    np.testing.assert_allclose(found["pixel_values_videos"], np.array(patches), atol=1e-5)


def test_a_video_of_one_image_has_the_numbers_of_the_image(tmp_path: Path) -> None:
    """Qwen 2 shows an image as a pair of frames: Pillow resizes both alike."""
    reader = find_reader(seeing.make_seeing_model(tmp_path / "model", "Qwen 2 VL"))
    assert reader.senses is not None
    frame = videos.make_noise(1, size=(40, 30))[0]
    video = reader.senses.numbers([[show(np.stack([frame, frame]))]])
    image = reader.senses.numbers([[("image", Image.fromarray(frame))]])
    assert video["video_grid_thw"].tolist() == image["image_grid_thw"].tolist()
    torch.testing.assert_close(
        video["pixel_values_videos"], image["pixel_values"], rtol=1e-5, atol=1e-5
    )


def test_qwen_2_5_counts_seconds_and_qwen_3_writes_them(tmp_path: Path) -> None:
    frames = videos.make_noise(4, size=(8, 8))
    reader = find_reader(seeing.make_seeing_model(tmp_path / "2.5", "Qwen 2.5 VL"))
    assert reader.senses is not None
    slow = ("video", Video(frames, (0, 10, 20, 30), 31, 10.0))  # 4 of 31 at 10 a second
    seconds = reader.senses.numbers([[slow]])["second_per_grid_ts"]
    torch.testing.assert_close(torch.as_tensor(seconds), torch.tensor([2 / (4 / 31 * 10)]))
    reader = find_reader(seeing.make_seeing_model(tmp_path / "3", "Qwen 3 VL"))
    assert reader.senses is not None
    pad = "<|vision_start|><|video_pad|><|vision_end|>"
    assert reader.senses.spell(slow) == f"<0.5 seconds>{pad}<2.5 seconds>{pad}"


def test_frames_of_internvl_are_its_images(tmp_path: Path) -> None:
    reader = find_reader(seeing.make_seeing_model(tmp_path / "model", "InternVL"))
    assert reader.senses is not None
    few, many = (videos.make_noise(count, size=(20, 12), seed=count) for count in (2, 5))
    image = seeing.make_picture("green")
    found = reader.senses.numbers([[show(few), ("image", image)], [show(many)]])["pixel_values"]
    part = reader.senses.processor.image_processor
    alone = [*((frame, False) for frame in few), (image, True), *((frame, False) for frame in many)]
    expected = torch.cat(  # of images, unlike frames, parts are shown too
        [
            part(Image.fromarray(np.asarray(one)), crop_to_patches=crop, return_tensors="pt")[
                "pixel_values"
            ]
            for one, crop in alone
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    seen = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"
    assert reader.senses.spell(show(few)) == f"Frame1: {seen}\nFrame2: {seen}"


@pytest.mark.parametrize("family", ["LLaVA", "GLM 4V", "Gemma 3", "Idefics 3"])
def test_a_family_whose_videos_are_not_read_says_so(tmp_path: Path, family: str) -> None:
    senses = find_reader(seeing.make_seeing_model(tmp_path / "model", family)).senses
    assert senses is not None
    assert "video" not in senses.kinds
    assert "sees no videos, or in a way that is not read" in senses.why_not("video")
