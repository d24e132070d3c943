"""Print what a run would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.tables import pairs, spell_seconds

if TYPE_CHECKING:
    from tunesmith.training.plan import Plan


ACTIVATIONS = {
    "off": "",
    "on": ", activations computed twice",
    "offload": ", activations computed twice, from what main memory keeps",
}


def show_plan(plan: Plan) -> None:
    """Print the counts and estimates of a run that has not started."""
    checkpointing = ACTIVATIONS[plan.checkpointing]
    several = plan.processes > 1
    where = f"{plan.processes} processes, each on {plan.device}" if several else plan.device
    each = ", for each process" if several else ""
    learned = f"{plan.learned_share:.0%} of them learned"
    writing = ""
    if plan.answers:
        learned = f"and {plan.answers} answers to each, written while it learns"
        writing = " at most, and as long as it takes to write the answers"
    pairs(
        "The run would",
        {
            "learn from": f"{plan.rows:,} rows, {plan.tokens:,} tokens "
            f"({learned}), the longest {plan.longest_row:,}",
            "not use": f"{plan.reported_rows:,} rows; cut {plan.cut_rows:,} to data.max_tokens",
            "measure on": f"{plan.validation_rows:,} held-out rows",
            "train": f"{plan.num_trained:,} of {plan.num_weights:,} weights "
            f"({plan.num_trained / plan.num_weights:.1%})",
            "make": f"{plan.steps:,} updates, {plan.epochs:g} epochs",
            "compute on": f"{where} in {plan.precision}, {plan.tokens_per_batch:,} tokens at "
            f"once{checkpointing}",
            "need": f"about {plan.memory_gib:.1f} GiB of memory "
            f"({plan.free_gib:.1f} are free{each}), {plan.disk_gib:.2f} GiB of disk",
            **({"not fit": f"{plan.change}"} if plan.change else {}),
            "take": f"about {spell_seconds(plan.seconds)}{writing}",
        },
    )
