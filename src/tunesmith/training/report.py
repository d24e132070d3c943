"""Write what a person looks at after a run: the curves as a picture, and one page with it all."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment

from tunesmith.recipe.schema import list_options, spell
from tunesmith.runs.compare import summary
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_bytes, write_text
from tunesmith.training.advice import advise
from tunesmith.training.curves import draw_curves
from tunesmith.training.samples import read_samples

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write_report(run: Run) -> None:
    """Write `loss.png` and `report.html`, which needs no other file and no network."""
    metrics = run.metrics()
    picture = draw_curves(metrics)
    write_bytes(run.curves_file, picture)
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    data = orjson.loads(run.data_file.read_bytes())
    write_text(
        run.report_file,
        page.render(
            name=run.name,
            status=run.status(),
            picture=base64.b64encode(picture).decode("ascii"),
            advice=advise(metrics),
            figures={name: value for name, value in summary(run).items() if value is not None},
            options=_changed_options(run),
            environment=run.environment(),
            data=data,
            samples=read_samples(run),
        ),
    )


def _changed_options(run: Run) -> list[tuple[str, Any, bool]]:
    """List every option: name, value, and whether it differs from its default."""
    recipe = run.recipe().model_dump(mode="json")
    defaults = {option.dotted: option.default for option in list_options()}
    found = []
    for section, options in recipe.items():
        for name, value in options.items():
            dotted = f"{section}.{name}"
            spelled = spell(value)
            found.append((dotted, spelled, spelled != defaults.get(dotted, "")))
    return found
