"""Print what was exported and how near it is to the tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.tables import pairs

if TYPE_CHECKING:
    from tunesmith.export.export import Exported
    from tunesmith.export.parity import Distance


def show_exported(exported: Exported) -> None:
    """Print folder, size and the proof."""
    distance, moved = exported.distance, exported.from_quantized
    ties = f", {exported.near_ties} near ties" if exported.near_ties else ""
    pairs(
        f"exported to {exported.folder}",
        {
            "weights": f"{exported.precision}, {exported.num_bytes:,} bytes",
            "same answers": f"{exported.num_probes} prompts of the run, in fp32{ties}",
            f"in {exported.precision}": spell_distance(distance),
            **({"from the quantized one": spell_distance(moved)} if moved else {}),
            "serve": f"tunesmith serve {exported.folder}",
        },
    )


def spell_distance(distance: Distance) -> str:
    """Say how far a model is from another."""
    return (
        f"KL {distance.kl:.1e} nats a token, same choice for {distance.top1:.1%} of "
        f"{distance.num_tokens} tokens"
    )
