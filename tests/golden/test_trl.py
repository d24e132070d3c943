"""Our losses and gradients equal those of TRL on the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith.data.prepare import prepare
from tunesmith.methods import build_method
from tunesmith.methods.method import Joining
from tunesmith.models.few_passes import use_few_passes
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.recipe.load import load_recipe

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": f"question {n}"},
            {"role": "assistant", "content": f"It is {n * 7}." + " word" * (n % 4)},
            {"role": "user", "content": "more"},
            {"role": "assistant", "content": "the lazy dog"},
        ]
    }
    for n in range(6)
]


@pytest.mark.parametrize("shape", ["qwen3", "llama"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sft_equals_trl_in_loss_and_in_every_gradient(tmp_path: Path, shape: str) -> None:
    datasets = pytest.importorskip("datasets")
    from trl import SFTConfig, SFTTrainer

    folder = tiny.make_model(tmp_path / "model", shape)
    reader = find_reader(folder)
    recipe = load_recipe(
        tiny.write_recipe(
            tmp_path / "r.json", folder, tiny.write_rows(tmp_path / "rows.jsonl", ROWS)
        )
    )
    method = build_method(recipe.method)
    rows = prepare(
        recipe.data.model_copy(update={"max_tokens": 256}),
        method.learn,
        reader.tokenizer,
        reader.template,
        seed=0,
    ).train
    mine = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    use_few_passes(mine)
    summed = method.loss(
        mine, method.collate([rows[row] for row in range(len(rows))], Joining(flat=True))
    )
    (summed.total / summed.count).backward()

    theirs = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    config = SFTConfig(
        output_dir=str(tmp_path / "trl"),
        assistant_only_loss=True,
        bf16=False,
        use_cpu=True,
        report_to="none",
        per_device_train_batch_size=len(ROWS),
        gradient_checkpointing=False,
        max_length=256,
    )
    trainer = SFTTrainer(
        theirs,
        args=config,
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=reader.tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(ROWS))])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    learned = int((batch["labels"] != -100).sum())
    assert int(summed.count) == learned
    torch.testing.assert_close(summed.total / summed.count, loss, rtol=1e-6, atol=1e-6)
    for (name, one), (_, other) in zip(
        mine.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert one.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
