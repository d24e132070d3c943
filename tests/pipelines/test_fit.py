"""What does not fit into memory is refused before a weight is loaded, with what would fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.command import Command
from tunesmith.errors import RecipeError, RunError
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.store import list_runs
from tunesmith.training import fit, train
from tunesmith.training.footprint import Footprint
from tunesmith.training.plan import dry_run
from tunesmith.training.prepare import prepare_run


def write(folder: Path, model: Path, **sections: Any) -> Path:
    """A recipe over rows of 4 to 200 tokens."""
    rows = [
        {"instruction": f"q{n}", "input": "", "output": "word " * (2 + n * 5)} for n in range(24)
    ]
    data = tiny.write_rows(folder / "rows.jsonl", rows)
    limits = {"train": [str(data)], "max_tokens": 256}
    return tiny.write_recipe(folder / "r.json", model, data, data=limits, **sections)


def weigh(monkeypatch: pytest.MonkeyPatch, gib_of: Any) -> None:
    """Let the estimate be a simple function of tokens, full and checkpointing."""
    monkeypatch.setattr(
        Footprint,
        "gib",
        lambda self, tokens, *, checkpointing, offload=False, split=True: gib_of(
            tokens, self.num_trained == self.num_weights, checkpointing + offload
        ),
    )


def test_a_run_that_cannot_fit_leaves_nothing_behind(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, compute={"memory_gib": 0.01}))
    monkeypatch.setattr(train, "load_policy", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(RunError, match=r"needs about .* GiB of memory, 0\.0 are free") as caught:
        train.train(recipe)
    assert "a smaller model, or raise compute.memory_gib" in caught.value.hint
    assert caught.value.where == "compute.memory_gib"
    assert list_runs() == []


@pytest.mark.parametrize(
    ("gib_of", "compute", "hint"),
    [
        (
            lambda tokens, full, twice: 0.5 if twice else 2,
            {"gradient_checkpointing": "off"},
            "compute.gradient_checkpointing: on",
        ),
        (lambda tokens, full, twice: tokens / 100, {}, "data.max_tokens: 64"),
        (
            lambda tokens, full, twice: tokens / 100 if twice else 2,
            {"gradient_checkpointing": "off"},
            "data.max_tokens: 64 and compute.gradient_checkpointing: on",
        ),
        (
            lambda tokens, full, twice: tokens / 300,
            {"tokens_per_batch": 5000},
            "write compute.tokens_per_batch: 256",
        ),
        (lambda tokens, full, twice: 2 if full else 0.5, {}, "tuning.kind: lora"),
        (lambda tokens, full, twice: 2, {}, "a smaller model"),
    ],
)
def test_the_cheapest_change_that_fits_is_named(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    gib_of: Any,
    compute: dict[str, Any],
    hint: str,
) -> None:
    weigh(monkeypatch, gib_of)
    path = write(
        tmp_path, tiny_model, tuning={"kind": "full"}, compute={"memory_gib": 1, **compute}
    )
    with pytest.raises(RunError) as caught:
        fit.fit(prepare_run(load_recipe(path)))
    assert hint in caught.value.hint
    assert dry_run(load_recipe(path)).change == caught.value.hint


def test_fewer_answers_at_a_time_are_advised_where_those_are_too_many(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Footprint, "gib", lambda self, *_, **__: self.rollout.rows / 12)
    method = {"name": "grpo", "rewards": "json", "group_size": 8, "answer_tokens": 9}
    path = write(
        tmp_path,
        tiny_model,
        method=method,
        optimizer={"batch_size": 4},
        compute={"memory_gib": 1, "processes": 1},
    )
    with pytest.raises(RunError, match=r"2\.7 GiB") as caught:
        fit.fit(prepare_run(load_recipe(path)))
    assert caught.value.hint == "write method.rollout_rows: 8"


def test_smaller_batches_are_tried_before_activations_are_computed_twice(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, tiny_model, optimizer={"batch_size": 24}, compute={"memory_gib": 1})
    weigh(monkeypatch, lambda tokens, full, twice: tokens / (2000 if twice else 600))
    compute = fit.fit(prepare_run(load_recipe(path))).recipe.compute
    assert (compute.tokens_per_batch, compute.gradient_checkpointing) == (512, "off")
    weigh(monkeypatch, lambda tokens, full, twice: tokens / (2000 if twice else 100))
    compute = fit.fit(prepare_run(load_recipe(path))).recipe.compute
    assert compute.gradient_checkpointing == "on"


def test_a_gpu_hands_over_to_main_memory_what_it_has_no_room_for(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "checkpointings", lambda _: ("off", "on", "offload"))
    weigh(monkeypatch, lambda tokens, full, way: 2 - 0.6 * way)
    compute: dict[str, Any] = {"memory_gib": 1}
    path = write(tmp_path, tiny_model, compute=compute)
    settled = fit.fit(prepare_run(load_recipe(path))).recipe.compute
    assert settled.gradient_checkpointing == "offload"
    path = write(tmp_path, tiny_model, compute={**compute, "gradient_checkpointing": "on"})
    with pytest.raises(RunError) as caught:
        fit.fit(prepare_run(load_recipe(path)))
    assert caught.value.hint == "write compute.gradient_checkpointing: offload"


def test_a_cpu_has_no_other_memory_to_hand_over_to(tmp_path: Path, tiny_model: Path) -> None:
    path = write(tmp_path, tiny_model, compute={"gradient_checkpointing": "offload"})
    with pytest.raises(RecipeError, match="relieves a GPU") as caught:
        dry_run(load_recipe(path))
    assert "gradient_checkpointing: on" in caught.value.hint


def test_a_dry_run_says_what_would_fit(tmp_path: Path, tiny_model: Path, command: Command) -> None:
    path = write(tmp_path, tiny_model, compute={"memory_gib": 0.01})
    told = command("train", str(path), "--dry-run")
    assert "smaller model" in told.out
    assert "tokens at once" in told.out
