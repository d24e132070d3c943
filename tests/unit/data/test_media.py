"""Images in conversations: columns with places in the text, parts of messages, and refusals."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import seeing
from tests.tiny import write_rows
from tests.unit.data.shown import asked, read
from tunesmith.data.meaning import find_meaning, read_set
from tunesmith.data.media import images
from tunesmith.data.media.sounds import measure_sound
from tunesmith.data.repetitions import Repetitions
from tunesmith.data.rows import Conversation, RowFault, media_of
from tunesmith.data.sources import RowSet
from tunesmith.templates import PLACES

SEEN = PLACES["image"]
ADDRESS = seeing.as_address(seeing.make_picture("blue"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    seeing.make_picture("red").save(tmp_path / "a.png")
    seeing.make_picture("green").save(tmp_path / "sub" / "b.jpg")
    return tmp_path


def alpaca(question: str, *files: object) -> dict[str, Any]:
    return {"instruction": question, "output": "red", "images": list(files)}


def sharegpt(*said: str, images: object) -> dict[str, Any]:
    sides = ("human", "gpt") * len(said)
    turns = [{"from": side, "value": text} for side, text in zip(sides, said, strict=False)]
    return {"conversations": turns, "images": images}


WELL: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (alpaca("<image>what?", "a.png"), [f"{SEEN}what?", "red"], ["a.png"]),
    (
        alpaca("<image> or <image>?", "sub/b.jpg", "a.png"),
        [f"{SEEN} or {SEEN}?", "red"],
        ["sub/b.jpg", "a.png"],
    ),
    (
        sharegpt("<image>a?", "b", "and <image>?", "d", images=["a.png", "sub/b.jpg"]),
        [f"{SEEN}a?", "b", f"and {SEEN}?", "d"],
        ["a.png", "sub/b.jpg"],
    ),
    (sharegpt("<image>a?", "b", images="a.png"), [f"{SEEN}a?", "b"], ["a.png"]),
    (sharegpt("<image>a?", "b", images='["a.png"]'), [f"{SEEN}a?", "b"], ["a.png"]),
    (sharegpt("<image>a?", "b", images=[{"path": "a.png"}]), [f"{SEEN}a?", "b"], ["a.png"]),
    (
        asked({"type": "text", "text": "see "}, {"type": "image", "image": "a.png"}),
        [f"see {SEEN}", "red"],
        ["a.png"],
    ),
    (
        asked({"type": "image_url", "image_url": {"url": ADDRESS}}, {"type": "text", "text": "?"}),
        [f"{SEEN}?", "red"],
        [ADDRESS],
    ),
    (
        {**asked({"type": "image"}, {"type": "text", "text": "?"}), "images": ["a.png"]},
        [f"{SEEN}?", "red"],
        ["a.png"],
    ),
    ({"instruction": "what is <image>?", "output": "red"}, ["what is <image>?", "red"], []),
    (alpaca("what?"), ["what?", "red"], []),
]


@pytest.mark.parametrize(("row", "said", "files"), WELL)
def test_images_take_the_places_that_the_text_keeps(
    folder: Path, row: dict[str, Any], said: list[str], files: list[str]
) -> None:
    found = read(folder, row)
    assert isinstance(found, Conversation), found
    assert [message.content for message in found.messages] == said
    assert [medium.source for medium in media_of(found)] == files
    assert all(len(medium.sha256) == 64 for medium in media_of(found))


BOMB = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
BADLY: list[tuple[dict[str, Any], str]] = [
    (alpaca("<image>what?"), "it has 0 in `images`, and 1 places for them (<image>)"),
    (alpaca("what?", "a.png"), "it has 1 in `images`, and 0 places for them (<image>)"),
    (alpaca("<image>?", "a.png", "a.png"), "it has 2 in `images`, and 1 places"),
    (alpaca("<image>?", "c.png"), "c.png cannot be read: No such file"),
    (alpaca("<image>?", "rows.jsonl"), "rows.jsonl is no image that can be read"),
    (alpaca("<image>?", "sub"), "sub is no file"),
    (alpaca("<image>?", ""), "`images` is empty"),
    (alpaca("<image>?", 3), "`images` is a number, not a text"),
    (alpaca("<image>?", "http://example.com/a.png"), "is an address, and nothing is downloaded"),
    (alpaca("<image>?", "file:///etc/passwd"), "is an address, and nothing is downloaded"),
    (alpaca("<image>?", "FTP://h/a.png"), "is an address, and nothing is downloaded"),
    (alpaca("<image>?", "data:image/png;base64,!!"), "a data: address holds no base64"),
    (alpaca("<image>?", "data:image/png,abc"), "a data: address holds no base64"),
    (alpaca("<image>?", f"data:image/png;base64,{BOMB}"), "is no image that can be read"),
    (sharegpt("a?", "<image>b", images=["a.png"]), "an answer holds image"),
    (asked({"type": "image"}), "it has 0 in `images`, and 1 places"),
    (asked({"type": "image_url", "image_url": {"url": "https://h/a"}}), "nothing is downloaded"),
    (alpaca("\ufdd3?"), "the reserved character U+FDD3"),
]


@pytest.mark.parametrize(("row", "reason"), BADLY)
def test_what_cannot_be_shown_is_refused_with_its_place(
    folder: Path, row: dict[str, Any], reason: str
) -> None:
    found = read(folder, row)
    assert isinstance(found, str)
    assert reason in found


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (600, 600)).save(folder / "wide.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    for source in ("wide.png", seeing.as_address(Image.new("1", (600, 600)))):
        found = read(folder, alpaca("<image>?", source))
        assert isinstance(found, str)
        assert "has 600 x 600 pixels, over 1,000" in found


def test_images_inside_of_a_table_are_read(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = (folder / "a.png").read_bytes()
    table = {"instruction": ["<image>?"], "output": ["red"]}
    table["images"] = [[{"bytes": content, "path": None}]]  # type: ignore[list-item]
    path = folder / "rows.parquet"
    pq.write_table(pa.table(table), path)
    rows = RowSet(path.name, (path,))
    (found,) = read_set(rows, find_meaning(rows, "auto"), "auto", None)
    assert isinstance(found, Conversation), found
    (medium,) = media_of(found)
    assert base64.b64decode(medium.source.partition(",")[2]) == content


def test_a_set_described_by_its_columns_shows_its_images(folder: Path) -> None:
    row = {"q": "<image>?", "a": "red", "pictures": ["a.png"]}
    columns = {"instruction": "q", "output": "a", "images": "pictures"}
    found = read(folder, row, format="alpaca", columns=columns)
    assert isinstance(found, Conversation), found
    assert [medium.source for medium in media_of(found)] == ["a.png"]


def test_the_same_question_about_other_images_is_no_repetition(folder: Path) -> None:
    seeing.make_picture("red").save(folder / "again.png")
    files = ("a.png", "sub/b.jpg", "again.png")
    path = write_rows(folder / "rows.jsonl", [alpaca("<image>?", name) for name in files])
    rows, found = RowSet(path.name, (path,)), Repetitions()
    for row in read_set(rows, find_meaning(rows, "auto"), "auto", None):
        assert isinstance(row, Conversation)
        found.add(row)
    assert found.duplicate_rows()[0] == 1


def test_a_missing_sound_is_called_a_sound(folder: Path) -> None:
    row = {"instruction": "<audio>?", "output": "red", "audios": ["none.wav"]}
    assert str(read(folder, row)).startswith("the sound ")


def test_sounds_of_wider_numbers_are_refused(tmp_path: Path) -> None:
    content = bytearray(seeing.write_sound(tmp_path / "a.wav", 300).read_bytes())
    content[34:36] = (64).to_bytes(2, "little")  # bits a number
    content[32:34] = (8).to_bytes(2, "little")  # bytes of all channels
    with pytest.raises(RowFault, match=r"a\.wav has numbers of 64 bits; 8 to 32 are read"):
        measure_sound(bytes(content), Path("a.wav"))
