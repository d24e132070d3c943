"""Rewards that a reward model gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests import tiny
from tests.unit.methods.rewards.test_rules import CPU
from tunesmith.errors import ModelError
from tunesmith.inference.score import score
from tunesmith.methods.rewards import Sample, build_rewards, check_rewards, describe_rewards
from tunesmith.models.chat import find_subject, load_reward_model
from tunesmith.recipe.rewards import ScoredBy


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    folder = tiny.make_model(tmp_path / "judge")
    config = AutoConfig.from_pretrained(str(folder), num_labels=1)
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(config)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(str(folder))
    return folder


def test_batches_score_as_one_conversation_alone_does(judge: Path) -> None:
    asked = [{"role": "user", "content": "what is it?"}]
    answers = ["It is 7.", "no", "", "the quick brown fox <|im_end|> jumps", "早上 九点"]
    samples = [Sample(asked, "", answer, "", [1]) for answer in answers]
    option = ScoredBy(model=str(judge))
    found = build_rewards([option], device=CPU).score(samples)[:, 0]
    alone = load_reward_model(find_subject(judge))
    expected = [score(alone, [*asked, {"role": "assistant", "content": a}]) for a in answers]
    assert len(set(expected)) == len(answers)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_another_model_is_another_reward(judge: Path) -> None:
    option = ScoredBy(model=str(judge))
    before = describe_rewards([option])
    tiny.change_json(judge / "config.json", rms_norm_eps=1e-3)
    assert describe_rewards([option]) != before


def test_a_model_that_answers_is_no_judge(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="is no reward model"):
        check_rewards([ScoredBy(model=str(tiny_model))])
