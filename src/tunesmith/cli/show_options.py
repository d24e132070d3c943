"""Print the options of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.padding import Padding
from rich.text import Text

from tunesmith.logs import console
from tunesmith.recipe.schema import Option, describe_section, name_kinds


def show_options(options: Sequence[Option]) -> None:
    """Print options under their sections and kinds, each with its type, default and help."""
    section, choice = "", None
    for option in options:
        if option.section != section:
            section, choice = option.section, None
            console.print(Text(f"\n{section}", style="bold"))
        if option.choice != choice and option.choice is not None:
            choice = option.choice
            tag, *kinds = choice
            known = describe_section(section)
            what = f"  {known[kinds[0]]}" if len(kinds) == 1 else ""
            console.print(Text(f"  {tag}: {name_kinds(option)}{what}", style="italic"))
        default = f", default {option.default}" if option.default else ", must be given"
        line = Text("  ").append(option.name, style="cyan").append(f"  {option.type}{default}")
        console.print(line)
        console.print(Padding(Text(option.help), (0, 0, 0, 6)))
