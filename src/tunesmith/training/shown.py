"""See to it that what rows show is seen by all that are asked about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tunesmith.data.prepare import Splits
from tunesmith.data.rows import Conversation, media_of
from tunesmith.errors import ModelError, RecipeError
from tunesmith.logs import logger
from tunesmith.methods.rewards.model import find_judge
from tunesmith.models.roles import find_reference
from tunesmith.models.senses import sees
from tunesmith.recipe.method import Online
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rewards import ScoredBy
from tunesmith.recipe.rules.defaults import has_default

log = logger(__name__)
SHOWING: Mapping[str, frozenset[str]] = {
    "data.media": frozenset({"image", "video", "audio"}),
    "data.image_pixels": frozenset({"image"}),
    "data.video_fps": frozenset({"video"}),
    "data.video_frames": frozenset({"video"}),
    "data.video_pixels": frozenset({"video"}),
}
"""Options of what conversations show, and the kinds that they are for."""


def check_shown(recipe: Recipe, splits: Splits, beside: Sequence[Path]) -> None:
    """Refuse what is told of images where none are shown, and images that another model cannot see.

    Args:
        beside: folders of models that are shown what the rows show.

    Raises:
        RecipeError: naming the option that has no effect.
        ModelError: naming the folder of the model.
    """
    asked = {option: kinds for option, kinds in SHOWING.items() if not has_default(recipe, option)}
    reference = find_reference(recipe)
    rewards = recipe.method.rewards if isinstance(recipe.method, Online) else ()
    judges = [find_judge(each).base for each in rewards if isinstance(each, ScoredBy)]
    others = [*beside, *judges, *([] if reference is None else [reference])]
    blind = [folder for folder in others if not sees(folder)]
    if not asked and not blind:
        return
    shown = kinds_shown(splits)
    for option, kinds in asked.items():
        if not shown & kinds:
            _say_idle(recipe, option)
    if blind and shown:
        raise ModelError(
            "the rows show something, and the model beside the one that learns reads text alone",
            hint="name a teacher, a reference or a judge that sees",
            where=str(blind[0]),
        )


def _say_idle(recipe: Recipe, option: str) -> None:
    """Refuse an option that nothing is there for; in files of others all kinds have theirs.

    Raises:
        RecipeError: naming it.
    """
    what = f"{option} has no effect: no row shows anything that it is for"
    if not recipe.run.compatible_outputs:
        raise RecipeError(what, hint="remove it, or name rows that show such", where=option)
    log.warning("%s", what)


def kinds_shown(splits: Splits) -> set[str]:
    """List the kinds of what rows show."""
    parts = [part for part in (splits.train, splits.validation) if part is not None]
    rows = (part.conversation(number) for part in parts for number in range(len(part)))
    shown = (media_of(row) for row in rows if isinstance(row, Conversation))
    return {medium.kind for media in shown for medium in media}
