"""Every kind of adapter: trained, stopped and resumed, answering, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.methods import build_method
from tunesmith.methods.method import Joining
from tunesmith.models.adapter import load_adapter, save_adapter
from tunesmith.models.chat import find_subject, load_chat_model, load_subject
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.load import load_model
from tunesmith.models.roles import load_reader, load_roles
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.tuning import RESIDUAL
from tunesmith.runs.run import Run
from tunesmith.runs.store import list_runs
from tunesmith.training import train as training
from tunesmith.training.train import resume, train

LORA = {"kind": "lora", "rank": 4}
TUNINGS: dict[str, dict[str, Any]] = {
    "rslora": {**LORA, "rslora": True},
    "dora": {**LORA, "dora": True},
    "rsdora": {**LORA, "dora": True, "rslora": True, "targets": ["q_proj", "down_proj"]},
    "orthogonal": {**LORA, "init": "orthogonal"},
    "pissa": {**LORA, "init": "pissa"},
    "pissa scales": {**LORA, "init": "pissa", "alpha_pattern": {"q_proj": 1}},
    "pissa rslora": {
        **LORA,
        "init": "pissa",
        "rslora": True,
        "rank_pattern": {"v_proj": 6},
        "targets": ["v_proj", "up_proj"],
    },
    "pissa niter": {**LORA, "init": "pissa_niter"},
    "olora": {**LORA, "init": "olora"},
    "eva": {**LORA, "init": "eva", "eva_rows": 6},
    "ranks": {**LORA, "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7}},
    "scales": {**LORA, "alpha_pattern": {"q_proj": 1}},
    "pattern": {**LORA, "target_pattern": r".*layers\.1\..*\.[qv]_proj"},
    "frozen a": {**LORA, "freeze_a": True},
    "frozen a, dropout": {**LORA, "freeze_a": True, "dropout": 0.2},
    "modules": {**LORA, "modules": ["input_layernorm"], "targets": ["q_proj"]},
    "tokens": {**LORA, "tokens": ["<|im_end|>", 7]},
    "adalora": {"kind": "adalora", "rank": 4, "first_rank": 5, "alpha": 300},
    "vera": {"kind": "vera", "rank": 16},
    "oft": {"kind": "oft", "block_size": 8},
    "ia3": {"kind": "ia3"},
    "hra": {"kind": "hra", "rank": 4},
    "loha": {"kind": "loha", "rank": 4},
    "lokr": {"kind": "lokr", "rank": 4, "modules": ["norm"]},
}
MOVED: dict[str, Any] = {
    "dora": (".lora_A.", ".lora_B.", ".lora_magnitude_vector."),
    "rsdora": (".lora_A.", ".lora_B.", ".lora_magnitude_vector."),
    "frozen a": (".lora_B.",),
    "frozen a, dropout": (".lora_B.",),
    "modules": (".lora_A.", ".lora_B.", ".input_layernorm.modules_to_save."),
    "tokens": (".lora_A.", ".lora_B.", ".trainable_tokens_delta."),
    "adalora": (".lora_A.", ".lora_B.", ".lora_E."),
    "vera": (".vera_lambda_",),
    "oft": (".oft_R.",),
    "ia3": (".ia3_l.",),
    "hra": (".hra_u.",),
    "loha": (".hada_w",),
    "lokr": (".lokr_w", ".norm.modules_to_save."),
}
RESUMED = [
    *("dora", "pissa rslora", "olora", "eva", "frozen a", "modules", "tokens"),
    *("vera", "oft", "ia3", "adalora"),
]
"""Kinds with something of their own to be put back."""
LORA_MOVES = (".lora_A.", ".lora_B.")
HELD_OUT: dict[str, Any] = {
    "data": {"validation_share": 0.2},
    "evaluate": {"every_steps": 3},
    "run": {"steps": 6, "save_every_steps": 3},
}


@pytest.fixture(params=TUNINGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, model: Path, kind: str, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    data = tiny.write_pairs(folder / "pairs.jsonl", 20)
    given = {"tuning": TUNINGS[kind], **HELD_OUT, **sections}
    return tiny.write_recipe(folder / "r.json", model, data, **given)


def train_on(folder: Path, model: Path, kind: str, **sections: Any) -> Run:
    return train(load_recipe(write(folder, model, kind, **sections)))


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(input_ids=torch.arange(5, 25)[None]).logits
    return out


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keep the policy that is trained, its weights before, and what it says after."""
    seen: dict[str, Any] = {}
    load, publish = training.load_policy, training.publish_model

    def load_policy(prepared: Any) -> Any:
        roles = load(prepared)
        seen["policy"] = roles.policy
        seen["before"] = {n: p.detach().clone() for n, p in roles.policy.named_parameters()}
        return roles

    def publish_model(run: Run, trainer: Any) -> None:
        publish(run, trainer)
        seen["logits"] = logits(trainer.roles.policy)

    monkeypatch.setattr(training, "load_policy", load_policy)
    monkeypatch.setattr(training, "publish_model", publish_model)
    return seen


