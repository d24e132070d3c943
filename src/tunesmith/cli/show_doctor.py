"""Print what the doctor finds, as it is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from tunesmith.logs import console

if TYPE_CHECKING:
    from tunesmith.doctor.findings import Ability, Finding

STYLES = {"good": "", "absent": "yellow", "broken": "red"}
WIDTH = 26


def show_examination(found: Iterator[Finding | Ability], *, as_json: bool) -> bool:
    """Print each finding; return whether the installation is whole."""
    kept = []
    part = ""
    for finding in found:
        kept.append(finding)
        if not as_json:
            part = _show(finding, part)
    whole = all(finding.state != "broken" for finding in kept)
    if as_json:
        import orjson

        told = [{**asdict(finding), "state": finding.state} for finding in kept]
        content = {"whole": whole, "found": told}
        typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
    elif not whole:
        console.print(Text("\nthis installation is broken: see the red lines", style="red"))
    return whole


def _show(finding: Finding | Ability, before: str) -> str:
    from tunesmith.doctor.findings import Finding

    if isinstance(finding, Finding):
        part, value = finding.part, finding.value
    else:
        part, value = "can be loaded, trained on (LoRA), merged", _spell(finding)
    if part != before:
        console.print(Text(f"\n{part}", style="bold"))
    line = Text(f"  {finding.name:<{WIDTH}} ", style="dim")
    line.append(value, style=f"not dim {STYLES[finding.state]}")
    if finding.hint:
        line.append(f"  -> {finding.hint}", style="not dim")
    console.print(line, soft_wrap=True)
    return part


def _spell(ability: Ability) -> str:
    able = {"load": ability.loads, "train": ability.trains, "merge": ability.merges}
    words = [name if can else f"no {name}" for name, can in able.items()]
    why = f" ({ability.why_not})" if ability.why_not else ""
    return f"{', '.join(words)}{why}"
