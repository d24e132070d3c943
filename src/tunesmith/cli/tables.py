"""Tables and figures as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from tunesmith.logs import console


def pairs(title: str, values: Mapping[str, object]) -> None:
    """Print names and values under a title."""
    console.print(Text(title, style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(Text(f"  {name}", style="dim"), Text(str(value)))
    console.print(grid)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under column names."""
    found = Table(*columns, box=None, padding=(0, 2), header_style="bold", pad_edge=False)
    for row in rows:
        found.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console.print(found)


def spell_seconds(seconds: float) -> str:
    """Spell a duration for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def spell_figure(value: float | None) -> str:
    """Spell a figure with four digits that count."""
    return "" if value is None else f"{value:,.4g}"
