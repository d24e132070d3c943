"""Print how a run stands or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tunesmith.cli.tables import pairs, spell_figure
from tunesmith.logs import console
from tunesmith.runs.compare import summary

if TYPE_CHECKING:
    from tunesmith.runs.run import Run


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
    pairs("\nNext", _next_steps(run))


def _next_steps(run: Run) -> dict[str, object]:
    """Say what to type next; a model with a head gives no answers."""
    method = run.recipe().method.name
    steps: dict[str, object] = {"look": run.report_file}
    if method == "classify":
        steps["name"] = f"tunesmith classify {run.name} INPUT"
    elif method != "reward":
        steps["talk"] = f"tunesmith chat {run.name} --compare base"
    steps["measure"] = f"tunesmith evaluate {run.name}"
    steps["export"] = f"tunesmith export {run.name} --to my-model"
    if method not in ("classify", "reward"):
        steps["serve"] = f"tunesmith serve {run.name}"
    return steps


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
