"""Find the model that somebody gives: by a name, or in a file of LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.errors import ModelError, RecipeError
from tunesmith.models.around import look_around
from tunesmith.models.chat import Subject, put_together
from tunesmith.paths import exists, expand
from tunesmith.recipe.llamafactory.file import read_file
from tunesmith.recipe.llamafactory.use import Use, Verb, read_use
from tunesmith.recipe.quantize import Quantize

ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Given:
    """A model to use.

    Attributes:
        name: what `find_subject` takes.
        use: what a file says of it; None if it was named.
    """

    name: str | Subject
    use: Use | None = None


def find_given(
    name: str,
    overrides: Sequence[str] = (),
    verb: Verb = "chat",
    *,
    to_export: bool = False,
) -> Given:
    """Find a model by its name, or the one that a file describes.

    Args:
        overrides: `key=value` for a file.
        verb: what is done with it.
        to_export: whether a file must name the folder of an export.

    Raises:
        RecipeError: if the file cannot be used, or there is none to override.
    """
    path = expand(name)
    if path.suffix in ENDINGS and exists(path) and path.is_file():
        use = read_use(read_file(path, overrides), look_around(), verb, to_export=to_export)
        found = put_together(use.model, use.adapters, use.template, use.quantize)
        return Given(_in_bits(found, use.quantize), use)
    if overrides:
        raise RecipeError(
            f"{overrides[0]!r} replaces a key of a LLaMA-Factory file, and {name} is none",
            hint="remove it; see the options with --help",
            where="command line",
        )
    return Given(name)


def _in_bits(found: Subject, quantize: Quantize | None) -> Subject:
    """Keep the base of a run in the bits that are asked for, unless it was trained in others."""
    if quantize is None or quantize == found.quantize:
        return found
    if found.quantize is not None:
        raise ModelError(
            f"the run was trained on a base of other bits: {found.quantize.kind}, and "
            f"{quantize.kind} is asked for",
            hint="leave them out: an adapter answers on what it was trained on",
            where=found.name,
        )
    return replace(found, quantize=quantize)
