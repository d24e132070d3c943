"""Print what was exported and how near it is to the tuned model."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from tunesmith.cli.tables import pairs

if TYPE_CHECKING:
    from pathlib import Path

    from tunesmith.export.order import Exported
    from tunesmith.export.parity import Distance


def show_exported(exported: Exported, *, of_run: bool = True) -> None:
    """Print folder, size and the proof.

    Args:
        of_run: whether the prompts were a run's own.
    """
    distance, moved = exported.distance, exported.from_quantized
    ties = f", {exported.near_ties} near ties" if exported.near_ties else ""
    kept, unit, asks = "answers", "token", "prompts"
    whose = " of the run" if of_run else ""
    if exported.labels:
        kept, unit, asks = "classes", "row", "rows"
    if exported.scores:
        kept, unit = "scores", "pair"
    use, command = next_step(exported)
    pairs(
        f"exported to {exported.folder}",
        {
            "weights": f"{exported.precision}, {exported.num_bytes:,} bytes",
            f"same {kept}": f"{exported.num_probes} {asks}{whose}, in fp32{ties}",
            f"in {exported.precision}": spell_distance(distance, unit),
            **_calibrated(exported),
            **({"from the quantized one": spell_distance(moved)} if moved else {}),
            use: command,
        },
    )


def next_step(exported: Exported) -> tuple[str, str]:
    """Say what a person does with an export, and by which command."""
    folder, model = exported.folder, _quoted(exported.folder)
    if exported.labels:
        return "ask", f"tunesmith classify {model} ..."
    if exported.scores:
        return "reward by it", f"method.rewards: [{{model: {folder}}}]"
    steps = {
        "gguf": ("serve", f"tunesmith serve {_quoted(folder / 'model.gguf')}"),
        "ollama": (
            "serve",
            f"ollama create {_name_for_ollama(folder)} -f {_quoted(folder / 'Modelfile')}",
        ),
        "adapter": ("load", f"PeftModel.from_pretrained(base, {str(folder)!r})"),
        "gguf-adapter": (
            "serve",
            f"llama-server -m BASE.gguf --lora {_quoted(folder / 'adapter.gguf')}",
        ),
    }
    return steps.get(exported.form, ("serve", f"tunesmith serve {model}"))


def _quoted(path: Path) -> str:
    """Spell a path as one word of a command."""
    return shlex.quote(str(path))


def _name_for_ollama(folder: Path) -> str:
    """Name a model after a folder, in the letters that Ollama takes."""
    return re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-._") or "model"


def _calibrated(exported: Exported) -> dict[str, str]:
    if not exported.calibrated:
        return {}
    return {"calibrated on": f"{exported.calibrated:,} tokens"}


def spell_distance(distance: Distance, unit: str = "token") -> str:
    """Say how far a model is from another."""
    return (
        f"KL {distance.kl:.1e} nats a {unit}, same choice for {distance.top1:.1%} of "
        f"{distance.num_tokens} {unit}s"
    )
