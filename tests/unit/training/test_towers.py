"""What a tower reads is counted from what a family's own processor makes."""

from __future__ import annotations

from pathlib import Path

from tests import seeing, videos
from tunesmith.data.media.videos import Frames, read_video
from tunesmith.models.load import load_config
from tunesmith.models.reader import find_reader
from tunesmith.training.towers import count_patches


def test_patches_of_videos_are_counted_beside_those_of_images(tmp_path: Path) -> None:
    senses = find_reader(seeing.make_seeing_model(tmp_path / "model", "Qwen 3 VL")).senses
    assert senses is not None
    path = videos.write_film(tmp_path / "a.mkv", videos.make_frames(4, size=(16, 16)))
    video = ("video", read_video(path.read_bytes(), path, Frames()))
    image = ("image", seeing.make_picture("red", 1).resize((16, 16)))
    tower = load_config(senses.folder).to_dict()["vision_config"]
    shown = {"one": [image], "frames": [video], "both": [image, video]}
    for row in shown.values():
        text = "".join(map(senses.spell, row))
        tokens = sum(text.count(senses.processor.tokenizer.decode([one])) for one in senses.ids)
        assert tokens > 0
        assert count_patches(senses.numbers([row]), tower) == 4 * tokens  # two by two are a token
