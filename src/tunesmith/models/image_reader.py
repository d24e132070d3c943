"""What turns images into numbers: everything of an image model but its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.inspect import check_files
from tunesmith.models.load import quiet_libraries, without_notes
from tunesmith.models.reasons import reason_of
from tunesmith.settings import forbid_network

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

PROCESSOR = "preprocessor_config.json"
SQUARE = 16
"""Pixels along a side of what counts as one token, as most such models part an image."""
SIZES = ((64, 48), (37, 90))
"""Images to try a processor with."""


@dataclass(frozen=True)
class ImageReader:
    """A model's image processor with all that goes with it.

    Attributes:
        folder: the model's folder.
        processor: transformers' own, with Pillow underneath.
        shape: of an image as the model takes it: channels, height, width.
    """

    folder: Path
    processor: Any
    shape: tuple[int, int, int]
    tokenizer: None = None
    template: None = None

    @property
    def num_tokens(self) -> int:
        """Count an image's squares of 16 pixels."""
        return math.ceil(self.shape[1] / SQUARE) * math.ceil(self.shape[2] / SQUARE)

    def pixels(self, image: Image) -> torch.Tensor:
        """Turn an image into what the model takes, [channels, height, width]."""
        found: torch.Tensor = self.processor(images=[image], return_tensors="pt")["pixel_values"]
        return found[0]

    def save(self, folder: Path) -> None:
        """Write the processor's options beside a model."""
        self.processor.save_pretrained(str(folder))


def load_image_reader(folder: Path) -> ImageReader:
    """Load the image processor of a model folder.

    Raises:
        ModelError: if there is none, or it makes other than images of one size.
    """
    forbid_network()
    check_files(folder, weights=False)
    quiet_libraries()
    if not (folder / PROCESSOR).is_file():
        raise ModelError(
            f"the image model has no {PROCESSOR}",
            hint="copy the whole model folder; it says how large images are and how they are "
            "scaled",
            where=str(folder),
        )
    from PIL import Image
    from transformers import AutoImageProcessor

    try:
        with without_notes():
            processor = AutoImageProcessor.from_pretrained(
                str(folder), backend="pil", local_files_only=True, trust_remote_code=False
            )
            tried = [
                processor(images=[Image.new("RGB", size)], return_tensors="pt") for size in SIZES
            ]
    except Exception as problem:  # the library raises many kinds for a damaged file
        raise ModelError(
            f"the image processor cannot be used: {reason_of(problem)}",
            hint=f"copy {PROCESSOR} of the model again",
            where=str(folder / PROCESSOR),
        ) from problem
    shapes = {tuple(found["pixel_values"].shape[1:]) for found in tried}
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 3 or set(tried[0]) != {"pixel_values"}:
        raise ModelError(
            "the image processor gives images of several sizes, or more than their pixels",
            hint="take a model that reads images of one size, such as vit, convnext or resnet",
            where=str(folder / PROCESSOR),
        )
    return ImageReader(folder, processor, shape)
