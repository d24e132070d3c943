"""Videos: which frames are taken, from files of every kind, and what is refused."""

from __future__ import annotations

import base64
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import videos
from tests.unit.data.shown import asked, read
from tunesmith.data.media import clip, films, images, medium
from tunesmith.data.media import videos as reading
from tunesmith.data.media.videos import Frames, read_video
from tunesmith.data.rows import Conversation, Medium, RowFault, media_of
from tunesmith.errors import MissingPackage
from tunesmith.templates import PLACES

SHOWN = PLACES["video"]


@pytest.mark.parametrize(
    ("total", "fps", "how", "taken"),
    [
        (40, 10.0, Frames(), [0, 6, 11, 17, 22, 28, 33, 39]),  # 4 s, 2 a second: 8 of 40
        (10, 10.0, Frames(), [0, 3, 6, 9]),  # 1 s: never fewer than four
        (3, 30.0, Frames(), [0, 1, 2]),
        (1, 30.0, Frames(), [0, 0]),
        (3000, 30.0, Frames(most=4), [0, 1000, 1999, 2999]),
        (40, 10.0, Frames(fps=1), [0, 13, 26, 39]),
        (10, 10.0, Frames(most=2), [0, 9]),
    ],
)
def test_frames_are_spread_evenly(total: int, fps: float, how: Frames, taken: list[int]) -> None:
    assert how.pick(total, fps) == taken


def test_the_frames_are_those_that_transformers_takes_for_qwen_3_vl() -> None:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
    from transformers.video_utils import VideoMetadata

    processor = Qwen3VLVideoProcessor()
    for total in (2, 3, 5, 29, 250, 1001, 9000):
        for fps in (9.5, 24.0, 29.97, 60.0):
            theirs = processor.sample_frames(VideoMetadata(total_num_frames=total, fps=fps), fps=2)
            assert Frames(most=768).pick(total, fps) == theirs.tolist()


@pytest.mark.parametrize(
    "name", ["a.mkv", "a.webp", "a.png", "a.mp4", "a.mov", "a.webm", "a.avi", "a.gif"]
)
def test_files_of_every_kind_are_read(tmp_path: Path, name: str) -> None:
    path, frames = tmp_path / name, videos.make_frames(40)
    write = videos.write_film if path.suffix in videos.CODECS else videos.write_animation
    write(path, frames)
    found = read_video(path.read_bytes(), path, Frames())
    assert (found.total, found.fps) == (40, pytest.approx(10, rel=0.01))
    assert found.indices == (0, 6, 11, 17, 22, 28, 33, 39)
    expected = frames[list(found.indices)].astype(int)
    allowed = 0 if path.suffix in (".mkv", ".webp", ".png") else 6
    assert np.abs(found.frames.astype(int) - expected).max() <= allowed


def test_odd_rates_are_kept(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    path = videos.write_film(tmp_path / "a.mp4", videos.make_frames(10), fps=rate)
    assert read_video(path.read_bytes(), path, Frames()).fps == pytest.approx(float(rate))


def test_large_frames_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.write_film(tmp_path / "a.mkv", videos.make_frames(8))
    assert read_video(path.read_bytes(), path, Frames(pixels=192)).frames.shape == (4, 12, 16, 3)
    monkeypatch.setattr(reading, "ALL_PIXELS", 4 * 192)
    assert read_video(path.read_bytes(), path, Frames()).frames.shape == (4, 12, 16, 3)


def test_a_video_that_was_filmed_lying_is_shown_upright(tmp_path: Path) -> None:
    frames = videos.make_frames(4)
    frames[:, :, :8] = 0  # the left side is dark
    path = videos.write_film(tmp_path / "a.mp4", frames)
    content = path.read_bytes()
    start = content.index(b"tkhd") + 4 + 40  # the matrix, of numbers of 16.16 bits and 2.30
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 24 << 16, 0, 1 << 30]  # by 90 degrees, clockwise
    matrix = b"".join(number.to_bytes(4, "big", signed=True) for number in turned)
    path.write_bytes(content[:start] + matrix + content[start + 36 :])
    found = read_video(path.read_bytes(), path, Frames()).frames
    assert found.shape == (4, 32, 24, 3)
    assert found[0, :6].mean() < 40 < found[0, 12:].mean()  # what was left is above


def test_frames_that_a_film_was_cut_before_are_not_counted(tmp_path: Path) -> None:
    path = videos.write_film(tmp_path / "a.mp4", videos.make_frames(40))
    cut = videos.cut_film(path, tmp_path / "cut.mp4", seconds=1.2)
    found = read_video(cut.read_bytes(), cut, Frames())
    assert found.total == 28
    assert abs(int(found.frames[0, 0, 0, 0]) - 224) <= 6  # the thirteenth, 200 and 12 times 2


