"""From a recipe to a run directory with everything in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tunesmith.errors import RecipeError
from tunesmith.models.autocast import product_type
from tunesmith.models.head import Head, summed_loss
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import resume, train

TUNINGS = {
    "lora": {"kind": "lora", "rank": 4, "targets": ["q_proj", "down_proj"]},
    "full": {"kind": "full"},
    "last layer": {"kind": "freeze", "layers": 1},
    "first layer": {"kind": "freeze", "layers": -1},
    "by name": {"kind": "freeze", "names": ["self_attn.v_proj"]},
    "embeddings": {"kind": "freeze", "layers": 0, "embeddings": True},
}
MOVED = {
    "full": lambda name: True,
    "last layer": lambda name: ".layers.1." in name,
    "first layer": lambda name: ".layers.0." in name,
    "by name": lambda name: "self_attn.v_proj" in name,
    "embeddings": lambda name: "embed_tokens" in name,
}


def run_recipe(tmp_path: Path, model: Path, **sections: object) -> Run:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    path = tiny.write_recipe(tmp_path / "r.json", model, data, **sections)
    return train(load_recipe(path))


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in run.metrics() if "loss" in record]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found.update(load_file(path))
    return found


@pytest.mark.parametrize("tuning", [name for name in TUNINGS if name != "lora"])
def test_the_right_weights_move_and_the_others_do_not(
    tmp_path: Path, tiny_model: Path, tuning: str
) -> None:
    run = run_recipe(tmp_path, tiny_model, tuning=TUNINGS[tuning])
    before, after = weights(tiny_model), weights(run.model)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        moved = not torch.equal(tensor, after[name])
        assert moved == MOVED[tuning](name), name
    assert losses(run)[-1] < losses(run)[0]


def test_lora_moves_its_own_matrices_only(tmp_path: Path, tiny_model: Path) -> None:
    before = weights(tiny_model)
    run = run_recipe(tmp_path, tiny_model, tuning=TUNINGS["lora"])
    adapter = weights(run.model)
    assert len(adapter) == 2 * 2 * 2
    assert all("q_proj" in name or "down_proj" in name for name in adapter)
    assert all(tensor.abs().max() > 0 for tensor in adapter.values())
    assert losses(run)[-1] < losses(run)[0]
    after = weights(tiny_model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_directory_holds_all_it_promises(tmp_path: Path, tiny_model: Path) -> None:
    run = run_recipe(tmp_path, tiny_model, data={"validation_share": 0.2})
    names = {path.name for path in run.path.iterdir()} - {".lock"}
    assert names == {
        "checkpoints",
        "data.json",
        "environment.json",
        "log.txt",
        "loss.png",
        "metrics.jsonl",
        "model",
        "probes.json",
        "recipe.yaml",
        "report.html",
        "samples.jsonl",
        "status.json",
    }
    assert run.status().state == "done"
    report = run.report_file.read_text("utf-8")
    assert "data:image/png;base64," in report
    assert 'src="http' not in report
    assert "question" in report
    records = [record for record in run.metrics() if "loss" in record]
    assert {"step", "loss", "grad_norm", "learning_rate", "tokens_per_second"} <= records[0].keys()
    assert any("eval_loss" in record for record in run.metrics())


@pytest.mark.parametrize("tokens", [1, 40, 100])
@pytest.mark.parametrize("shape", ["qwen3", "bloom"])
def test_how_an_update_is_split_changes_nothing(tmp_path: Path, shape: str, tokens: int) -> None:
    model = tiny.make_model(tmp_path / shape, shape)
    rows = [
        {"instruction": "q" * (1 + n % 5), "input": "", "output": "word " * (1 + n * 7 % 11)}
        for n in range(24)
    ]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    curves = []
    for batch_size, accumulation, limit in ((8, 1, 10_000), (2, 4, tokens)):
        options = {
            "batch_size": batch_size,
            "accumulation": accumulation,
            "learning_rate": 1e-2,
            "max_grad_norm": 0.5,
        }
        path = tiny.write_recipe(
            tmp_path / "r.json",
            model,
            data,
            optimizer=options,
            compute={"precision": "fp32", "threads": 1, "tokens_per_batch": limit},
        )
        curves.append(losses(train(load_recipe(path))))
    assert curves[1] == pytest.approx(curves[0], rel=2e-5)


def test_a_last_update_of_fewer_rows_may_be_split_too(tmp_path: Path, tiny_model: Path) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 11)
    curves = []
    for tokens in (10_000, 30):
        path = tiny.write_recipe(
            tmp_path / "r.json",
            tiny_model,
            data,
            optimizer={"batch_size": 6, "learning_rate": 1e-2},
            compute={"precision": "fp32", "threads": 1, "tokens_per_batch": tokens},
        )
        curves.append(losses(train(load_recipe(path))))
    assert curves[1] == pytest.approx(curves[0], rel=2e-5)


def test_gradient_checkpointing_changes_nothing_but_memory(
    tmp_path: Path, tiny_model: Path
) -> None:
    compute = {"precision": "fp32", "threads": 1}
    off = run_recipe(tmp_path, tiny_model, compute={**compute, "gradient_checkpointing": "off"})
    on = run_recipe(tmp_path, tiny_model, compute={**compute, "gradient_checkpointing": "on"})
    assert losses(on) == pytest.approx(losses(off), rel=1e-5)


def test_a_seed_repeats_a_run_to_the_bit_and_another_does_not(
    tmp_path: Path, tiny_model: Path
) -> None:
    curves = [
        losses(run_recipe(tmp_path, tiny_model, run={"seed": seed, "steps": 8}))
        for seed in (1, 1, 2)
    ]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_under_bf16_the_head_is_computed_in_bf16(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = []

    def spy(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        types.append(product_type(hidden))
        return summed_loss(head, hidden, targets)

    monkeypatch.setattr("tunesmith.models.head.summed_loss", spy)
    run_recipe(
        tmp_path,
        tiny_model,
        tuning={"kind": kind},
        compute={"precision": "bf16", "threads": 1},
        data={"validation_share": 0.2},
    )
    assert set(types) == {torch.bfloat16}


def test_neftune_trains_with_noise(tmp_path: Path, tiny_model: Path) -> None:
    plain = run_recipe(tmp_path, tiny_model)
    noisy = run_recipe(tmp_path, tiny_model, method={"name": "sft", "neftune_alpha": 10.0})
    assert losses(noisy)[0] != losses(plain)[0]
    assert noisy.status().state == "done"


def test_bf16_keeps_what_moves_in_fp32(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", dtype=torch.bfloat16)
    for kind in ("lora", "full"):
        run = run_recipe(
            tmp_path, model, tuning={"kind": kind}, compute={"precision": "bf16", "threads": 1}
        )
        assert {tensor.dtype for tensor in weights(run.model).values()} == {torch.float32}
        state = torch.load(run.checkpoints / "step-000008" / "optimizer.pt", weights_only=True)
        moments = {tensor.dtype for tensor in state["state"][0].values() if tensor.dim()}
        assert moments == {torch.float32}
        assert losses(run)[-1] < losses(run)[0]


def test_pure_bf16_keeps_everything_in_bf16(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", dtype=torch.bfloat16)
    run = run_recipe(
        tmp_path,
        model,
        tuning={"kind": "full"},
        compute={"precision": "pure_bf16", "threads": 1},
    )
    assert {tensor.dtype for tensor in weights(run.model).values()} == {torch.bfloat16}
    assert losses(run)[-1] < losses(run)[0]


def test_early_stopping_keeps_the_model_of_the_best_held_out_loss(
    tmp_path: Path, tiny_model: Path
) -> None:
    run = run_recipe(
        tmp_path,
        tiny_model,
        tuning={"kind": "full"},
        data={"validation_share": 0.3},
        optimizer={"learning_rate": 3e-2, "batch_size": 4, "early_stopping": 2},
        evaluate={"every_steps": 3},
        run={"epochs": 60, "steps": None, "save_every_steps": 3, "keep_checkpoints": 1},
    )
    measured = {r["step"]: r["eval_loss"] for r in run.metrics() if "eval_loss" in r}
    best = min(measured, key=lambda step: measured[step])
    assert run.status().state == "done"
    assert max(measured) == best + 6
    kept = weights(run.checkpoints / f"step-{best:06d}")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights(run.model).items())


def test_pretraining_from_random_weights_learns_plain_text(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = [{"text": f"the quick brown fox jumps over {n}"} for n in range(40)]
    data = tiny.write_rows(tmp_path / "texts.jsonl", rows)
    path = tiny.write_recipe(
        tmp_path / "r.json",
        tiny_model,
        data,
        model={"from_scratch": True},
        method={"name": "pretrain"},
        tuning={"kind": "full"},
    )
    run = train(load_recipe(path))
    assert losses(run)[-1] < losses(run)[0]


def test_what_keeps_steps_finite_changes_them(tmp_path: Path, tiny_model: Path) -> None:
    plain = run_recipe(tmp_path, tiny_model)
    changed = run_recipe(tmp_path, tiny_model, optimizer={"eps": 1e-2})
    assert losses(changed) != losses(plain)


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        ({"learning_rate": 1}, "recipe explain"),
        ({"save_only_model": True}, "recipe explain"),
        ({"num_train_epochs": 2}, "recipe explain"),
        ({"ignore_data_skip": True}, "recipe explain"),
        ({"tf33": True}, "did you mean tf32?"),
        ({"tf32": "maybe"}, "TrainingArguments"),
        ({"optim": "adafactor"}, "write optimizer.name"),
        ({"optim_args": "rank=8"}, "write the options of optimizer.name"),
        ({"adam_epsilon": 1e-6}, "write optimizer.eps"),
        ({"lr_scheduler_kwargs": {"power": 2}}, "write optimizer.min_rate"),
    ],
)
def test_an_extra_option_that_means_nothing_is_refused(
    tmp_path: Path, tiny_model: Path, extra: dict[str, object], hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        run_recipe(tmp_path, tiny_model, run={"extra": extra, "steps": 8})
    assert hint in caught.value.hint


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, tiny_model: Path) -> None:
    run = run_recipe(tmp_path, tiny_model)
    before = {name: tensor.clone() for name, tensor in weights(run.model).items()}
    resume(run)
    after = weights(run.model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert len(losses(run)) == 8
