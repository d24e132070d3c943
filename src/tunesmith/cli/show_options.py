"""Print the options of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.padding import Padding
from rich.text import Text

from tunesmith.logs import console
from tunesmith.recipe.schema import Option, describe_section


def show_options(options: Sequence[Option]) -> None:
    """Print options under their sections and kinds, each with its type, default and help."""
    section, choice = "", None
    for option in options:
        if option.section != section:
            section, choice = option.section, None
            console.print(Text(f"\n{section}", style="bold"))
        if option.choice != choice and option.choice is not None:
            choice = option.choice
            what = describe_section(section)[choice[1]]
            console.print(Text(f"  {choice[0]}: {choice[1]}  {what}", style="italic"))
        default = f", default {option.default}" if option.default else ", must be given"
        line = Text("  ").append(option.name, style="cyan").append(f"  {option.type}{default}")
        console.print(line)
        console.print(Padding(Text(option.help), (0, 0, 0, 6)))
