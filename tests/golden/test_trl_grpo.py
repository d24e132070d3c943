"""Our rewards, advantages, losses and gradients on answers equal those of TRL on the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.golden.pairs import HOW, QUIET, check_same, gradients, make_models, moved
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.averages import Averages
from tunesmith.methods.grpo import GRPOMethod, overlong_punishment
from tunesmith.methods.online import Memory, observe_rows, token_logps
from tunesmith.models.reader import find_reader
from tunesmith.recipe.method import GRPO

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
GROUP, LIMIT, END = 3, 8, 2
REWARDS = [0.5, 2.0, -1.0, 1.0, 1.0, 1.0, 0.0, 3.0, 0.25]
LENGTHS = [3, 8, 5, 2, 8, 4, 6, 1, 7]
SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({}, {"loss_type": "grpo"}),
    "grpo with a reference": ({"beta": 0.3}, {"loss_type": "grpo", "beta": 0.3}),
    "grpo, again and warmer": (
        {"iterations": 2, "epsilon": 0.002, "epsilon_high": 0.004, "temperature": 1.7},
        {
            "loss_type": "grpo",
            "num_iterations": 2,
            "epsilon": 0.002,
            "epsilon_high": 0.004,
            "temperature": 1.7,
        },
    ),
    "dapo": (
        {"loss": "dapo", "iterations": 2, "beta": 0.1, "overlong": "mask"},
        {
            "loss_type": "dapo",
            "num_iterations": 2,
            "beta": 0.1,
            "epsilon_high": 0.28,
            "mask_truncated_completions": True,
        },
    ),
    "dr_grpo": (
        {"loss": "dr_grpo", "iterations": 2, "epsilon": 0.003},
        {
            "loss_type": "dr_grpo",
            "scale_rewards": "none",
            "num_iterations": 2,
            "epsilon": 0.003,
        },
    ),
    "rloo": ({"loss": "rloo"}, {"beta": 0.0}),
    "rloo, again and with a reference": (
        {"loss": "rloo", "iterations": 2, "beta": 0.2, "epsilon": 0.05, "overlong": "mask"},
        {
            "num_iterations": 2,
            "beta": 0.2,
            "epsilon": 0.05,
            "mask_truncated_completions": True,
        },
    ),
}


QUICK = {
    ("full", "grpo, again and warmer"),
    ("lora", "dapo"),
    ("lora", "dr_grpo"),
    ("lora", "rloo, again and with a reference"),
}


def make_rows() -> list[dict[str, Any]]:
    """Three questions with three answers each; those of the full length were cut."""
    draw = torch.Generator().manual_seed(5)
    rows = []
    for number, (reward, length) in enumerate(zip(REWARDS, LENGTHS, strict=True)):
        asked = list(range(10, 14 + number // GROUP))
        written = torch.randint(20, 390, (length,), generator=draw).tolist()
        if length < LIMIT:
            written[-1] = END
        rows.append(
            {
                "input_ids": [*asked, *written],
                "labels": [*[UNLEARNED] * len(asked), *written],
                "asked": len(asked),
                "cut": length == LIMIT,
                "reward": reward,
            }
        )
    return rows


def ours(
    method: GRPOMethod, model: Any, base: Any, tuning: str
) -> tuple[torch.Tensor, dict[str, float]]:
    """Our loss of an update with a policy that has moved before it wrote, and once more since."""
    moved(model, "lora_" if tuning == "lora" else "")
    rows = observe_rows(model, make_rows(), method.observe, how=HOW, tokens=40)
    if method.asks_reference:
        temperature = method.writing.temperature
        rows = observe_rows(
            base,
            rows,
            lambda given, batch: {"reference_logps": token_logps(given, batch, temperature)},
            how=HOW,
            tokens=1000,
        )
    rows = method.judge(rows, Memory()).rows
    if method.writing.iterations > 1:
        moved(model, "lora_" if tuning == "lora" else "")
    summed = method.loss(model, method.collate(rows, HOW))
    loss = summed.total / summed.count
    loss.backward()
    averages = Averages()
    averages.add(summed)
    return loss.detach(), averages.take()


@pytest.mark.parametrize(
    ("tuning", "name"),
    [
        pytest.param(tuning, name, marks=() if (tuning, name) in QUICK else pytest.mark.proof)
        for tuning in ("lora", "full")
        for name in SAME
    ],
)
def test_an_update_equals_trl_in_loss_and_every_gradient(
    tmp_path: Path, name: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy moves after it wrote, so that what it said then is not what it says now."""
    datasets = pytest.importorskip("datasets")
    import trl

    given, wanted = SAME[name]
    folder = tiny.make_model(tmp_path / "model", "qwen3")
    base, mine, theirs = make_models(folder, tuning)
    method = GRPOMethod(
        GRPO(rewards="json", group_size=GROUP, answer_tokens=LIMIT, **given)  # type: ignore[arg-type]
    )
    kind = "RLOO" if name.startswith("rloo") else "GRPO"
    rows = make_rows()
    trainer = getattr(trl, f"{kind}Trainer")(
        theirs,
        reward_funcs=lambda completions, **_: REWARDS,
        args=getattr(trl, f"{kind}Config")(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=len(rows),
            num_generations=GROUP,
            max_completion_length=LIMIT,
            **QUIET,
            **wanted,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}] * len(rows)),
        processing_class=find_reader(folder).tokenizer,
    )
    trainer.eos_token_ids = [END]
    trainer.model.train()
    if tuning == "full" and method.asks_reference:
        trainer.ref_model.float().load_state_dict(base.state_dict())
    asked = [row["input_ids"][: row["asked"]] for row in rows]
    written = [row["input_ids"][row["asked"] :] for row in rows]
    count = torch.tensor(sum(n for n in LENGTHS if n < LIMIT or "mask" not in str(given)))
    moved(trainer.model, "default" if tuning == "lora" else "")
    monkeypatch.setattr(trainer, "_generate", lambda prompts: _written(kind, asked, written))
    batch = trainer._generate_and_score_completions([{"prompt": "a"}] * len(rows))
    batch["num_items_in_batch"] = count
    trainer.current_gradient_accumulation_steps = 1
    if method.writing.iterations > 1:
        moved(trainer.model, "default" if tuning == "lora" else "")
    expected = trainer._compute_loss(trainer.model, batch)
    expected.backward()

    loss, measures = ours(method, mine, base, tuning)
    said = expected.detach()
    torch.testing.assert_close(loss, said, rtol=2e-6, atol=1e-6)  # theirs adds answers up in fp32
    check_same((said, gradients(mine)), (said, gradients(trainer.model)))
    watched = {name: found[-1] for name, found in trainer._metrics["train"].items() if found}
    assert measures["clipped_low"] == pytest.approx(watched["clip_ratio/low_mean"], abs=1e-6)
    assert measures["clipped_high"] == pytest.approx(watched["clip_ratio/high_mean"], abs=1e-6)
    if "epsilon" in given:
        assert watched["clip_ratio/region_mean"] > 0


def _written(kind: str, asked: list[list[int]], written: list[list[int]]) -> Any:
    texts = ["text"] * len(asked)
    if kind == "RLOO":
        return asked, written, texts
    return asked, written, None, texts, None, {}, None, None


@pytest.mark.parametrize("length", [1, 80, 81, 90, 100, 120])
def test_punishment_of_long_answers_equals_trl(length: int) -> None:
    from trl.rewards import get_soft_overlong_punishment

    (expected,) = get_soft_overlong_punishment(100, 20)([[1] * length])
    assert overlong_punishment(length, 100, 20) == pytest.approx(expected)