def close(one: torch.Tensor, other: torch.Tensor, share: float = 1e-5) -> bool:
    return float((one - other).abs().max()) <= share * float(other.abs().max())


def test_the_right_weights_move_and_what_is_saved_says_what_was_trained(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch)
    run = train_on(tmp_path, tiny_model, kind)
    moves = MOVED.get(kind, LORA_MOVES)
    for name, weight in seen["policy"].named_parameters():
        moved = not torch.equal(weight, seen["before"][name])
        assert moved == any(part in name for part in moves), name
    losses = [record["loss"] for record in run.metrics() if "loss" in record]
    assert losses[-1] < losses[0]
    base = logits(load_chat_model(tiny_model, precision="fp32", device="cpu").model)
    loaded = load_chat_model(run.path, precision="fp32", device="cpu")
    assert not close(base, seen["logits"], 1e-3)
    assert close(logits(loaded.model), seen["logits"])
    exported = export(run.path, tmp_path / "out")
    merged = load_chat_model(exported.folder, precision="fp32", device="cpu")
    assert close(logits(merged.model), seen["logits"])
    assert evaluate(run.path) is not None


@pytest.mark.parametrize("kind", RESUMED)
def test_a_stop_and_a_resume_leave_the_same_bits(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_on(tmp_path / "whole", tiny_model, kind)
    stop_at(monkeypatch, 4)
    stopped = train_on(tmp_path / "stopped", tiny_model, kind)
    assert stopped.status().state == "stopped"
    monkeypatch.undo()
    monkeypatch.setenv("TUNESMITH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    resume(stopped)
    one, other = adapter(whole.model), adapter(stopped.model)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    ours, theirs = (
        torch.load(run.checkpoints / "step-000006" / "optimizer.pt", weights_only=True)["state"]
        for run in (whole, stopped)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n]["exp_avg"], theirs[n]["exp_avg"]) for n in ours)


