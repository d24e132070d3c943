"""All numbers of a run in bf16: each kind of adapter learns, is resumed, answers and is merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_tunings import (
    LORA_MOVES,
    MOVED,
    TUNINGS,
    adapter,
    close,
    logits,
    train_on,
    watched,
    write,
)
from tunesmith.errors import RecipeError
from tunesmith.export.export import export
from tunesmith.models.chat import load_chat_model
from tunesmith.models.roles import load_reader, load_roles
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.rules import check_rules
from tunesmith.training.train import resume

KINDS = ["dora", "pissa", "eva", "modules", "tokens", "adalora"]
KINDS += ["vera", "oft", "hra", "loha", "lokr"]
PURE: dict[str, Any] = {"compute": {"precision": "pure_bf16", "threads": 1}}
RATE: dict[str, Any] = {"optimizer": {"learning_rate": 2e-3, "batch_size": 4}}


def losses(run: Any) -> list[float]:
    return [record["loss"] for record in run.metrics() if "loss" in record]


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_learns_in_bf16_alone_and_is_merged_into_what_it_says(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = train_on(tmp_path / "exact", tiny_model, kind, **RATE)
    seen = watched(monkeypatch)
    run = train_on(tmp_path / "pure", tiny_model, kind, **PURE, **RATE)
    assert {weight.dtype for weight in seen["policy"].parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in adapter(run.model).values()} == {torch.bfloat16}
    for name, weight in seen["policy"].named_parameters():
        moved = not torch.equal(weight, seen["before"][name])
        assert not moved or any(part in name for part in MOVED.get(kind, LORA_MOVES)), name
    assert losses(run)[-1] < losses(run)[0]
    assert losses(run) == pytest.approx(losses(exact), rel=0.005)
    loaded = logits(load_chat_model(run.path, precision="fp32", device="cpu").model)
    base = logits(load_chat_model(tiny_model, precision="fp32", device="cpu").model)
    assert not close(loaded, base, 1e-3)
    assert close(seen["logits"].float(), loaded, 0.02)
    exported = export(run.path, tmp_path / "out")
    merged = load_chat_model(exported.folder, precision="fp32", device="cpu")
    assert close(logits(merged.model), loaded)


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_and_a_resume_leave_the_same_bits(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    whole = train_on(tmp_path / "whole", tiny_model, kind, **PURE, **RATE)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 4)
        stopped = train_on(tmp_path / "stopped", tiny_model, kind, **PURE, **RATE)
    assert stopped.status().state == "stopped"
    resume(stopped)
    one, other = adapter(whole.model), adapter(stopped.model)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_factors_of_one_would_stay_where_they_are(tmp_path: Path, tiny_model: Path) -> None:
    begun = torch.ones((), dtype=torch.bfloat16)
    assert all(bool(begun + step == begun) for step in (1e-3, 3e-3, -1e-3))
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    given = {"tuning": TUNINGS["ia3"], **PURE}
    recipe = load_recipe(tiny.write_recipe(tmp_path / "r.json", tiny_model, data, **given))
    with pytest.raises(RecipeError, match="ia3 begins with factors of 1"):
        check_rules(recipe)


def test_what_layers_share_is_rounded_too(tmp_path: Path, tiny_model: Path) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, "vera", **PURE))
    policy: Any = load_roles(recipe, load_reader(recipe)).policy
    shared = {n: m for n, m in policy.named_buffers() if "vera_" in n}
    assert {matrix.dtype for matrix in shared.values()} == {torch.bfloat16}
    assert {weight.dtype for weight in policy.parameters()} == {torch.bfloat16}
    assert logits(policy).dtype == torch.bfloat16
