"""What the names of LLaMA-Factory's chat templates mean here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.paths import exists, expand
from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.yaml_file import read_yaml

TABLE = Path(__file__).with_name("templates.yaml")


@dataclass(frozen=True)
class Choice:
    """A chat template of ours.

    Attributes:
        template: a name or a path for `model.template`; None takes the model's own.
        system: the prompt that conversations without one begin with.
        note: what a person should know of it.
    """

    template: str | None = None
    system: str | None = None
    note: str = ""


@cache
def list_templates() -> dict[str, Any]:
    """List the names by what becomes of them."""
    return read_yaml(TABLE)


def choose_template(theirs: TheirFile, around: Around) -> Choice:
    """Choose the template that writes what theirs would.

    Raises:
        RecipeError: if there is none.
    """
    name, table = theirs["template"], list_templates()
    if name is None:
        return Choice()
    if name in table["same"]:
        return Choice(**table["same"][name])
    known = [*table["same"], *table["like_chatml"], *table["own"], *table["refused"]]
    if name not in known:
        return _file(theirs, name, known)
    if name in table["refused"]:
        raise theirs.refusal(
            "template",
            f"there is no template with the text of {name}",
            "leave template out to take the model's own, or name a .jinja file: template: x.jinja",
        )
    if around.has_template(theirs["model_name_or_path"]) is not False:
        return Choice(note="the chat template of the model's tokenizer is used")
    if name in table["like_chatml"]:
        return Choice("chatml", table["like_chatml"][name], "the model ships none: chatml is used")
    raise theirs.refusal(
        "template",
        f"the model ships no chat template, and there is none with the text of {name}",
        "write template: chatml or alpaca, or name a .jinja file: template: x.jinja",
    )


def _file(theirs: TheirFile, name: str, known: list[str]) -> Choice:
    if name.endswith(".jinja") and exists(expand(name)):
        return Choice(str(expand(name).absolute()))
    near = difflib.get_close_matches(name, known, n=1)
    raise theirs.refusal(
        "template",
        f"LLaMA-Factory has no template {name}",
        f"did you mean {near[0]}?" if near else "leave it out to take the model's own",
    )
