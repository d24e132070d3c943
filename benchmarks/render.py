"""Write docs/benchmarks.md and its picture from the results: `python benchmarks/render.py`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from render_serving import serving_page

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
GPU_NAMES = {
    OURS: "tunesmith",
    "llamafactory_default": "LLaMA-Factory, its examples' settings",
    "llamafactory_tuned": "LLaMA-Factory, activations kept, larger batches, Liger kernels",
    "tunesmith_8192": "tunesmith, batches of 8,192 tokens",
    "tunesmith_4096": "tunesmith, batches of 4,096 tokens",
    "tunesmith_2048": "tunesmith, batches of 2,048 tokens",
    "tunesmith_on": "tunesmith, activations computed twice",
    "tunesmith_offload": "tunesmith, the same from main memory",
    "trl_default": "TRL, its defaults",
    "trl_tuned": "TRL, activations kept, larger batches, Liger kernels",
}
INTRODUCTION = """# Training speed against peers

Useful tokens (no padding) a second of processor time, on one thread, in fp32, 8 rows an update, rows of up to 1,024
tokens from two public sets in Chinese and English, the first update left out. Every contender ran in an environment and
a process of its own, on the same rows in the same order, in turn; figures are medians. Models have random weights: A is
256 wide with 4 layers and a vocabulary of 8,192, B 512 wide with 8 layers and 151,936, C has the shape of Qwen3-0.6B.
`make bench` measures, `benchmarks/render.py` writes this page. A ratio counts, a rate belongs to the machine.

All learn the same tokens: for the comparison we learn the newline after the end of a turn too, as the others do, so losses
have to agree to 1e-4 at each of the first updates; those of pairs to 3e-4, since they are differences of sums of thousands
of nats, which the others keep in fp32 and we in fp64. LLaMA-Factory divides its pretraining loss by all tokens, the first of
each row among them, which is predicted from nothing; here it is divided by those that are. A pair counts its question twice, as the others compute it. What a reference says of the
pairs is computed by us once, before the first update, and kept on disk for every later run over them; its processor time stands beside the table, and is in no rate. The share of the
ceiling is the counted work (`benchmarks/flops.py`) over the rate of a plain product of 1,024 on one thread.

"""
GPU = """## On a GPU

Useful tokens a second of wall time in bf16, the first three updates left out, the GPU waited for at the end of each update;
C has the shape of Qwen3-0.6B, D that of Qwen3-4B, random weights; the number at the end of a case is the rows of an update.
`make bench-gpu` measures; `--variants 8192,4096,2048,on,offload` adds ours in batches of so many tokens, with activations
computed twice, and with what they are computed from in main memory. torch was 2.11 there, not the 2.13 we ask for. SFT with 64
rows was measured anew (the peers of C/sft_full_64 were not), DPO and 8 rows stand as they were measured earlier: one run of
each. The machine starts kernels slowly, which helps whoever starts fewer: with 8 rows an update no contender keeps the GPU busy.

By itself a run takes the fastest way that fits, so its memory is what its largest batch takes. Both dials reach the goal of 0.6 of
LLaMA-Factory's memory and stay well ahead of it: activations computed twice, D runs 4.3 times as fast as it in 0.39 of its memory,
C with full tuning 3.2 times as fast in 0.40; in batches of 4,096 tokens C with LoRA runs 2.1 times as fast in 0.42. Half of
the GPU's peak is not reached: the share of D is the best. The estimate of memory was 1.01 to 1.14 of the peak with full tuning and with
activations computed twice, 1.13 to 1.26 with LoRA, where it counted wide copies of what norms are given; it does not any more,
and C with LoRA, measured again, stood at 1.10 (4.8 times as fast as LLaMA-Factory tuned). Losses of DPO part by up to 1 % in bf16, whoever computes them.

