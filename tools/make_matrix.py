"""Write docs/reference/matrix.md from what `make proof` found out about each combination.

The proofs leave `build/matrix.json`; its cells take the place of older ones in
docs/reference/matrix.json, which the next proof is compared with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from tunesmith.recipe.compute import Compute
from tunesmith.recipe.schema import QUANTIZE, describe_section

ROOT = Path(__file__).parent.parent
FOUND = ROOT / "build" / "matrix.json"
REFERENCE = ROOT / "docs" / "reference"
Table = dict[str, dict[str, str]]


def main() -> None:
    """Take over what was found, and write the page."""
    known = REFERENCE / "matrix.json"
    tables: dict[str, Table] = json.loads(known.read_text("utf-8")) if known.exists() else {}
    found: dict[str, Table] = json.loads(FOUND.read_text("utf-8")) if FOUND.exists() else {}
    for table, rows in found.items():
        for row, cells in rows.items():
            tables.setdefault(table, {}).setdefault(row, {}).update(cells)
    known.write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (REFERENCE / "matrix.md").write_text(matrix_page(), "utf-8")


def matrix_page() -> str:
    """Show all tables: what runs, and why the rest does not."""
    tables: dict[str, Table] = json.loads((REFERENCE / "matrix.json").read_text("utf-8"))
    tunings, forms = list(describe_section("tuning")), list(tables.get("forms", {}))
    methods, kinds = list(describe_section("method")), list(describe_section(QUANTIZE))
    precisions = get_args(Compute.model_fields["precision"].annotation)
    kept = [*(precision for precision in precisions if precision != "auto"), *kinds]
    return "\n".join(
        [
            "# What goes with what",
            "",
            "Written from what `make proof` found on a CPU with tiny models of random weights.",
            "✓ ran; a number was not, for the reason below the table; · was not tried.",
            "",
            "## Methods and tunings",
            "",
            "Each trained by updates of its own rows, in fp32.",
            "",
            *render(tables.get("methods", {}), "method", methods, tunings),
            "## Methods and forms of lora",
            "",
            "The same with `tuning.kind: lora` and the options of a form:",
            "",
            *(f"- `{form}`: `{cells['written']}`" for form, cells in tables["forms"].items()),
            "",
            *render(tables.get("methods", {}), "method", methods, forms),
            "## Tunings and precisions",
            "",
            "`sft` on the base in each `compute.precision`, and in each `model.quantize`.",
            "On a GPU `tests/gpu` runs bf16, fp16, 4 and 8 bits, and sft, dpo, grpo, ppo,",
            "classify, distill and models that see, beside a CPU.",
            "",
            *render(tables.get("precisions", {}), "tuning", [*tunings, *forms], kept),
            "## Families of models",
            "",
            "Each trained with `sft`, asked a question, and exported; plain transformers opens",
            "the export with the logits of the tuned model. Rows lie end to end where a family",
            "lets them, which is faster; otherwise they are padded, for the reason named.",
            "",
            *render_families(tables.get("families", {})),
            *remote_lines(),
        ]
    )


def render(table: Table, corner: str, rows: list[str], columns: list[str]) -> list[str]:
    """Draw a table of ticks and numbers, and the reasons below it."""
    reasons: list[str] = []
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [mark(table.get(row, {}).get(column), reasons) for column in columns]
        lines.append(f"| `{row}` | {' | '.join(cells)} |")
    listed = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return [*lines, "", *listed, *([""] if listed else [])]


def mark(said: str | None, reasons: list[str]) -> str:
    """Say in a sign what a cell says, and remember its reason."""
    if said is None:
        return "·"
    if said == "runs":
        return "✓"
    if said not in reasons:
        reasons.append(said)
    return str(reasons.index(said) + 1)


def render_families(table: Table) -> list[str]:
    """Draw the table of families."""
    lines = ["| family | `model_type` | lora | full | rows |", "|---|---|---|---|---|"]
    for family, cells in table.items():
        ran = " | ".join(mark(cells.get(kind), []) for kind in ("lora", "full"))
        lines.append(f"| {family} | `{cells['model_type']}` | {ran} | {cells['rows']} |")
    return [*lines, ""]


def remote_lines() -> list[str]:
    """Name the families that are refused."""
    from tunesmith.models.remote import REMOTE

    lines = [
        "## Families that are refused",
        "",
        "Their models are code in the folder (`auto_map` in config.json), which is never run.",
        "",
        "| family | `model_type` | what to do |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | `{kind}` | {way_out} |" for kind, (name, way_out) in REMOTE.items()]
    return [*lines, ""]


if __name__ == "__main__":
    main()
