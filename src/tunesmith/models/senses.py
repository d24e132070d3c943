"""How a model sees and hears: its family's own processor, without the parts that need more."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import MissingPackage, ModelError, require
from tunesmith.models.inspect import check_files
from tunesmith.models.load import quiet_libraries, read_architecture, takes_more, without_notes
from tunesmith.models.reasons import reason_of
from tunesmith.models.video_reader import describe_video, load_video_processor
from tunesmith.settings import forbid_network

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from tunesmith.recipe.data import Data

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
BESIDE = "video_preprocessor_config.json"
"""What others read of such a folder, kept beside."""
FOR = {"image": "image_processor", "video": "video_processor", "audio": "feature_extractor"}
"""What a processor calls the part that reads a kind."""
GIVEN = {"image": "images", "video": "videos", "audio": "audio"}
"""What it calls the kind when it is given some."""
UNREAD = {
    "image": "the model reads no images",
    "video": "the model sees no videos, or in a way that is not read (Qwen VL and InternVL are)",
    "audio": "the model hears nothing, or in a way that is not read yet",
}
Shown = tuple[str, Any]
"""A kind, and what was decoded."""


@dataclass(frozen=True)
class Senses:
    """A processor of transformers, with Pillow underneath.

    Attributes:
        folder: the model's folder.
        processor: transformers' own class for the family, with the parts that can be had.
        kinds: what it reads.
        blind: why it reads nothing, if a package is missing.
        shows: how the run that trained the model showed things; None if it is of no run.
    """

    folder: Path
    processor: Any
    kinds: tuple[str, ...]
    blind: str = ""
    shows: Data | None = None

    @cached_property
    def tokens(self) -> Mapping[str, str]:
        """By kind, what a chat template writes in its place."""
        return {kind: str(vars(self.processor)[f"{kind}_token"]) for kind in self.kinds}

    @cached_property
    def ids(self) -> frozenset[int]:
        """The tokens that a model puts what it sees in the place of."""
        return frozenset(self.types)

    @cached_property
    def types(self) -> Mapping[int, int]:
        """The number of a kind by such a token, as models number kinds."""
        numbers = {"image": 1, "video": 2, "audio": 3}
        every = [
            (token, numbers[kind])
            for kind in self.kinds
            for token in self._ids_of(kind)
            if token is not None
        ]
        return dict(every)

    def _ids_of(self, kind: str) -> Sequence[int | None]:
        found: Sequence[int | None] = {
            "image": lambda: self.processor.image_token_ids,
            "video": lambda: self.processor.video_token_ids,
            "audio": lambda: self.processor.audio_token_ids,
        }[kind]()
        return found

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides how much text something counts as."""
        described = {
            kind: json.loads(vars(self.processor)[FOR[kind]].to_json_string())
            for kind in self.kinds
        }
        options = {} if self.processor is None else vars(self.processor)
        plain = {
            name: value
            for name, value in options.items()
            if isinstance(value, str | int | float) and name != "chat_template"
        }
        content = json.dumps([described, plain], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def why_not(self, kind: str) -> str:
        """Say why nothing of a kind can be read; nothing if it can."""
        return "" if kind in self.kinds else self.blind or UNREAD[kind]

    def spell(self, shown: Shown) -> str:
        """Write as text what a model takes in the place of something shown."""
        found = self._process([[shown]], return_text_replacement_offsets=True)
        ((place,),) = found["text_replacement_offsets"]
        return str(place["replacement"])

    def numbers(self, rows: Sequence[Sequence[Shown]]) -> dict[str, torch.Tensor]:
        """Make the tensors that a model takes beside the tokens of some rows."""
        if any(kind == "video" for row in rows for kind, _ in row) and not self._counts_frames:
            return self._numbers_of_each([each for row in rows for each in row])
        found = self._process(rows)
        left_out = {"input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}
        return {name: value for name, value in found.items() if name not in left_out}

    @property
    def _counts_frames(self) -> bool:
        """Whether what a family makes of videos says how many frames each has."""
        return "video_grid_thw" in self.processor.video_processor.model_input_names

    def _numbers_of_each(self, shown: Sequence[Shown]) -> dict[str, torch.Tensor]:
        """Make the tensors of each by itself, and join them."""
        import torch

        return {
            "pixel_values": torch.cat([self._process([[each]])["pixel_values"] for each in shown])
        }

    def _process(self, rows: Sequence[Sequence[Shown]], **more: Any) -> Any:
        given: dict[str, Any] = {}
        for kind in self.kinds:
            parts = [[content for k, content in row if k == kind] for row in rows]
            if not any(parts):
                continue
            given[GIVEN[kind]] = parts
            if kind == "audio":
                given[GIVEN[kind]] = [self._hear(sound) for part in parts for sound in part]
                more = {**more, "sampling_rate": self._ear.sampling_rate}
            if kind == "video":
                given[GIVEN[kind]] = [video.frames for part in parts for video in part]
                times = [describe_video(video) for part in parts for video in part]
                more = {**more, "video_metadata": times, "do_sample_frames": False}
        text = ["".join(self.tokens[kind] for kind, _ in row) for row in rows]
        with warnings.catch_warnings():
            # of numpy, to the code of GLM 4V
            warnings.simplefilter("ignore", DeprecationWarning)
            return self.processor(text=text, **given, return_tensors="pt", padding=True, **more)

    @property
    def _ear(self) -> Any:
        return vars(self.processor)[FOR["audio"]]

    def _hear(self, sound: Any) -> Any:
        """Return the numbers of a sound, as fast as the model hears them.

        Raises:
            ValueError: if it is longer than the model hears, or of another rate and no package
                changes it.
        """
        rate, most = self._ear.sampling_rate, self._ear.n_samples
        seconds = len(sound.numbers) / sound.rate
        if seconds > most / rate:
            raise ValueError(f"it lasts {seconds:.1f} s, the model hears {most / rate:g} s at once")
        if sound.rate == rate:
            return sound.numbers
        try:
            soxr: Any = require("soxr", extra="audio")
        except MissingPackage as missing:
            raise ValueError(
                f"it has {sound.rate:,} samples a second, the model hears {rate:,}; soxr changes "
                f"that: {missing.hint}"
            ) from None
        return soxr.resample(sound.numbers, sound.rate, rate, quality="HQ")[:most]

    def save(self, folder: Path) -> None:
        """Write the processor's options beside a model, as the model's folder has them."""
        for name in (*PROCESSORS, BESIDE):
            if (self.folder / name).is_file():
                (folder / name).write_bytes((self.folder / name).read_bytes())


def sees(folder: Path) -> bool:
    """Whether a model's folder is of a family that takes more than text, and says how."""
    kind = check_files(folder, weights=False).get("model_type")
    has_options = any((folder / name).is_file() for name in PROCESSORS)
    return isinstance(kind, str) and takes_more(kind) and has_options


def load_senses(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Senses:
    """Load the processor of a model folder; it reads nothing if a package is missing.

    Raises:
        ModelError: if its options are damaged.
    """
    forbid_network()
    check_files(folder, weights=False)
    quiet_libraries()
    try:
        with without_notes():
            return _load(folder, tokenizer)
    except ImportError as problem:
        return Senses(
            folder, None, (), f"the model's processor is missing something: {_missing(problem)}"
        )
    except Exception as problem:  # the library raises many kinds for a damaged file
        raise ModelError(
            f"the processor cannot be used: {reason_of(problem)}",
            hint=f"copy {' and '.join(PROCESSORS)} of the model again",
            where=str(folder),
        ) from problem


def _missing(problem: ImportError) -> str:
    """Say which package is missing, in a line."""
    text = " ".join(str(problem).split())
    return text.split(". ")[0].split(" but it was not found")[0]


def _load(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Senses:
    from transformers import AutoFeatureExtractor, AutoImageProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    whole: Any = PROCESSOR_MAPPING[type(read_architecture(folder))]
    there = whole.get_attributes()
    safe = {"local_files_only": True, "trust_remote_code": False}
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    if FOR["image"] in there:
        parts[FOR["image"]] = AutoImageProcessor.from_pretrained(str(folder), backend="pil", **safe)
    if FOR["audio"] in there:
        parts[FOR["audio"]] = AutoFeatureExtractor.from_pretrained(str(folder), **safe)
    if FOR["video"] in there:
        reader = load_video_processor(folder)
        parts |= {} if reader is None else {FOR["video"]: reader}
    kind: Any = type(whole.__name__, (whole,), {"check_argument_for_proper_class": _check_part})
    options, _ = whole.get_processor_dict(str(folder), **safe)
    absent = {name: None for name in there if name not in parts}
    processor = kind.from_args_and_dict([], options, **parts, **absent)
    kinds = tuple(
        kind for kind, part in FOR.items() if part in parts and _is_known(parts[part], kind)
    )
    return Senses(folder, processor, kinds)


def _is_known(part: Any, kind: str) -> bool:
    """Whether a part says how much it takes in; others cut long sounds without a word."""
    return kind != "audio" or "n_samples" in vars(part)


def _check_part(processor: Any, name: str, part: Any) -> Any:
    """Let a part be none, or one that reads videos: transformers knows it by another name."""
    kind: Any = type(processor).__mro__[1]
    if part is None or name == FOR["video"]:
        return None
    return kind.check_argument_for_proper_class(processor, name, part)