"""


def main() -> None:
    """Render the page and the picture."""
    found = json.loads((HERE / "results" / "train.json").read_text("utf-8"))
    cases = list(dict.fromkeys(run["case"] for run in found["runs"]))
    machine, versions = found["machine"], found["versions"]
    parts = [INTRODUCTION, f"Machine: {machine['processor']}, {machine['cores']} cores, "]
    parts.append(
        f"{machine['system']}; a plain product of 1,024 reaches "
        f"{machine['flops_of_a_product'] / 1e9:.0f} GFLOP/s on one thread.\n\n"
    )
    if "note" in found:  # what was not as usual; the next run takes it away
        parts.append(f"{found['note']}\n\n")
    parts += ["![ratios](benchmarks.svg)\n\n"]
    parts += [_table(case, found) for case in cases]
    if (HERE / "results" / "gpu.json").exists():
        parts.append(_gpu())
    parts.append(serving_page())
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
        "| contender | tokens a CPU-second | ours is faster by | share of the ceiling | peak memory, MiB | CPU-seconds to the end of the first update | losses of the first updates |",
        "|---|---|---|---|---|---|---|",
    ]
    for contender, name in NAMES.items():
        runs = [r for r in found["runs"] if (r["case"], r["contender"]) == (case, contender)]
        measured = [run for run in runs if "tokens_per_cpu_second" in run]
        if not measured:
            lines.append(f"| {name} | not timed | | | | | |")
            continue
        rate = statistics.median(run["tokens_per_cpu_second"] for run in measured)
        peak = statistics.median(run["peak_bytes"] for run in measured) / 2**20
        first = statistics.median(run["first_step_cpu_seconds"] for run in measured)
        ratio = found["ratios"].get(f"{case}/{contender}")
        faster = f"{ratio:.2f}" if ratio else ""
        losses = ", ".join(f"{loss:.4f}" for loss in measured[0]["losses"])
        shares = [run["share_of_ceiling"] for run in measured if "share_of_ceiling" in run]
        share = f"{statistics.median(shares):.0%}" if shares else ""
        lines.append(
            f"| {name} | {rate:,.0f} | {faster} | {share} | {peak:,.0f} | {first:.1f} | {losses} |"
        )
    return "\n".join(lines) + "\n\n" + _notes(case, found)


def _notes(case: str, found: dict[str, Any]) -> str:
    """Say what was estimated, and what the reference took."""
    ours = [r for r in found["runs"] if (r["case"], r["contender"]) == (case, OURS)]
    ours = [run for run in ours if "estimated_bytes" in run]
    if not ours:
        return ""
    estimate = statistics.median(run["estimated_bytes"] / run["peak_bytes"] for run in ours)
    text = f"Our estimate of the peak was {estimate:.2f} of it."
    taken = [run["reference_cpu_seconds"] for run in ours if "reference_cpu_seconds" in run]
    if taken:
        text += f" The reference took {statistics.median(taken):.1f} CPU-seconds once; counted in, "
        text += "we are faster by " + ", ".join(
            f"{found['ratios_of_a_first_run'][name]:.2f} ({NAMES[peer]})"
            for peer in NAMES
            if (name := f"{case}/{peer}") in found.get("ratios_of_a_first_run", {})
        )
        text += "."
    return text + "\n\n"


def _gpu() -> str:
    """Render what was measured on a GPU."""
    found = json.loads((HERE / "results" / "gpu.json").read_text("utf-8"))
    machine = found["machine"]
    rate = machine["product_flops"] / 1e12
    lines = [
        f"{machine['gpu']}; a product of 8,192 in bf16 reaches {rate:.0f} TFLOP/s.\n",
        "| case | contender | tokens a second | ours is faster by | share of the peak | GPU memory, GiB | seconds to the end of the first update | losses of the first updates |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        if "tokens_per_second" not in run:
            continue
        ratio = found["ratios"].get(f"{run['case']}/{run['contender']}")
        losses = ", ".join(f"{loss:.4f}" for loss in run["losses"])
        known = "share_of_peak" in run and "dpo" not in run["case"]
        share = f"{run['share_of_peak']:.1%}" if known else ""
        lines.append(
            f"| {run['case']} | {GPU_NAMES.get(run['contender'], run['contender'])} | {run['tokens_per_second']:,.0f} | "
            f"{f'{ratio:.2f}' if ratio else ''} | {share} | "
            f"{run['peak_gpu_bytes'] / 2**30:.1f} | {run['first_step_seconds']:.1f} | {losses} |"
        )
    return GPU + "\n".join(lines) + "\n\n"


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
