"""Learn from rewarded answers: from questions to a model that writes what is rewarded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.faults import work
from tests.pipelines.test_going_on import stop_at
from tunesmith import starter
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.errors import DataError, RecipeError, RunError, TrainingError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.inference.batching.policy import PolicyWriter
from tunesmith.inference.generate import Answer, answer, encode_prompt
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.methods.method import Joining
from tunesmith.models.chat import find_subject, load_subject
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import load_roles
from tunesmith.recipe.load import build_recipe, load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.best import best_step
from tunesmith.training.checkpoints import list_checkpoints, step_of
from tunesmith.training.online.groups import in_groups, is_flat
from tunesmith.training.online.reference import Reference
from tunesmith.training.online.rollouts import Rollouts
from tunesmith.training.plan import dry_run
from tunesmith.training.samples import read_samples
from tunesmith.training.train import resume, train

ROOT = Path(__file__).parents[2]
QUESTIONS = [{"prompt": f"question {n}", "answer": f"It is {n}."} for n in range(24)]
REWARDS = """
def letters(completions, references, **_):
    assert all(text.startswith("It is") for text in references)
    return [sum(c in "abcdefghijklmnopqrstuvwxyz" for c in text) / max(len(text), 1)
            for text in completions]

def half(completions, messages, **_):
    found = letters(completions, references=["It is"] * len(completions))
    even = [int(talk[-1]["content"].split()[-1]) % 2 == 0 for talk in messages]
    return [0.5 if flat else score for score, flat in zip(found, even)]