def test_flat_batches_give_the_gradients_of_padded_ones(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    path = write(tmp_path, tiny_model, kind, data={}, evaluate={})
    recipe = load_recipe(path, ["tuning.dropout=0"] if "dropout" in kind else [])
    method, found = build_method(recipe.method), []
    for flat in (True, False):
        torch.manual_seed(0)
        policy = load_roles(recipe, load_reader(recipe)).policy
        shake(policy)
        rows = training.prepare_run(recipe).splits.train
        batch = method.collate([rows[at] for at in (0, 1, 2)], Joining(flat=flat, coarse=False))
        method.loss(policy, batch).total.backward()
        found.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert found[0].keys() == {n for n, p in policy.named_parameters() if p.requires_grad}
    largest = max(float(gradient.abs().max()) for gradient in found[1].values())
    for name, gradient in found[1].items():
        assert float((found[0][name] - gradient).abs().max()) <= 1e-5 * largest, name


def test_switched_off_an_adapter_leaves_the_base(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    if TUNINGS[kind].get("init") in RESIDUAL:  # such a reference is refused
        return
    recipe = load_recipe(write(tmp_path, tiny_model, kind, data={}, evaluate={}))
    policy: Any = load_roles(recipe, load_reader(recipe)).policy
    shake(policy)
    base = logits(load_chat_model(tiny_model, precision="fp32", device="cpu").model)
    assert not close(logits(policy), base, 1e-3)
    with policy.disable_adapter():
        assert close(logits(policy), base)


FEW = ["dora", "pissa", "tokens", "vera", "oft", "ia3", "hra"]
FITTING = {"gpt2": {"targets": ["c_attn", "mlp.c_proj"], "feedforward": ["mlp.c_proj"]}}


@pytest.mark.proof
@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("kind", FEW)
def test_other_families_merge_into_what_was_trained(tmp_path: Path, shape: str, kind: str) -> None:
    model = tiny.make_model(tmp_path / "model", shape)
    tuning = {**TUNINGS[kind], **(FITTING.get(shape, {}) if kind == "ia3" else {})}
    path = write(tmp_path, model, kind, tuning=tuning, data={}, evaluate={})
    recipe = load_recipe(path)
    if shape == "gpt2" and kind in ("hra", "oft"):
        with pytest.raises(RecipeError, match="the other way round"):
            load_roles(recipe, load_reader(recipe))
        return
    policy: Any = load_roles(recipe, load_reader(recipe)).policy
    shake(policy)
    said = logits(policy)
    save_adapter(policy, tmp_path / "saved", base=model, sha256=weights_sha256(model))
    base = load_model(model, dtype=torch.float32, device=torch.device("cpu"))
    loaded = load_adapter(base, tmp_path / "saved", model)
    assert close(logits(loaded), said)
    assert close(logits(loaded.merge_and_unload(safe_merge=True)), said)


def going_on(folder: Path, model: Path, kind: str, start: Path | str, **options: Any) -> Run:
    tuning = {**TUNINGS[kind], **options, "from_adapter": str(start)}
    return train_on(folder, model, kind, tuning=tuning)


@pytest.mark.parametrize("kind", ["dora", "tokens", "vera", "oft", "ia3"])
def test_training_goes_on_from_an_adapter(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_on(tmp_path / "first", tiny_model, kind)
    seen = watched(monkeypatch)
    second = going_on(tmp_path / "second", tiny_model, kind, first.path)
    saved = adapter(first.model)
    begun = {name.replace(".default", ""): weight for name, weight in seen["before"].items()}
    known = [name for name in begun if name in saved]
    assert known
    assert all(torch.equal(begun[name], saved[name]) for name in known)
    assert "start_weights" in second.environment()


def test_only_an_adapter_that_fits_is_gone_on_from(tmp_path: Path, tiny_model: Path) -> None:
    first = train_on(tmp_path / "first", tiny_model, "ranks")
    other = tiny.make_model(tmp_path / "other", seed=9)
    start, runs = first.model, len(list_runs())
    for model, kind, options, said in (
        (tiny_model, "ranks", {"rank": 5}, "another r: 4"),
        (tiny_model, "rslora", {}, "rank_pattern"),
        (tiny_model, "ranks", {"alpha": 3}, "lora_alpha"),
        (tiny_model, "vera", {}, "another peft_type"),
        (tiny_model, "ranks", {"modules": ["norm"]}, "missing"),
        (other, "ranks", {}, "another base"),
    ):
        with pytest.raises((RecipeError, ModelError), match=said):
            going_on(tmp_path / "second", model, kind, start, **options)
    with pytest.raises(RecipeError, match="no adapter"):
        going_on(tmp_path / "second", tiny_model, "ranks", tiny_model)
    assert len(list_runs()) == runs
    (start / "base.json").unlink()  # as PEFT leaves it
    assert going_on(tmp_path / "second", tiny_model, "ranks", start).status().state == "done"


def shake(policy: torch.nn.Module) -> None:
    """Move what is trained away from where it begins, which is often no change at all."""
    torch.manual_seed(1)
    for weight in policy.parameters():
        if weight.requires_grad:
            weight.data += 0.02 * torch.randn_like(weight)


@pytest.mark.proof
@pytest.mark.parametrize("kind", RESUMED)
def test_answers_in_bf16_and_from_a_checkpoint(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    run = train_on(tmp_path, tiny_model, kind, data={}, evaluate={})
    exact = logits(load_chat_model(run.path, precision="fp32", device="cpu").model)
    rough = logits(load_chat_model(run.path, precision="bf16", device="cpu").model).float()
    assert close(rough, exact, 0.1)
    kept = load_subject(find_subject(run.checkpoints / "step-000006"), "fp32", "cpu")
    assert torch.equal(logits(kept.model), exact)
