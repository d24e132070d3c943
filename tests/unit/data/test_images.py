"""Odd images: cut files are found when rows are read, and greys keep their greys."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tunesmith.data.media.images import KINDS, decode, look_at, measure
from tunesmith.data.rows import RowFault

NAME = Path("a.image")


def spelled(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_whose_end_is_missing_is_found_without_learning_from_it(
    tmp_path: Path, kind: str
) -> None:
    content = spelled(Image.effect_noise((90, 70), 50).convert("RGB"), kind)
    path = tmp_path / "a.image"
    path.write_bytes(content)
    assert len(look_at(path)) == 64
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(RowFault, match=r"the image a\.image is damaged"):
        look_at(path)
    assert measure(content + b"noted by a camera", NAME) == 90 * 70


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_16_bits_are_not_all_white(kind: str) -> None:
    greys = np.array([[0, 255, 256], [30_000, 60_000, 65_535]], dtype=np.uint16)
    found = np.array(decode(spelled(Image.fromarray(greys), kind), NAME))
    assert found.shape == (2, 3, 3)
    assert (found == (greys // 256)[..., None]).all()


def test_numbers_without_a_white_are_refused() -> None:
    content = spelled(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    with pytest.raises(RowFault, match="numbers of 32 bits, and nobody says which are black"):
        measure(content, NAME)


def test_a_turned_image_is_decoded_upright_and_print_colours_as_those_of_a_screen() -> None:
    image, exif = Image.new("CMYK", (4, 2), (0, 255, 255, 0)), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    content = io.BytesIO()
    image.save(content, "JPEG", exif=exif)
    found = decode(content.getvalue(), NAME)
    assert (found.size, found.mode) == ((2, 4), "RGB")
    red, green, blue = np.asarray(found).mean((0, 1))
    assert red > 200
    assert max(green, blue) < 60