"""


def learn(folder: Path, model: Path, /, **sections: Any) -> Run:
    """Train on questions; every small letter that is written is rewarded."""
    folder.mkdir(exist_ok=True)
    data = tiny.write_rows(folder / "questions.jsonl", QUESTIONS)
    (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    method = {
        "name": "grpo",
        "rewards": {"function": f"{folder / 'rewards.py'}:letters"},
        "group_size": 4,
        "answer_tokens": 6,
        **sections.pop("method", {}),
    }
    given = {
        "method": method,
        "data": {"validation_rows": 4},
        "tuning": {"kind": "lora"},
        "optimizer": {"batch_size": 4, "learning_rate": 0.02},
        "run": {"name": "tiny", "steps": 5, "seed": 1},
        "compute": {"precision": "fp32"},
        **sections,
    }
    return train(load_recipe(tiny.write_recipe(folder / "r.json", model, data, **given)))


def test_what_is_rewarded_is_written_more_and_the_model_can_be_asked_and_exported(
    tmp_path: Path, tiny_model: Path
) -> None:
    run = learn(
        tmp_path,
        tiny_model,
        method={"group_size": 16, "rollout_rows": 160, "answer_tokens": 4},
        tuning={"kind": "full"},
        optimizer={"batch_size": 10, "learning_rate": 0.02, "warmup": 0},
        run={"name": "tiny", "steps": 8, "seed": 1},
    )
    trained = [record for record in run.metrics() if "loss" in record]
    rewards = [record["reward"] for record in trained]
    assert sum(rewards[-3:]) > 1.5 * sum(rewards[:3])
    assert trained[0]["reward"] == pytest.approx(trained[0]["reward_letters"])
    assert 0 < trained[0]["answer_tokens"] <= 4
    assert 0 <= trained[0]["flat_groups"] <= 1
    assert trained[0]["loss"] == pytest.approx(0.0, abs=1e-5)  # on what was written just now
    measured = [record for record in run.metrics() if "eval_reward" in record]
    assert measured[-1]["eval_reward"] > 0.8
    assert read_samples(run)[0]["expected"].startswith("It is")

    model = load_subject(find_subject(run.name), precision="fp32")
    (said,) = answer(model, [encode_prompt(model, [{"role": "user", "content": "question 3"}])])
    assert any(letter.islower() for letter in said.text)
    scores = evaluate(run.name, max_tokens=4)
    assert scores.base is not None
    assert scores.base.reward is not None
    assert scores.tuned.reward == pytest.approx(measured[-1]["eval_reward"], abs=0.1)
    assert scores.tuned.reward > scores.base.reward
    assert scores.tuned.loss is None
    export(run.name, tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").is_file()


def test_groups_that_teach_nothing_make_room_for_others(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[Any], list[Any]]] = []
    redraw = Rollouts._redraw

    def watched(self: Rollouts, rows: list[Any], *given: Any) -> list[Any]:
        found = redraw(self, rows, *given)
        seen.append((in_groups(rows, 4), in_groups(found, 4)))
        return found

    monkeypatch.setattr(Rollouts, "_redraw", watched)
    rewards = {"function": f"{tmp_path / 'rewards.py'}:half"}
    run = learn(tmp_path, tiny_model, method={"rewards": rewards, "redraws": 4}, run={"steps": 3})
    assert len(seen) == 3
    for before, after in seen:
        assert len(after) == len(before) == 4
        assert all(
            one == other for one, other in zip(before, after, strict=True) if not is_flat(one)
        )
    flat, left = (sum(is_flat(g) for pair in seen for g in pair[at]) for at in (0, 1))
    assert flat > 2
    assert left == 0  # of twenty questions half are odd
    records = [record for record in run.metrics() if "flat_groups" in record]
    assert sum(record["flat_groups"] for record in records) == pytest.approx(flat / 4)
    assert all(record["flat_groups_left"] == 0 for record in records)
    asked = [tuple(row["input_ids"][: row["asked"]]) for _, after in seen for row in after[0]]
    assert len(set(asked)) == 3  # an update's groups stay whole


@pytest.mark.parametrize(
    ("tuning", "rate"), [("lora", 0.3), pytest.param("full", 0.02, marks=pytest.mark.proof)]
)
def test_every_rollout_is_written_with_the_weights_of_that_moment(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tuning: str, rate: float
) -> None:
    """Those of the update before it: nothing that was read with older ones is found again."""
    write, said = PolicyWriter.write, []

    def compared(self: PolicyWriter, prompts: Any, sampling: Sampling) -> list[Answer]:
        greedy = Sampling(max_tokens=6)
        ours, theirs = write(self, prompts, greedy), OwnModel(self._model, rows=8)
        assert [one.written for one in ours] == [
            one.written for one in theirs.write(prompts, greedy)
        ]
        said.append({tuple(prompt): one.written for prompt, one in zip(prompts, ours, strict=True)})
        return write(self, prompts, sampling)

    monkeypatch.setattr(PolicyWriter, "write", compared)
    run = learn(
        tmp_path,
        tiny_model,
        data={"validation_rows": None},
        tuning={"kind": tuning},
        optimizer={"batch_size": 24, "learning_rate": rate, "warmup": 0},
        run={"name": "tiny", "steps": 3, "seed": 1},
    )
    assert len(said) == 3
    assert said[0] != said[1] != said[2]
    told = run.log_file.read_text("utf-8")
    assert told.count("answers of the policy: a Llama-like model: many answers at once") == 1


@pytest.mark.parametrize(("tuning", "loss"), [("lora", "dapo"), ("full", "rloo")])
def test_a_run_stopped_amid_a_rollout_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tuning: str, loss: str
) -> None:
    how: dict[str, Any] = {
        "method": {"loss": loss, "iterations": 2, "beta": 0.05, "overlong_tokens": 3},
        "tuning": {"kind": tuning},
        "optimizer": {"batch_size": 4, "learning_rate": 0.002},
        "compute": {"precision": "fp32", "tokens_per_batch": 64},
    }
    whole = learn(tmp_path, tiny_model, **how)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        run = learn(tmp_path, tiny_model, **how)
    assert (run.status().state, run.status().step) == ("stopped", 3)
    assert (run.checkpoints / "step-000003" / "rollout.json").is_file()
    expected, again = tiny.weights(whole), tiny.weights(resume(Run(run.path)))
    assert all(torch.equal(again[name], one) for name, one in expected.items())
    for record, other in zip(whole.metrics(), run.metrics(), strict=True):
        for name in ("loss", "reward", "kl", "reward_overlong", "clipped_high", "eval_reward"):
            assert other.get(name) == record.get(name)


@pytest.mark.proof
def test_two_processes_share_the_questions_and_go_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last update, one question is left: the second process writes nothing then."""
    monkeypatch.setattr("tunesmith.training.workers._start", work.ForkedWorker)
    how: dict[str, Any] = {
        "method": {"iterations": 2, "beta": 0.05},
        "optimizer": {"batch_size": 3, "learning_rate": 0.002},
        "compute": {"precision": "fp32", "threads": 1, "processes": 2},
        "run": {"name": "two", "steps": 16, "seed": 1, "save_every_steps": 5},
    }
    whole = learn(tmp_path, tiny_model, **how)
    assert whole.status().state == "done"
    first = next(record for record in whole.metrics() if "reward" in record)
    assert first["reward"] == pytest.approx(first["reward_letters"])
    for folder in list_checkpoints(whole.checkpoints):
        if step_of(folder) > 5:
            shutil.rmtree(folder)
    expected = tiny.weights(whole)
    again = tiny.weights(resume(Run(whole.path)))
    assert all(torch.equal(again[name], one) for name, one in expected.items())


