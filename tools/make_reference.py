"""Write docs/reference from the schema and the commands' own help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tunesmith.recipe.llamafactory.keys import Key, list_keys
from tunesmith.recipe.llamafactory.templates import list_templates
from tunesmith.recipe.schema import Option, describe_section, list_options, name_kinds

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
COMMANDS = (
    "demo",
    "doctor",
    "train",
    "evaluate",
    "chat",
    "classify",
    "export",
    "serve",
    "keys create",
    "keys list",
    "keys revoke",
    "data check",
    "data show",
    "recipe new",
    "recipe check",
    "recipe convert",
    "recipe explain",
    "recipe schema",
    "runs list",
    "runs show",
    "runs logs",
    "runs stop",
    "runs resume",
    "runs compare",
    "runs delete",
)


def main() -> None:
    """Write all pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    (REFERENCE / "recipe.md").write_text(recipe_page(), encoding="utf-8")
    (REFERENCE / "commands.md").write_text(commands_page(), encoding="utf-8")
    (REFERENCE / "llamafactory.md").write_text(llamafactory_page(), encoding="utf-8")


def recipe_page() -> str:
    """List every option of a recipe."""
    lines = ["# Every option of a recipe", "", "Written by `make docs` from the schema.", ""]
    section, choice = "", None
    for option in list_options():
        if option.section != section:
            section, choice = option.section, None
            lines += [f"## {section}", ""]
        if option.choice and option.choice != choice:
            choice = option.choice
            lines += [f"### {choice[0]}: {name_kinds(option)}", ""]
        default = f"default `{option.default}`" if option.default else "must be given"
        lines += [f"**`{option.name}`** ({option.type}, {default})  ", option.help, ""]
        if chooses_kind(option):
            kinds = describe_section(section).items()
            lines += [*(f"- `{kind}`: {what}" for kind, what in kinds), ""]
    return "\n".join(lines)


def chooses_kind(option: Option) -> bool:
    """Whether an option is the one that the kinds of its section are told apart by."""
    kinds = describe_section(option.section)
    return len(kinds) > 1 and option.type == " | ".join(kinds)


def llamafactory_page() -> str:
    """List every key of a LLaMA-Factory file and what becomes of it."""
    lines = [
        "# Every key of a LLaMA-Factory file",
        "",
        "Written by `make docs` from the table.",
        "",
    ]
    group = ""
    for key in list_keys().values():
        if key.group != group:
            group = key.group
            lines += [
                f"## {group}",
                "",
                "| key | default there | what becomes of it |",
                "|---|---|---|",
            ]
        lines.append(f"| `{key.name}` | {spell_key_default(key)} | {fate(key)} |")
        if last_of_group(key):
            lines.append("")
    return "\n".join([*lines, *template_lines()])


def last_of_group(key: Key) -> bool:
    """Whether the next key is of another group."""
    keys = list(list_keys().values())
    place = keys.index(key)
    return place + 1 == len(keys) or keys[place + 1].group != key.group


def spell_key_default(key: Key) -> str:
    """Spell a default as YAML does."""
    return "" if key.default is None else f"`{json.dumps(key.default, ensure_ascii=False)}`"


def fate(key: Key) -> str:
    """Say what becomes of a key."""
    if key.to:
        return f"`{key.to}`"
    if key.ignored:
        return f"ignored: {key.ignored}"
    return f"refused unless off: {key.refused}; {key.hint}"


def template_lines() -> list[str]:
    """Say what the names of templates mean."""
    table = list_templates()
    names = {what: ", ".join(f"`{name}`" for name in table[what]) for what in table}
    return [
        "## Names of templates",
        "",
        "| `template:` | what is taken |",
        "|---|---|",
        f"| {names['same']} | ours, which writes the same text |",
        f"| {names['like_chatml']} | the model's own; `chatml` where the model ships none |",
        f"| {names['own']} | the model's own; refused where the model ships none |",
        f"| {names['refused']} | refused: put in the place of the model's own there |",
        "| a path that ends in `.jinja` | that file |",
        "",
    ]


def commands_page() -> str:
    """Print the help of every command."""
    lines = ["# Every command", "", "Written by `make docs` from the commands' own help.", ""]
    for command in COMMANDS:
        lines += [f"## tunesmith {command}", "", "```", help_of(command), "```", ""]
    return "\n".join(lines)


def help_of(command: str) -> str:
    """Ask a command for its help, 100 columns wide."""
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "tunesmith", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100"},
    )
    return result.stdout.replace("python -m tunesmith", "tunesmith").strip()


if __name__ == "__main__":
    main()