def alpaca(question: str, *files: object) -> dict[str, Any]:
    return {"instruction": question, "output": "red", "videos": list(files)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frames = videos.make_frames(12)
    videos.write_film(tmp_path / "a.mp4", frames)
    videos.write_animation(tmp_path / "a.gif", frames)
    videos.write_stills(tmp_path / "stills", frames[:5])
    return tmp_path


STILLS = ("stills/000.png", "stills/001.png", "stills/002.png")


@pytest.mark.parametrize(
    ("row", "sources"),
    [
        (alpaca("<video>?", "a.mp4"), ["a.mp4"]),
        ({**alpaca("<video>?"), "videos": "a.gif"}, ["a.gif"]),
        (alpaca("<video> or <video>?", "a.gif", "a.mp4"), ["a.gif", "a.mp4"]),
        (alpaca("<video>?", list(STILLS)), [STILLS]),
        ({**alpaca("<video>?"), "videos": '[["stills/000.png", "stills/001.png"]]'}, [STILLS[:2]]),
        (asked({"type": "video", "video": "a.mp4"}), ["a.mp4"]),
        (asked({"type": "video", "video": list(STILLS)}), [STILLS]),
        ({**asked({"type": "video"}), "videos": [list(STILLS)]}, [STILLS]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "<video>a?"},
                    {"from": "gpt", "value": "b"},
                ],
                "videos": ["a.mp4"],
            },
            ["a.mp4"],
        ),
    ],
)
def test_videos_take_the_places_that_the_text_keeps(
    folder: Path, row: dict[str, Any], sources: list[Any]
) -> None:
    found = read(folder, row, video=(1.0, 8, 100))
    assert isinstance(found, Conversation), found
    media = media_of(found)
    assert [each.source for each in media] == sources
    assert found.messages[0].content.count(SHOWN) == len(sources)
    for each in media:
        assert (each.fps, each.frames, each.pixels, len(each.sha256)) == (1.0, 8, 100, 64)
        assert Medium.of(each.as_list(each.source)) == each
        assert medium.open_medium(each, found.place).frames.shape[0] in (2, 3, 4)


def test_a_list_of_images_is_a_video_of_the_frames_that_are_taken(folder: Path) -> None:
    found = read(folder, alpaca("<video>?", [f"stills/{at:03}.png" for at in range(5)]))
    assert isinstance(found, Conversation)
    video = medium.open_medium(media_of(found)[0], found.place)
    assert (video.indices, video.total, video.fps) == ((0, 1, 2, 3, 4), 5, 2.0)
    np.testing.assert_array_equal(video.frames, videos.make_frames(5))


def cut(folder: Path, name: str, share: float) -> str:
    """Write the beginning of a longer video."""
    whole = folder / f"whole{Path(name).suffix}"
    if whole.suffix in videos.CODECS:
        videos.write_film(whole, videos.make_noise(40))
    else:
        videos.write_animation(whole, videos.make_noise(10))
    content = whole.read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    return name


@pytest.mark.parametrize("name", ["b.mp4", "b.webm", "b.mkv", "b.avi", "b.gif", "b.webp"])
def test_a_video_that_was_cut_is_damaged(folder: Path, name: str) -> None:
    found = read(folder, alpaca("<video>?", cut(folder, name, 0.5)))
    if not isinstance(found, str):  # an animation is looked at frame by frame when it is shown
        with pytest.raises(RowFault, match="is damaged"):
            medium.open_medium(media_of(found)[0], found.place)
        return
    assert f"the video {name} is" in found
    assert "damaged" in found or "no video that can be read" in found
    assert "Errno" not in found
    (folder / name).write_bytes(b"")
    assert read(folder, alpaca("<video>?", name)) == f"the video {name} is empty"


PLAYLISTS = [
    b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile /etc/hostname\n",
    b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1/</BaseURL></MPD>',
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    b"\0" * 100,
    b"RIFF\0\0\0\0WAVEfmt ",
]


