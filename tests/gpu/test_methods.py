"""On a GPU methods learn that write their own answers, name classes, or learn from other models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.asking import PROMPTS, assert_same
from tests.gpu.test_training import losses, stop_at
from tests.pipelines.test_classify import train_classes
from tests.pipelines.test_online import learn
from tests.pipelines.test_ppo import trained
from tests.unit.inference.test_batching_policy import GREEDY, TUNINGS, answers, policy
from tests.unit.inference.test_batching_policy import learn as change
from tunesmith.errors import TrainingError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.inference.batching.policy import PolicyWriter
from tunesmith.inference.own_model import OwnModel
from tunesmith.runs.run import Run
from tunesmith.training.train import resume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"


def compute(precision: str = "bf16", **options: Any) -> dict[str, Any]:
    return {"device": DEVICE, "precision": precision, "threads": 1, **options}


def of(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_grpo_comes_to_write_what_is_rewarded(
    tmp_path: Path, tiny_model: Path, tuning: str, precision: str
) -> None:
    run = learn(
        tmp_path,
        tiny_model,
        method={"group_size": 16, "rollout_rows": 160, "answer_tokens": 4},
        tuning={"kind": tuning},
        compute=compute(precision),
        optimizer={"batch_size": 10, "learning_rate": 0.02},
        run={"name": "tiny", "steps": 12, "seed": 1},
    )
    rewards = of(run, "reward")
    assert run.environment()["device"] == "cuda" or DEVICE == "cpu"
    if tuning == "full":  # an adapter of a model that knows nothing finds little to turn
        assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])
    else:
        moved = [one for name, one in tiny.weights(run).items() if "lora_B" in name]
        assert all(bool(one.any()) for one in moved)
    assert "many answers at once" in run.log_file.read_text("utf-8")


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_ppo_learns_and_goes_on_amidst_a_rollout(
    tmp_path: Path, tiny_model: Path, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"tuning": {"kind": tuning}, "compute": compute()}
    with monkeypatch.context() as patched:
        stop_at(6, patched)
        run = trained(tmp_path, tiny_model, **how)
    assert (run.status().state, run.status().step) == ("stopped", 6)
    resume(run)
    assert (run.status().state, run.status().step) == ("done", 8)
    assert {"value_loss", "answer_kl", "reward_third"} <= run.metrics()[-2].keys() | {
        name for record in run.metrics() for name in record
    }


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_policy_writes_on_a_gpu_what_a_processor_does(tmp_path: Path, tuning: str) -> None:
    model = policy(tmp_path / "model", "untied", TUNINGS[tuning])
    model.model.to(DEVICE)
    writer = PolicyWriter(model, torch.float32, rows=3)
    answers(writer)  # the first product makes room that CUDA's libraries keep
    held = torch.cuda.memory_allocated() if DEVICE == "cuda" else 0
    for _ in range(2):
        theirs = answers(OwnModel(model, rows=4))
        for prompt, ours, other in zip(PROMPTS, answers(writer), theirs, strict=True):
            assert_same(model, prompt, ours, other)
        change(model.model)
    if DEVICE == "cuda":
        assert torch.cuda.memory_allocated() - held < 2**20  # nothing is kept of what was read


def test_odds_that_are_no_numbers_are_told_and_the_gpu_goes_on(
    tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(TrainingError, match="not a number any more"):
        learn(
            tmp_path,
            tiny_model,
            compute=compute(),
            optimizer={"batch_size": 4, "learning_rate": 1e30},
        )
    model = policy(tmp_path / "model")
    model.model.to(DEVICE)
    assert len(PolicyWriter(model, torch.float32, rows=4).write(PROMPTS, GREEDY)) == len(PROMPTS)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_classes_come_to_be_named(
    tmp_path: Path, tiny_model: Path, tuning: str, precision: str
) -> None:
    run = train_classes(
        tmp_path, tiny_model, tuning={"kind": tuning}, compute=compute(precision), run={"steps": 24}
    )
    assert of(run, "eval_accuracy")[-1] == 1.0
    assert evaluate(run.name).tuned.accuracy == 1.0


@pytest.mark.parametrize("method", ["asft", "distill"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_other_models_teach_as_on_a_processor(
    tmp_path: Path, tiny_model: Path, method: str, tuning: str
) -> None:
    teacher = tiny.train_run(tmp_path / "t", tiny_model, run={"name": "teacher", "steps": 30})
    options: dict[str, Any] = {"name": "sft", "loss": "asft"}
    if method == "distill":
        options = {"name": "distill", "teacher": teacher.name, "beta": 0.5}
    found = []
    for device in (DEVICE, "cpu"):
        run = tiny.train_run(
            tmp_path,
            tiny_model,
            method=options,
            tuning={"kind": tuning},
            compute=compute("fp32", device=device),
            run={"name": device, "steps": 12},
        )
        found.append(losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-2, abs=1e-3)
    if method == "distill":
        assert found[0][-1] < found[0][0]
