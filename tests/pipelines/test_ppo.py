"""Learn by rewards and values: from questions to a model that answers for more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.faults import work
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_reward import train_rewarded
from tunesmith.errors import RecipeError, RunError
from tunesmith.export.export import export
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import load_chat_model
from tunesmith.models.value import FILE, VALUE
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.rules import check_rules
from tunesmith.runs.run import Run
from tunesmith.starter import sample
from tunesmith.training.checkpoints import checkpoint_folder, list_checkpoints, step_of
from tunesmith.training.train import resume, train

QUESTION = "question 3"
REWARD = """
def third(completion_ids):
    return [float(ids[0] % 3) for ids in completion_ids]
"""


def recipe_of(folder: Path, model: Path, /, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(REWARD)
    rows = [{"instruction": f"question {n}", "output": "yes"} for n in range(24)]
    data = tiny.write_rows(folder / "questions.jsonl", rows)
    method = {
        "name": "ppo",
        "rewards": [{"function": "mine.py:third"}, {"kind": "language", "language": "en"}],
        "answer_tokens": 4,
        "iterations": 2,
        "minibatches": 2,
        "kl_target": 1.0,
        "kl_horizon": 50,
        "scale_rewards": True,
        **sections.pop("method", {}),
    }
    given = {
        "data": {"validation_rows": 4},
        "optimizer": {"learning_rate": 1e-2, "batch_size": 8},
        "run": {"steps": 8, "log_every_steps": 4},
        **sections,
    }
    return tiny.write_recipe(folder / "r.json", model, data, method=method, **given)


def trained(folder: Path, model: Path, /, **sections: Any) -> Run:
    return train(load_recipe(recipe_of(folder, model, **sections)))


def all_weights(run: Run) -> dict[str, torch.Tensor]:
    return {
        f"{file.name} {name}": weight
        for file in run.model.glob("*.safetensors")
        for name, weight in load_file(file).items()
    }


@pytest.mark.parametrize("tuning", ["lora", pytest.param("full", marks=pytest.mark.proof)])
def test_a_stop_amidst_a_rollout_changes_nothing(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    recipe = load_recipe(recipe_of(tmp_path, tiny_model, tuning={"kind": tuning}))
    undisturbed = train(recipe)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        run = train(recipe)
    assert run.status().step == 6
    assert (run.checkpoints / "step-000006" / FILE).is_file()
    resume(run)
    assert run.status().identical
    ours, theirs = all_weights(run), all_weights(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.items())

    logged = [record for record in undisturbed.metrics() if "loss" in record]
    told = {"answer_kl", "kl_coefficient", "policy_loss", "value_loss", "clipped", "update_kl"}
    told |= {"reward", "reward_third", "reward_language", "entropy", "explained_variance"}
    assert told <= logged[-1].keys()
    strengths = [r["kl_coefficient"] for r in logged if "kl_coefficient" in r]
    assert strengths[0] == 0.05
    assert strengths[-1] != 0.05
    assert any(weight.abs().sum() > 0 for weight in load_file(run.model / FILE).values())
    assert "eval_reward" in run.metrics()[-1]


@pytest.mark.proof
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_two_processes_learn_as_one_and_go_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    """Rewards are scaled, values explained and `beta` adapted by the answers of both."""
    monkeypatch.setattr("tunesmith.training.workers._start", work.ForkedWorker)
    how: dict[str, Any] = {
        "compute": {"precision": "fp32", "threads": 1, "processes": 2},
        "tuning": {"kind": tuning},
        "run": {"name": "two", "steps": 12, "save_every_steps": 3, "log_every_steps": 1},
    }
    whole = trained(tmp_path, tiny_model, **how)
    assert whole.status().state == "done"
    records = whole.metrics()
    assert records[-1].keys() >= {"eval_reward", "eval_reward_third"}
    strengths = [record["kl_coefficient"] for record in records if "kl_coefficient" in record]
    assert len(set(strengths)) == 3  # once a rollout, the same for all
    expected, found = all_weights(whole), whole.metrics()
    for folder in list_checkpoints(whole.checkpoints):
        if step_of(folder) > 6:  # amidst the second rollout
            shutil.rmtree(folder)
    assert (checkpoint_folder(whole.checkpoints, 6) / "ranks" / "1" / "rollout.json").is_file()
    resume(Run(whole.path))
    again = all_weights(whole)
    assert all(torch.equal(weight, again[name]) for name, weight in expected.items())
    for record, other in zip(found, whole.metrics(), strict=True):
        assert record.get("loss") == other.get("loss")


def test_a_changed_reward_is_another_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        run = trained(tmp_path, tiny_model)
    (tmp_path / "mine.py").write_text(REWARD + "\n# better\n")
    with pytest.raises(RunError, match=r"these changed: rewards\.third"):
        resume(run)
    (tmp_path / "mine.py").write_text(REWARD)
    (run.checkpoints / "step-000004" / FILE).unlink()
    resume(run)  # a checkpoint that is not whole is set aside
    assert run.status().state == "done"
    assert list(run.checkpoints.glob("damaged-*"))


def test_a_reward_model_teaches_a_policy_that_talks_and_is_exported(
    tmp_path: Path, tiny_model: Path
) -> None:
    judge = train_rewarded(tmp_path / "judged", tiny_model)
    run = trained(
        tmp_path / "policy", tiny_model, method={"rewards": [{"model": judge.name}], "beta": 0.01}
    )
    assert "reward_model" in run.metrics()[0]
    assert list(run.environment()["rewards"]) == ["model"]
    model = load_chat_model(run.name)
    prompt = encode_prompt(model, [{"role": "user", "content": QUESTION}])
    (said,) = answer(model, [prompt], Sampling(max_tokens=6))
    exported = export(run.name, tmp_path / "exported")
    assert exported
    kept = tmp_path / "exported" / VALUE / FILE
    assert kept.read_bytes() == (run.model / FILE).read_bytes()
    assert not (tmp_path / "exported" / FILE).exists()
    again = load_chat_model(tmp_path / "exported")
    assert answer(again, [prompt], Sampling(max_tokens=6))[0].written == said.written


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"kl_target": 1.0, "beta": 0.0}, "method.kl_target has no effect"),
        ({"kl_target": 0.0, "kl_horizon": 9}, "method.kl_horizon has no effect"),
        ({"minibatches": 1, "iterations": 1, "epsilon": 0.3}, "method.epsilon has no effect"),
        ({"minibatches": 9}, "8 answers cannot be split into 9 updates"),
        ({"rewards": [{"kind": "json", "weight": 0}]}, "the weight of every reward is 0"),
        ({"rewards": []}, "method.rewards cannot be"),
        ({"rewards": [{"kind": "jsn"}]}, "method.rewards.0.kind cannot be 'jsn'"),
        ({"rewards": [{"kind": "length"}]}, "method.rewards.0.limit is missing"),
        ({"rewards": [{"kind": "json", "wieght": 1}]}, "no option wieght in method.rewards"),
        ({"group_size": 4}, "no option group_size in method"),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, tiny_model: Path, method: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        check_rules(load_recipe(recipe_of(tmp_path, tiny_model, method=method)))


def next_logps(name: str) -> torch.Tensor:
    """Tell log p of every first token of an answer, in fp64."""
    model = load_chat_model(name)
    prompt = encode_prompt(model, [{"role": "user", "content": QUESTION}])
    with torch.no_grad():
        logits: torch.Tensor = model.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return logits.double().log_softmax(dim=-1)


@pytest.mark.proof
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_policy_comes_to_the_optimum_that_is_known(
    tmp_path: Path, tiny_model: Path, beta: float
) -> None:
    """Of all policies, p(y) ~ reference(y) exp(reward(y) / beta) gains most (arXiv:1909.08593)."""
    path = recipe_of(
        tmp_path,
        tiny_model,
        data={"train": [str(tmp_path / "one.jsonl")], "validation_rows": None},
        tuning={"kind": "full"},
        method={
            "rewards": [{"function": "mine.py:third"}],
            "answer_tokens": 1,
            "beta": beta,
            "kl_target": 0.0,
            "kl_horizon": 10_000,
            "scale_rewards": False,
            "minibatches": 1,
            "value_weight": 0.5,
            "rollout_rows": 256,
        },
        optimizer={"learning_rate": 3e-3, "batch_size": 256},
        run={"steps": 60},
    )
    tiny.write_rows(tmp_path / "one.jsonl", [{"instruction": QUESTION, "output": "x"}] * 256)
    run = train(load_recipe(path))
    reference, found = next_logps(str(tiny_model)), next_logps(run.name)
    rewards = (torch.arange(len(reference)) % 3).double()
    optimum = (reference + rewards / beta).log_softmax(dim=-1)

    def distance(policy: torch.Tensor) -> float:
        return float((policy.exp() * (policy - optimum)).sum())

    assert distance(reference) > 0.05
    assert distance(found) < 0.05 * distance(reference)
    for kind in range(3):
        share, best = (float(each.exp()[rewards == kind].sum()) for each in (found, optimum))
        assert share == pytest.approx(best, abs=0.02)
    assert json.loads((run.path / "environment.json").read_text())["rewards"]


@pytest.mark.proof
def test_the_starter_model_learns_a_form_that_nobody_showed_it(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "ppo.yaml"
    run = train(load_recipe(example, [f"data.train={sample('en')}", "compute.threads=1"]))
    rollouts = [record for record in run.metrics() if "reward" in record]
    rewards = [record["reward"] for record in rollouts]
    assert sum(rewards[:2]) / 2 < 0.3
    assert sum(rewards[-4:]) / 4 > 0.8
    assert max(record["answer_kl"] for record in rollouts) < 15
    measured = [record["eval_reward"] for record in run.metrics() if "eval_reward" in record]
    assert measured[-1] > 0.8