@pytest.mark.parametrize("content", PLAYLISTS)
def test_a_file_that_names_others_is_no_video(folder: Path, content: bytes) -> None:
    address = "data:video/mp4;base64," + base64.b64encode(content).decode()
    found = read(folder, alpaca("<video>?", address))
    assert isinstance(found, str)
    assert "is no video that can be read" in found


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (alpaca("<video>?"), "it has 0 in `videos`, and 1 places for them (<video>)"),
        (alpaca("?", "a.mp4"), "it has 1 in `videos`, and 0 places for them (<video>)"),
        (alpaca("<video>?", "b.mp4"), "b.mp4 cannot be read: No such file"),
        (alpaca("<video>?", "rows.jsonl"), "rows.jsonl is no video that can be read (mp4, mov"),
        (alpaca("<video>?", "stills/000.png"), "000.png is a single image, not a video"),
        (alpaca("<video>?", "stills"), "stills is no file"),
        (alpaca("<video>?", []), "a video of `videos` is a list of no frames"),
        (alpaca("<video>?", ["stills/000.png", "a.mp4"]), "a.mp4 is no image that can be read"),
        (alpaca("<video>?", ["stills/000.png", "c.png"]), "c.png cannot be read: No such file"),
        (alpaca("<video>?", ["stills/000.png", 3]), "a frame of `videos` is a number"),
        (alpaca("<video>?", "https://h/a.mp4"), "is an address, and nothing is downloaded"),
        (alpaca("<video>?", ["file:///a.png"]), "is an address, and nothing is downloaded"),
        (asked({"type": "video_url", "video_url": {"url": "https://h/a"}}), "nothing is downl"),
        (asked({"type": "video", "video": "a.mp4", "fps": 1}), "says `fps`; which frames are"),
        (
            {**asked({"type": "text", "text": "?"}), "videos": ["a.mp4"]},
            "it has 1 in `videos`, and 0 places",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_with_its_place(
    folder: Path, row: dict[str, Any], reason: str
) -> None:
    found = read(folder, row)
    assert isinstance(found, str)
    assert reason in found


def test_videos_that_would_fill_the_memory_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "a.gif"):
        for what, most, reason in (
            ("MOST_PIXELS", 100, "has 32 x 24 pixels, over 100"),
            ("LONGEST", 5, "has 12 frames, over 5; cut it"),
            ("MOST_DECODED", 999, "has 12 frames of 32 x 24, over 999 pixels in all"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(clip, what, most)
                found = read(folder, alpaca("<video>?", name))
                assert isinstance(found, str)
                assert reason in found
    monkeypatch.setattr(medium, "MOST_BYTES", 300)
    found = read(folder, alpaca("<video>?", [f"stills/{at:03}.png" for at in range(5)]))
    assert isinstance(found, str)
    assert "the frames of a video have over 300 bytes together" in found


def test_frames_of_several_sizes_are_refused(folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(folder / "odd.png")
    found = read(folder, alpaca("<video>?", [*STILLS, "odd.png"]))
    assert isinstance(found, Conversation)
    with pytest.raises(RowFault, match=r"the frame odd\.png has another size than the first"):
        medium.open_medium(media_of(found)[0], found.place)


def test_a_prompt_may_show_so_many_pixels_in_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stills = tuple(str(folder / name) for name in STILLS)
    media = [Medium("video", str(folder / "a.mp4")), Medium("video", stills)]
    counted = (4 + 3) * 32 * 24
    monkeypatch.setattr(medium, "MOST_PIXELS", counted)
    assert len(medium.look_at_all(media)) == 2
    monkeypatch.setattr(medium, "MOST_PIXELS", counted - 1)
    with pytest.raises(RowFault, match=f"has {counted:,} pixels together, over"):
        medium.look_at_all(media)


def test_a_prompt_may_bring_videos_of_so_many_pixels(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = base64.b64encode((folder / "a.mp4").read_bytes()).decode()
    sent = [Medium("video", f"data:video/mp4;base64,{content}")]
    monkeypatch.setattr(medium, "MOST_SENT", 12 * 32 * 24)
    assert len(medium.look_at_all(sent)) == 1
    monkeypatch.setattr(medium, "MOST_SENT", 12 * 32 * 24 - 1)
    with pytest.raises(RowFault, match="all videos have 9,216 pixels in all frames, over 9,215"):
        medium.look_at_all(sent)
    assert medium.look_at_all([Medium("video", str(folder / "a.mp4"))])


def test_a_video_that_changes_is_noticed(folder: Path) -> None:
    found = read(folder, alpaca("<video>?", list(STILLS)))
    assert isinstance(found, Conversation)
    Image.new("RGB", (32, 24)).save(folder / STILLS[1])
    with pytest.raises(RowFault, match="changed since it was read"):
        medium.open_medium(media_of(found)[0], found.place)


def test_without_its_package_a_file_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str, *, extra: str) -> Any:
        raise MissingPackage(
            f"the package {module} is not installed", hint=f"pip install 'tunesmith[{extra}]'"
        )

    monkeypatch.setattr(films, "require", missing)
    found = read(folder, alpaca("<video>?", "a.mp4"))
    assert isinstance(found, str)
    assert "the package av is not installed: pip install 'tunesmith[video]'" in found
    for source in ("a.gif", list(STILLS)):
        assert isinstance(read(folder, alpaca("<video>?", source)), Conversation)


def test_an_image_is_none_of_these(folder: Path) -> None:
    found = read(folder, {"instruction": "<image>?", "output": "red", "images": ["a.mp4"]})
    assert isinstance(found, str)
    assert "a.mp4 is no image that can be read" in found
    assert images.measure((folder / "a.gif").read_bytes(), Path("a.gif")) == 32 * 24
