"""How a family turns videos into numbers: its own processor, without torchvision underneath."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.models.load import read_architecture

if TYPE_CHECKING:
    import torch

QWEN_2, QWEN_3 = ("qwen2_vl", "Qwen2VLVideoProcessor"), ("qwen3_vl", "Qwen3VLVideoProcessor")
READ = {
    "qwen2_vl": QWEN_2,
    "qwen2_5_vl": QWEN_2,
    "qwen3_vl": QWEN_3,
    "qwen3_vl_moe": QWEN_3,
    "qwen3_5": QWEN_3,
    "qwen3_5_moe": QWEN_3,
    "internvl": ("internvl", "InternVLVideoProcessor"),
}
"""By model type, the module of transformers and the class that reads videos."""
ABSENT = ("torchvision", "transforms", "v2", "functional")


def load_video_processor(folder: Path) -> Any:
    """Load what reads videos of a model folder; None for a family that is not read."""
    found = READ.get(read_architecture(folder).model_type)
    if found is None:
        return None
    module, name = found
    family = vars(_import(module))[name]
    kind: Any = type(name, (family, _beneath()), {})
    processor = kind.from_pretrained(
        str(folder), local_files_only=True, do_convert_rgb=False, do_sample_frames=False
    )
    if vars(processor).get("cap_pixels_per_frame", False) is None:
        processor.cap_pixels_per_frame = False  # what none means to transformers, without a note
    return processor


def describe_video(video: Any) -> Any:
    """Tell a processor when the frames of a video are shown."""
    from transformers.video_utils import VideoMetadata

    _, height, width, _ = video.frames.shape
    return VideoMetadata(
        total_num_frames=video.total,
        fps=video.fps,
        width=width,
        height=height,
        duration=video.total / video.fps,
        frames_indices=list(video.indices),
    )


def _import(name: str) -> Any:
    """Import a family's module; some name torchvision there, for the sake of annotations alone."""
    import transformers.video_processing_utils  # noqa: F401  it notes what is there and what not

    module = f"transformers.models.{name}.video_processing_{name}"
    if module in sys.modules or find_spec("torchvision"):
        return import_module(module)
    names = [".".join(ABSENT[: at + 1]) for at in range(len(ABSENT))]
    sys.modules.update({each: ModuleType(each) for each in names})
    try:
        return import_module(module)
    finally:
        for each in names:
            del sys.modules[each]


def _beneath() -> Any:
    """Make what stands beneath a family's processor: Pillow where transformers has torchvision."""
    from transformers.image_processing_backends import TorchvisionBackend

    own = {"resize": _resize, "normalize": _normalize}
    return type("Beneath", (TorchvisionBackend,), own)


def _resize(
    processor: Any, image: torch.Tensor, size: Any, resample: Any = None, **rest: Any
) -> torch.Tensor:
    """Resize frames to a height and a width, [..., colours, height, width]."""
    import torch
    from PIL import Image

    shape = (*image.shape[:-2], size.height, size.width)
    frames = image.flatten(0, -4).permute(0, 2, 3, 1).contiguous().numpy()
    wanted = (size.width, size.height)
    done = [np.asarray(Image.fromarray(frame).resize(wanted, resample)) for frame in frames]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).reshape(shape)


def _normalize(
    processor: Any, image: torch.Tensor, mean: Any, std: Any, **rest: Any
) -> torch.Tensor:
    """Shift and scale each colour."""
    import torch

    means, stds = (torch.as_tensor(each, dtype=image.dtype).view(-1, 1, 1) for each in (mean, std))
    return (image - means) / stds
