"""Write docs/benchmarks.md and its picture from the results: `python benchmarks/render.py`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
OURS = "tunesmith_default"
NAMES = {
    OURS: "tunesmith",
    "llamafactory_default": "LLaMA-Factory, its examples' settings",
    "llamafactory_tuned": "LLaMA-Factory, activations kept",
    "trl_default": "TRL, its defaults in fp32",
    "trl_tuned": "TRL, row by row, activations kept",
}
INTRODUCTION = """# Training speed against peers

Useful tokens (no padding) a second of processor time, on one thread, in fp32, 8 rows an update, rows of up to 1,024
tokens from two public sets in Chinese and English, the first update left out. Every contender ran in an environment and
a process of its own, on the same rows in the same order, in turn; figures are medians. Models have random weights: A is
256 wide with 4 layers and a vocabulary of 8,192, B 512 wide with 8 layers and 151,936, C has the shape of Qwen3-0.6B.
`make bench` measures, `benchmarks/render.py` writes this page. A ratio counts, a rate belongs to the machine.

"""


def main() -> None:
    """Render the page and the picture."""
    found = json.loads((HERE / "results" / "train.json").read_text("utf-8"))
    cases = list(dict.fromkeys(run["case"] for run in found["runs"]))
    machine, versions = found["machine"], found["versions"]
    parts = [INTRODUCTION, f"Machine: {machine['processor']}, {machine['cores']} cores, "]
    parts.append(
        f"{machine['system']}; a plain product of 1,024 reaches "
        f"{machine['gflops_of_a_product_on_one_thread']:.0f} GFLOP/s on one thread.\n\n"
    )
    parts += ["![ratios](benchmarks.svg)\n\n"]
    parts += [_table(case, found) for case in cases]
    listed = [
        f"- {name}: " + ", ".join(f"{package} {version}" for package, version in sorted(of.items()))
        for name, of in versions.items()
    ]
    parts += ["## Versions\n\n", "\n".join(listed), "\n"]
    (DOCS / "benchmarks.md").write_text("".join(parts), "utf-8")
    _draw(cases, found["ratios"])


def _table(case: str, found: dict[str, Any]) -> str:
    lines = [
        f"## {case}\n",
        "| contender | tokens a CPU-second | ours is faster by | peak memory, MiB | CPU-seconds to the end of the first update | losses of the first updates |",
        "|---|---|---|---|---|---|",
    ]
    for contender, name in NAMES.items():
        runs = [r for r in found["runs"] if (r["case"], r["contender"]) == (case, contender)]
        measured = [run for run in runs if "tokens_per_cpu_second" in run]
        if not measured:
            lines.append(f"| {name} | did not run | | | | |")
            continue
        rate = statistics.median(run["tokens_per_cpu_second"] for run in measured)
        peak = statistics.median(run["peak_bytes"] for run in measured) / 2**20
        first = statistics.median(run["first_step_cpu_seconds"] for run in measured)
        ratio = found["ratios"].get(f"{case}/{contender}")
        faster = f"{ratio:.2f}" if ratio else ""
        losses = ", ".join(f"{loss:.4f}" for loss in measured[0]["losses"])
        lines.append(f"| {name} | {rate:,.0f} | {faster} | {peak:,.0f} | {first:.1f} | {losses} |")
    return "\n".join(lines) + "\n\n"


def _draw(cases: list[str], ratios: dict[str, float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tunesmith"
    from matplotlib import pyplot

    peers = [name for name in NAMES if name != OURS]
    figure, axes = pyplot.subplots(figsize=(9, 4))
    width = 0.8 / len(peers)
    for at, peer in enumerate(peers):
        heights = [ratios.get(f"{case}/{peer}", 0.0) for case in cases]
        places = [place + at * width for place in range(len(cases))]
        bars = axes.bar(places, heights, width, label=NAMES[peer])
        axes.bar_label(bars, [f"{height:.1f}" if height else "" for height in heights], fontsize=7)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(cases))], cases, fontsize=8)
    axes.set_ylabel("our rate over theirs")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(DOCS / "benchmarks.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
