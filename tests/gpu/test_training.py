"""On a GPU a training runs, goes on after a stop, and its model answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.inference.load import open_sessions
from tunesmith.runs.run import Run
from tunesmith.training.train import resume
from tunesmith.training.watch import Watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"
COMPUTE = {"device": DEVICE, "precision": "bf16", "threads": 1}


def train(folder: Path, model: Path, tuning: str, **run: Any) -> Run:
    return tiny.train_run(
        folder,
        model,
        tuning={"kind": tuning},
        compute=COMPUTE,
        optimizer={"learning_rate": 3e-3 if tuning == "full" else 3e-2},
        run={"steps": 8, "save_every_steps": 4, **run},
    )


def losses(run: Run) -> list[float]:
    lines = run.metrics_file.read_text("utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a stop at the end of an update."""
    ends = Watch.on_step_end

    def stopping(self: Watch, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == step:
            self.run.stop_file.touch()
        ends(self, args, state, control, **rest)

    monkeypatch.setattr(Watch, "on_step_end", stopping)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_learns_and_its_model_answers(tmp_path: Path, tiny_model: Path, tuning: str) -> None:
    run = train(tmp_path, tiny_model, tuning, steps=30)
    assert run.status().state == "done"
    assert losses(run)[-1] < 0.95 * losses(run)[0]
    assert run.environment()["device"] == DEVICE
    tuned, base = open_sessions(
        run.name, beside="base", system="", sampling={"max_tokens": 8, "temperature": 0.0}
    )
    for session in (tuned, base):
        assert next(session.model.model.parameters()).device.type == DEVICE
        assert isinstance("".join(session.ask("question 3")), str)
    assert "".join(tuned.ask("question 3")) != "".join(base.ask("question 3"))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path,
    tiny_model: Path,
    tuning: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    whole, again = (
        tiny.weights(train(tmp_path, tiny_model, tuning, name=name)) for name in ("whole", "again")
    )
    with monkeypatch.context() as patched:
        stop_at(4, patched)
        run = train(tmp_path, tiny_model, tuning, name="stopped")
    assert run.status().state == "stopped"
    resume(run)
    assert run.status().state == "done"
    resumed = tiny.weights(run)
    record_property("repeats_to_the_bit", all(map(torch.equal, whole.values(), again.values())))
    record_property("resumes_to_the_bit", all(torch.equal(whole[n], resumed[n]) for n in whole))
    for name, weight in whole.items():
        # Flash attention adds up the gradient of queries in no fixed order.
        torch.testing.assert_close(resumed[name], weight, rtol=2e-2, atol=2e-3, msg=name)


def test_activations_computed_twice_change_nothing(tmp_path: Path, tiny_model: Path) -> None:
    runs = [
        tiny.train_run(tmp_path, tiny_model, compute={**COMPUTE, "gradient_checkpointing": option})
        for option in ("off", "on", "offload")
    ]
    once, twice, offloaded = map(losses, runs)
    assert once == pytest.approx(twice, rel=5e-3)
    assert offloaded == pytest.approx(twice, rel=5e-3)
