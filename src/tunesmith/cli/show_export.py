"""Print what was exported and how near it is to the tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.tables import pairs

if TYPE_CHECKING:
    from tunesmith.export.export import Exported


def show_exported(exported: Exported) -> None:
    """Print folder, size and the proof."""
    distance = exported.distance
    ties = f", {exported.near_ties} near ties" if exported.near_ties else ""
    pairs(
        f"exported to {exported.folder}",
        {
            "weights": f"{exported.precision}, {exported.num_bytes:,} bytes",
            "same answers": f"{exported.num_probes} prompts of the run, in fp32{ties}",
            f"in {exported.precision}": f"KL {distance.kl:.1e} nats a token, same choice for "
            f"{distance.top1:.1%} of {distance.num_tokens} tokens",
            "serve": f"tunesmith serve {exported.folder}",
        },
    )
