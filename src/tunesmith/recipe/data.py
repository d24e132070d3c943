"""Which rows a run learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tunesmith.recipe.section import Count, CountOrZero, Number, Positive, Section, WholeNumber

FormatName = Literal[
    "auto",
    "alpaca",
    "sharegpt",
    "messages",
    "completion",
    "text",
    "alpaca_pairs",
    "sharegpt_pairs",
    "messages_pairs",
    "prompt_pairs",
    "alpaca_judged",
    "sharegpt_judged",
    "messages_judged",
    "completion_judged",
    "alpaca_prompts",
    "sharegpt_prompts",
    "messages_prompts",
    "completion_prompts",
    "prompts",
    "labelled",
    "labelled_images",
]


class Source(Section):
    """One set of rows."""

    path: str = Field(min_length=1)
    """A file, a folder of files, or the name of an entry of `data.info`."""
    format: FormatName = "auto"
    """How rows are written; `auto` looks at the first ones."""
    weight: Positive | None = None
    """Share of this set in the mix, relative to the others; without one, every row is used once."""
    max_rows: Count | None = None
    """Use at most so many rows of this set, drawn with the run's seed."""
    split: str | None = None
    """Read only files of this name in a folder (`train` reads train.jsonl, train-00000.parquet)."""
    columns: dict[str, str] = Field(default={})
    """Names of the columns where they differ: `{instruction: question, output: answer}`."""
    tags: dict[str, str] = Field(default={})
    """Names of roles and keys inside sharegpt messages: `{role_tag: from, user_tag: human}`."""


class HeldOut(Source):
    """One set of rows to measure on."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What the set is called where it is measured by itself too: `eval_NAME_loss`."""


def _as_source(value: Any) -> Any:
    return {"path": str(value)} if isinstance(value, str | Path) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path | dict | Source) else value


def _as_named(value: Any) -> Any:
    """Give a mapping's names to its sets."""
    if not isinstance(value, dict) or "path" in value:
        return _as_list(value)
    sources = {name: _as_source(source) for name, source in value.items()}
    return [
        {**source, "name": name} if isinstance(source, dict) else source
        for name, source in sources.items()
    ]


Named = Annotated[Source, BeforeValidator(_as_source, json_schema_input_type=str | Source)]
Sources = Annotated[
    tuple[Named, ...],
    BeforeValidator(_as_list, json_schema_input_type=str | Source | tuple[Named, ...]),
]


NamedHeldOut = Annotated[HeldOut, BeforeValidator(_as_source, json_schema_input_type=str | HeldOut)]
HeldOuts = Annotated[
    tuple[NamedHeldOut, ...],
    BeforeValidator(
        _as_named,
        json_schema_input_type=str | HeldOut | tuple[NamedHeldOut, ...] | dict[str, str | Source],
    ),
]


class Data(Section):
    """The rows we learn from."""

    train: Sources = Field(min_length=1)
    """Files, folders or names of `info` to learn from; a path or `{path, weight, format, ...}`."""
    mix_until: Literal["total", "first", "last"] = "total"
    """How many rows weighted sets give together: as many as they hold (`total`), or until the
    `first` or the `last` of them has given all its rows."""
    validation: HeldOuts = ()
    """Files to measure the held-out loss on, never learned; `{name: file}` measures each by itself
    too."""
    validation_share: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training rows held out for validation, drawn with the run's seed."""
    validation_rows: Count | None = None
    """How many of the training rows are held out, instead of a share of them."""
    info: Path | None = None
    """A LLaMA-Factory `dataset_info.json` that describes sets by name."""
    max_tokens: Count = 1024
    """Longest row in tokens; see `on_long_row`."""
    max_rows: Count | None = None
    """Use at most so many training rows in all, drawn with the run's seed."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` names every bad row and ends; `skip` leaves them out and says how many."""
    on_long_row: Literal["cut", "skip", "stop"] = "cut"
    """What to do with rows over `max_tokens`: cut their end, leave them out, or stop."""
    system: str | None = None
    """System prompt for conversations that have none."""
    media: Path | None = None
    """Folder that images, videos and sounds named in rows lie in; the folder of the rows' own file
    if not given."""
    image_pixels: Count | None = None
    """Make images of conversations with more pixels than this smaller first; they take fewer
    tokens then."""
    video_fps: Positive = Field(default=2.0, le=1000)
    """Frames that are taken of a video a second, evenly spread from the first to the last."""
    video_frames: WholeNumber = Field(default=128, ge=2, le=1024)
    """Frames that are taken of a video at most."""
    video_pixels: Count | None = None
    """Make frames of videos with more pixels than this smaller first; they take fewer tokens
    then."""
    encoding: str = "auto"
    """Text encoding of the files: `auto`, `utf-8`, `utf-16`, `gbk`, ..."""
    workers: CountOrZero = 0
    """Processes that load batches beside training; 0 loads them in the training process."""
