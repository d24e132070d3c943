"""Spell what was measured of serving, for docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "serving.json"
OURS = "tunesmith"
NAMES = {
    OURS: "tunesmith",
    "naive": "`async def` around `generate`",
    "vllm_cpu": "vLLM on the CPU, eager",
    "llama_cpp_f32": "llama.cpp, weights and cache in f32",
}
INTRODUCTION = """## Serving

Tokens written a second of processor time of the server and all that it started, over HTTP, greedy, questions of 35 tokens,
every server on the same one core with the same weights in f32, all up at once and asked in turn; figures are medians. The
models are Qwen3 with random weights: 8M is 256 wide with 6 layers and a vocabulary of 8,192, 159M is 1,024 wide with 8
layers and one of 32,000. A case is named by its model and how many clients ask at once. The first text of the naive server
is its whole answer; p99 is the worst of 32. Answers are compared with those of transformers' `generate` in f32; where they
part, the nats between the two likeliest tokens of that place are told. `make bench-serving` measures.

"""


def serving_page() -> str:
    """Render what was measured; nothing where nothing was."""
    if not RESULTS.exists():
        return ""
    found = json.loads(RESULTS.read_text("utf-8"))
    cases = list(dict.fromkeys(run["case"] for run in found["runs"]))
    note = f"{found['note']}\n\n" if "note" in found else ""
    versions = ", ".join(
        f"{name}: " + " ".join(f"{package} {version}" for package, version in sorted(of.items()))
        for name, of in found["versions"].items()
    )
    tables = "".join(_table(case, found) for case in cases)
    return INTRODUCTION + note + tables + _adapters(found) + f"Versions: {versions}.\n\n"


def _table(case: str, found: dict[str, Any]) -> str:
    lines = [
        f"### {case}\n",
        "| server | tokens a CPU-second | ours writes more by | first text p50, p99, s | peak memory, MiB | /health p50, p99, ms | as `generate` writes |",
        "|---|---|---|---|---|---|---|",
    ]
    for contender, name in NAMES.items():
        runs = [r for r in found["runs"] if (r["case"], r["contender"]) == (case, contender)]
        if not runs:
            lines.append(f"| {name} | not measured | | | | | |")
            continue
        ratio = found["ratios"].get(f"{case}/{contender}")
        first = f"{_middle(runs, 'first_text_p50_seconds'):.2f}, {_middle(runs, 'first_text_p99_seconds'):.2f}"
        health = f"{_middle(runs, 'health_p50_seconds') * 1000:.0f}, {_middle(runs, 'health_p99_seconds') * 1000:.0f}"
        lines.append(
            f"| {name} | {_rate(_middle(runs, 'tokens_per_cpu_second'))} | "
            f"{f'{ratio:.2f}' if ratio else ''} | {first} | "
            f"{_middle(runs, 'peak_bytes') / 2**20:,.0f} | {health} | {_agreement(runs)} |"
        )
    return "\n".join(lines) + "\n\n"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _middle(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def _agreement(runs: list[dict[str, Any]]) -> str:
    same = sum(run["identical"] for run in runs)
    near = [gap for run in runs for gap in run["near_ties"]]
    other = [gap for run in runs for gap in run["different"]]
    told = f"{same} of {same + len(near) + len(other)}"
    if near:
        told += f"; {len(near)} near-ties, up to {max(near):.0e}"
    return told + (f"; {len(other)} others, up to {max(other):.0e}" if other else "")


def _adapters(found: dict[str, Any]) -> str:
    """Tell what adapters cost."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for run in found["runs"]:
        if run["contender"].startswith(f"{OURS}_"):
            runs.setdefault(run["contender"], []).append(run)
    if not runs:
        return ""
    rates = {name: _middle(of, "tokens_per_cpu_second") for name, of in runs.items()}
    lines = ["### Adapters, 8M/32\n", "| answers by | tokens a CPU-second |", "|---|---|"]
    lines += [
        f"| {name.removeprefix(f'{OURS}_').replace('_', ' ')} | {rate:,.0f} |"
        for name, rate in rates.items()
    ]
    return "\n".join(lines) + "\n\n"