@pytest.mark.proof
def test_the_starter_model_learns_the_manner_of_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a third at most of its answers to four of five, without leaving what it was."""
    shutil.copy(ROOT / "examples" / "rewards.py", tmp_path)
    rows = json.loads((starter.DATA / "conch_en.json").read_text("utf-8"))
    asked = [{"prompt": row["instruction"]} for row in rows if not row.get("history")]
    tiny.write_rows(tmp_path / "questions.jsonl", asked)
    monkeypatch.chdir(tmp_path)
    run = train(load_recipe(ROOT / "examples" / "grpo.yaml"))
    trained = [record for record in run.metrics() if "reward" in record]
    assert sum(record["reward"] for record in trained[:3]) / 3 < 0.3
    assert sum(record["reward"] for record in trained[-10:]) / 10 > 0.8
    held_out = [record["eval_reward"] for record in run.metrics() if "eval_reward" in record]
    assert held_out[-1] > 0.8
    assert max(record["kl"] for record in trained) < 1.0


def test_a_resume_refuses_a_reward_that_judges_otherwise(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        run = learn(tmp_path, tiny_model)
    (tmp_path / "rewards.py").write_text(REWARDS + "\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"rewards\.letters"):
        resume(Run(run.path))


def test_a_reference_leaves_frozen_what_is_frozen(tmp_path: Path, tiny_model: Path) -> None:
    tuning = {"kind": "lora", "freeze_a": True}
    raw = {"model": {"name": str(tiny_model)}, "data": {"train": ["none"]}, "tuning": tuning}
    roles = load_roles(build_recipe(raw), find_reader(tiny_model, None))
    before = {name for name, weight in roles.policy.named_parameters() if weight.requires_grad}
    row = {"input_ids": [5, 6, 7], "labels": [UNLEARNED, 6, 7], "reward": 0.0}
    (seen,) = Reference(roles.policy, 1.0).observe([row], Joining(flat=True), 64)
    assert len(seen["tokens"]["reference_logps"]) == 2
    after = {name for name, weight in roles.policy.named_parameters() if weight.requires_grad}
    assert after == before


@pytest.mark.parametrize("method", ["grpo", "asft"])
def test_the_model_before_training_has_its_adapters(
    tmp_path: Path, tiny_model: Path, method: str
) -> None:
    """Before the first step nothing is apart from it."""
    first = tiny.train_run(tmp_path / "a", tiny_model, run={"name": "first", "steps": 8})
    how: dict[str, Any] = {
        "model": {"name": str(tiny_model), "adapters": [str(first.model)]},
        "tuning": {"kind": "full"},
        "run": {"name": "over", "steps": 1},
    }
    if method == "grpo":
        run = learn(tmp_path / "b", tiny_model, method={"beta": 0.1}, **how)
    else:
        sft = {"name": "sft", "loss": "asft"}
        run = tiny.train_run(tmp_path / "b", tiny_model, method=sft, **how)
    apart = {"grpo": "kl", "asft": "divergence"}[method]
    assert run.metrics()[0][apart] == pytest.approx(0.0, abs=1e-6)


def test_held_out_questions_are_rewarded_set_by_set(tmp_path: Path, tiny_model: Path) -> None:
    asked = [{**row, "prompt": f"other {row['prompt']}"} for row in QUESTIONS]
    sets = {
        name: str(tiny.write_rows(tmp_path / f"{name}.jsonl", rows))
        for name, rows in {"few": asked[:2], "many": asked[2:8]}.items()
    }
    run = learn(
        tmp_path,
        tiny_model,
        data={"validation": sets},
        evaluate={"best_on": "few", "every_steps": 1, "batch_size": 4},
        run={"name": "sets", "steps": 3, "seed": 1, "keep_checkpoints": 9},
    )
    measured = [record for record in run.metrics() if "eval_reward" in record]
    assert len(measured) == 3
    for record in measured:
        few, many = record["eval_few_reward"], record["eval_many_reward"]
        assert record["eval_reward"] == pytest.approx((2 * few + 6 * many) / 8)
    best = max(measured, key=lambda record: (record["eval_few_reward"], -record["step"]))
    assert best_step(run.metrics(), "eval_few_loss") == best["step"]


@pytest.mark.parametrize(
    ("answer", "reward", "said"),
    [
        (None, "exact_match", "row has no answer of its own"),
        ("It is three.", "number", "answer without a number"),
    ],
)
def test_a_question_without_what_is_compared_is_refused_before_anything_runs(
    tmp_path: Path, tiny_model: Path, answer: str | None, reward: str, said: str
) -> None:
    row = {"prompt": "question"} | ({} if answer is None else {"answer": answer})
    data = tiny.write_rows(tmp_path / "q.jsonl", [*QUESTIONS, row])
    method = {"name": "grpo", "rewards": reward}
    raw = {"model": {"name": str(tiny_model)}, "data": {"train": [str(data)]}, "method": method}
    with pytest.raises(DataError, match=said) as problem:
        dry_run(build_recipe(raw))
    assert str(problem.value.where).endswith("q.jsonl:25:1")


def test_odds_that_are_no_numbers_are_told(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(TrainingError, match="not a number any more") as problem:
        learn(tmp_path, tiny_model, optimizer={"batch_size": 4, "learning_rate": 1e30})
    assert "learning_rate" in str(problem.value.hint)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_answers_are_not_drawn_so_coldly_that_all_are_alike(method: str) -> None:
    options = {"name": method, "rewards": "json", "temperature": 1e-6}
    with pytest.raises(RecipeError, match="temperature"):
        build_recipe({"model": {"name": "m"}, "data": {"train": ["q"]}, "method": options})


@pytest.mark.parametrize(("tuning", "rate"), [("lora", 5e-5), ("full", 5e-6)])
def test_steps_are_small_unless_told_otherwise(tuning: str, rate: float) -> None:
    raw = {
        "model": {"name": "m"},
        "data": {"train": ["rows.jsonl"]},
        "method": {"name": "grpo", "rewards": "json"},
        "tuning": {"kind": tuning},
    }
    assert build_recipe(raw).optimizer.learning_rate == rate


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"model": {"shifted_attention": 8}}, "model.shifted_attention"),
        ({"method": {"answer_tokens": 250}}, "method.answer_tokens"),
        ({"method": {"epsilon": 0.1}}, "method.epsilon"),
        ({"method": {"overlong_tokens": 7}}, "method.overlong_tokens"),
        ({"tuning": {"kind": "lora", "dropout": 0.1}}, "tuning.dropout"),
        ({"optimizer": {"update_tokens": 100}}, "optimizer.update_tokens"),
    ],
)
def test_what_could_have_no_effect_or_no_room_is_refused(
    tmp_path: Path, tiny_model: Path, sections: dict[str, Any], where: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        learn(tmp_path, tiny_model, **sections)
    assert refused.value.where == where
