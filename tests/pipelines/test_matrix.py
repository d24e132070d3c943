"""Every method with every tuning, and every tuning in every precision: it runs or says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from tests import tiny
from tests.matrix import RUNS, Matrix, spell
from tests.pipelines.test_classify import ROWS as CLASSES
from tests.pipelines.test_preferences import PAIRS
from tunesmith.errors import MissingPackage, ModelError, RecipeError
from tunesmith.recipe.compute import Compute
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.schema import QUANTIZE, describe_section
from tunesmith.recipe.tuning import Init
from tunesmith.training import report
from tunesmith.training import train as training
from tunesmith.training.train import train

pytestmark = pytest.mark.proof
ANSWERS = [{"instruction": f"question {n}", "output": f"It is {n * 7}."} for n in range(24)]
ROWS: dict[str, list[Any]] = {
    "pretrain": [{"text": text} for text in tiny.TEXTS * 8],
    **dict.fromkeys(("sft", "distill", "grpo", "ppo"), ANSWERS),
    **dict.fromkeys(("dpo", "orpo", "simpo", "cpo", "reward"), PAIRS),
    "kto": [{**row, "label": n % 2 == 0} for n, row in enumerate(ANSWERS)],
    "classify": CLASSES,
}
"""Rows for each method; one that has none here is shown as not run."""
METHODS = [method for method in describe_section("method") if method in ROWS]
TUNINGS: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in describe_section("tuning")},
    "freeze": {"layers": 1},
    "llama_pro": {"blocks": 1},
    "adalora": {"rank": 2, "first_rank": 4},
    "vera": {"rank": 16},
    "oft": {"block_size": 8},
}
BEGUN = "a run of lora"
"""Stands for a run that was trained before."""
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    **{init: {"tuning": {"init": init}} for init in get_args(Init) if init != "default"},
    "loftq": {"tuning": {"init": "loftq"}, "model": {"quantize": {"kind": "nf4"}}},
    "rslora": {"tuning": {"rslora": True}},
    "dora": {"tuning": {"dora": True}},
    "lora_plus": {"tuning": {"lora_plus_ratio": 16}},
    "lora_fa": {"tuning": {"freeze_a": True}},
    "ranks": {
        "tuning": {
            "target_pattern": r".*layers\.1\..*",
            "rank_pattern": {"v_proj": 4},
            "alpha_pattern": {"v_proj": 1},
        }
    },
    "modules": {"tuning": {"modules": ["input_layernorm"]}},
    "tokens": {"tuning": {"tokens": ["<|im_end|>"]}},
    "longlora": {"model": {"shifted_attention": 16}},
    **{
        kind: {"model": {"rope_scaling": {"kind": kind, "factor": 2}}}
        for kind in ("linear", "dynamic", "yarn", "llama3")
    },
    "adapters": {"model": {"adapters": [BEGUN]}},
    "from_adapter": {"tuning": {"from_adapter": BEGUN}},
}
"""Forms of lora, and what else is done to a model that lora tunes: the options of each."""
GOING_ON = ("adapters", "from_adapter")
"""Forms that name it."""
PRECISIONS = [p for p in get_args(Compute.model_fields["precision"].annotation) if p != "auto"]
KINDS = [*PRECISIONS, *describe_section(QUANTIZE)]
PLAIN = {"gradient_checkpointing": "off", "tokens_per_batch": 512}
ONLINE = {"rewards": [{"kind": "language", "language": "en"}], "answer_tokens": 4}
OPTIONS: dict[str, dict[str, Any]] = {"grpo": {**ONLINE, "group_size": 2}, "ppo": ONLINE}
NO_SAMPLES = {"sample_rows": 0, "sample_tokens": 64}


@pytest.fixture(autouse=True)
def updates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the estimate of memory and the report: a cell asks whether the updates are made."""
    monkeypatch.setattr(training, "fit", lambda prepared: prepared)
    monkeypatch.setattr(report, "write_report", lambda run: None)


def try_cell(folder: Path, model: Path, method: str, tuning: str, /, **sections: Any) -> str:
    """Train two updates, or more where ranks need time to move; return what is said if refused."""
    form = FORMS.get(tuning, {})
    kind = {"kind": "lora"} if tuning in FORMS else {"kind": tuning, **TUNINGS[tuning]}
    steps = 4 if tuning == "adalora" else 2
    written = {
        "method": {"name": method, **OPTIONS.get(method, {})},
        "run": {"steps": steps},
        "evaluate": NO_SAMPLES,
        "compute": PLAIN,
        **sections,
        "tuning": {**kind, **form.get("tuning", {})},
        "model": {**form.get("model", {}), **sections.get("model", {})},
    }
    if method == "distill":
        written["method"]["teacher"] = str(model)
    data = tiny.write_rows(folder / "rows.jsonl", ROWS[method])
    path = tiny.write_recipe(folder / "recipe.json", model, data, **written)
    try:
        if tuning in GOING_ON:
            begin(path, model, data, written["method"] if tuning == "from_adapter" else {})
        run = train(load_recipe(path))
    except (RecipeError, ModelError, MissingPackage) as problem:
        return spell(problem)
    assert len([record for record in run.metrics() if "loss" in record]) == steps
    return RUNS


def begin(path: Path, model: Path, data: Path, method: dict[str, Any]) -> None:
    """Train the run that a recipe goes on from: by its method, or by sft."""
    sections = {"run": {"steps": 1}, "evaluate": NO_SAMPLES, "compute": PLAIN}
    if not method:
        data = tiny.write_rows(path.parent / "begun.jsonl", ROWS["sft"])
    first = tiny.write_recipe(path.parent / "begun.json", model, data, method=method, **sections)
    begun = train(load_recipe(first))
    path.write_text(path.read_text("utf-8").replace(BEGUN, str(begun.path)), "utf-8")


def written_as(form: str) -> str:
    """Say how a form is asked for."""
    return ", ".join(
        f"{section}.{option}: {json.dumps(value)}"
        for section, options in FORMS[form].items()
        for option, value in options.items()
    )


@pytest.mark.parametrize("tuning", [*TUNINGS, *FORMS])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_with_a_tuning_or_says_why_not(
    tmp_path: Path, tiny_model: Path, method: str, tuning: str, matrix: Matrix
) -> None:
    matrix.note("methods", method, tuning, try_cell(tmp_path, tiny_model, method, tuning))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tuning", [*TUNINGS, *FORMS])
def test_a_tuning_goes_with_a_precision_or_says_why_not(
    tmp_path: Path, tiny_model: Path, tuning: str, kind: str, matrix: Matrix
) -> None:
    if tuning in FORMS:
        matrix.note("forms", tuning, "written", written_as(tuning))
    sections: dict[str, Any] = {"model": {"quantize": {"kind": kind}}}
    if kind in PRECISIONS:
        sections = {"compute": {**PLAIN, "precision": kind}}
    said = try_cell(tmp_path, tiny_model, "sft", tuning, **sections)
    if said.startswith("not run") and matrix.known.get("precisions", {}).get(tuning, {}).get(kind):
        pytest.skip(said)
    matrix.note("precisions", tuning, kind, said)
