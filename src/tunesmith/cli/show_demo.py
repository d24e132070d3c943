"""Print what the demo does and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.show_export import show_exported
from tunesmith.cli.show_run import say
from tunesmith.cli.show_scores import show_scores
from tunesmith.cli.tables import pairs
from tunesmith.demo.demo import Told

if TYPE_CHECKING:
    from tunesmith.evaluation.scores import Scores
    from tunesmith.runs.run import Run


def show_steps() -> Told:
    """Return what prints each step of the demo."""
    return Told(step=_step, scores=_scores, exported=show_exported, said=_said)


def _step(title: str) -> None:
    say(f"\n{title}", style="bold cyan")


def _scores(scores: Scores) -> None:
    show_scores(scores, show=len(scores.answers))


def _said(question: str, answer: str) -> None:
    say(f"  > {question}\n    {answer}")


def show_next(run: Run) -> None:
    """Print what to type next: with this run, with one's own data, with a larger model."""
    pairs(
        "\nNext",
        {
            "look at the curves": run.report_file,
            "talk to it / 对话": f"tunesmith chat {run.name} --compare base",
            "your data / 用您的数据": "tunesmith recipe new my.yaml --data your-rows.jsonl",
            "train / 训练": "tunesmith train my.yaml",
            "a larger model / 换大模型": "tunesmith train my.yaml model.name=Qwen/Qwen3-0.6B "
            "(or its folder; copy it here first)",
        },
    )
