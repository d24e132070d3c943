"""Print what was exported and how near it is to the tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.cli.tables import pairs

if TYPE_CHECKING:
    from tunesmith.export.order import Exported
    from tunesmith.export.parity import Distance


def show_exported(exported: Exported) -> None:
    """Print folder, size and the proof."""
    distance, moved = exported.distance, exported.from_quantized
    ties = f", {exported.near_ties} near ties" if exported.near_ties else ""
    kept, unit, asks = "answers", "token", "prompts"
    if exported.labels:
        kept, unit, asks = "classes", "row", "rows"
    if exported.scores:
        kept, unit = "scores", "pair"
    use, command = next_step(exported)
    pairs(
        f"exported to {exported.folder}",
        {
            "weights": f"{exported.precision}, {exported.num_bytes:,} bytes",
            f"same {kept}": f"{exported.num_probes} {asks} of the run, in fp32{ties}",
            f"in {exported.precision}": spell_distance(distance, unit),
            **_calibrated(exported),
            **({"from the quantized one": spell_distance(moved)} if moved else {}),
            use: command,
        },
    )


def next_step(exported: Exported) -> tuple[str, str]:
    """Say what a person does with an export, and by which command."""
    folder = exported.folder
    if exported.labels:
        return "ask", f"tunesmith classify {folder} ..."
    if exported.scores:
        return "reward by it", f"method.rewards: [{{model: {folder}}}]"
    steps = {
        "gguf": ("serve", f"tunesmith serve {folder / 'model.gguf'}"),
        "ollama": ("serve", f"ollama create {folder.name.lower()} -f {folder / 'Modelfile'}"),
        "adapter": ("load", f"PeftModel.from_pretrained(base, '{folder}')"),
        "gguf-adapter": ("serve", f"llama-server -m BASE.gguf --lora {folder / 'adapter.gguf'}"),
    }
    return steps.get(exported.form, ("serve", f"tunesmith serve {folder}"))


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
