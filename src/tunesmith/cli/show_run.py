"""Print how a run stands or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tunesmith.cli.tables import pairs, spell_figure
from tunesmith.logs import console
from tunesmith.runs.compare import summary

if TYPE_CHECKING:
    from tunesmith.runs.run import Run

CLOSED = {"classify": ("talk", "serve"), "reward": ("talk", "ask", "export", "serve")}
"""What cannot be done with the models of some methods; all others are not asked for classes."""


def show_end(run: Run) -> None:
    """Print what came of a run, what its curves say, and what to type next."""
    from tunesmith.training.advice import advise

    status = run.status()
    if status.state != "done":
        say(f"{run.name}: {status.message or status.state}")
        say(f"to go on: {status.hint or f'tunesmith runs resume {run.name}'}")
        return
    pairs(run.name, spelled_summary(run))
    for advice in advise(run.metrics()):
        say(f"\n{advice.seen}.\n  {advice.do}.", style="yellow" if is_bad(advice.kind) else "")
    ways = {
        "look": str(run.report_file),
        "talk": f"tunesmith chat {run.name} --compare base",
        "ask": f"tunesmith classify {run.name} ...",
        "measure": f"tunesmith evaluate {run.name}",
        "export": f"tunesmith export {run.name} --to my-model",
        "serve": f"tunesmith serve {run.name}",
    }
    closed = CLOSED.get(run.recipe().method.name, ("ask",))
    pairs("\nNext", {name: way for name, way in ways.items() if name not in closed})


def show_detached(run: Run) -> None:
    """Print how to follow and to stop a run in the background."""
    pairs(
        f"{run.name} runs in the background",
        {
            "follow": f"tunesmith runs logs -f {run.name}",
            "look": f"tunesmith runs show {run.name}",
            "stop": f"tunesmith runs stop {run.name}",
        },
    )


def spelled_summary(run: Run) -> dict[str, str]:
    """Spell the figures of a run."""
    return {name: spell_figure(value) for name, value in summary(run).items() if value is not None}


def is_bad(kind: str) -> bool:
    """Whether an advice tells of a run that should not be used as it is."""
    return kind in ("diverged", "overfits", "slow")


def say(text: str, style: str = "") -> None:
    """Print a line as it is: names may hold what looks like markup."""
    console.print(Text(text, style=style))
