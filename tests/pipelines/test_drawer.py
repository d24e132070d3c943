"""A drawer full of LLaMA-Factory's files: each trains, is merged, talked to and measured by files.

What is merged must say what PEFT and transformers say of the folder that the training filled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import theirs, tiny
from tests.command import Command
from tunesmith.models.chat import find_subject

pytestmark = pytest.mark.proof
OUTPUT = "saves/tiny/drawer"
SHORT = ("max_steps=2", "compute.threads=1", "evaluate.sample_rows=0")
WHOLE: dict[str, Any] = {"finetuning_type": "full", **theirs.WITHOUT_LORA}
LAYERS: dict[str, Any] = {
    "finetuning_type": "freeze",
    "freeze_trainable_layers": 2,
    "freeze_trainable_modules": "all",
    **theirs.WITHOUT_LORA,
}
AT_ONCE = {"gradient_accumulation_steps": 1}
PAIRS: dict[str, Any] = {"stage": "dpo", "dataset": "pairs", "pref_beta": 0.1}
DRAWER: dict[str, dict[str, Any]] = {
    "lora": {"val_size": 0.1, "per_device_eval_batch_size": 1, "eval_strategy": "steps"},
    "full": WHOLE,
    "freeze": LAYERS,
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"pissa_init": True, "pissa_iter": 16, "pissa_convert": True},
    "loraplus": {"loraplus_lr_ratio": 16.0},
    "oft": {"finetuning_type": "oft", "oft_block_size": 16, "oft_target": "all",
            **theirs.WITHOUT_LORA},
    "longlora": {"shift_attn": True, "rope_scaling": "linear"},
    "targets": {"lora_target": "q_proj,v_proj", "lora_alpha": 16, "lora_dropout": 0.1},
    "head": {"additional_target": "embed_tokens,lm_head"},
    "neftune": {"neftune_noise_alpha": 5},
    "prompts": {"train_on_prompt": True, "default_system": "Be short."},
    "galore": {**WHOLE, **AT_ONCE, "use_galore": True, "galore_layerwise": True,
               "galore_target": "all", "galore_rank": 8, "galore_scale": 2.0, "pure_bf16": True},
    "apollo": {**WHOLE, **AT_ONCE, "use_apollo": True, "apollo_layerwise": True,
               "apollo_target": "all", "apollo_rank": 8, "apollo_scale": 32.0,
               "apollo_scale_type": "channel", "pure_bf16": True},
    "badam": {**WHOLE, "use_badam": True, "badam_mode": "layer",
              "badam_switch_mode": "ascending", "badam_switch_interval": 1, "badam_verbose": 2},
    "adam_mini": {**WHOLE, "use_adam_mini": True},
    "muon": {**WHOLE, "use_muon": True},
    "packing": {"packing": True},
    "neat_packing": {"neat_packing": True},
    "dft": {"use_dft_loss": True},
    "asft": {"use_asft_loss": True, "asft_alpha": 0.1},
    "eaft": {"use_eaft_loss": True},
    "pretrain": {"stage": "pt", "dataset": "texts", "template": None},
    "dpo": {**PAIRS, "pref_loss": "sigmoid", "pref_ftx": 0.1},
    "hinge": {**PAIRS, "pref_loss": "hinge"},
    "ipo": {**PAIRS, "pref_loss": "ipo"},
    "orpo": {**PAIRS, "pref_loss": "orpo"},
    "simpo": {**PAIRS, "pref_loss": "simpo", "simpo_gamma": 0.5},
    "kto": {"stage": "kto", "dataset": "judged", "pref_beta": 0.1},
    "qlora": {"quantization_bit": 4, "quantization_method": "bnb"},
    "qlora_8": {"quantization_bit": 8, "quantization_method": "bitsandbytes"},
    "qlora_hqq": {"quantization_bit": 4, "quantization_method": "hqq"},
    "llama_pro": {**LAYERS, "use_llama_pro": True},
    "mixed": {"dataset": "questions,others", "mix_strategy": "interleave_under",
              "interleave_probs": "0.7,0.3"},
    "streamed": {"streaming": True, "buffer_size": 128, "max_samples": None},
    "best": {"val_size": 0.2, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1,
             "load_best_model_at_end": True, "compute_accuracy": True, "do_eval": True},
    "board": {"include_num_input_tokens_seen": True, "flash_attn": "auto", "optim": "adamw_torch",
              "warmup_steps": 0, "packing": False, "lora_alpha": 16, "lora_dropout": 0,
              "max_grad_norm": 1.0, "enable_thinking": True, "image_max_pixels": 589824},
}  # fmt: skip


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = theirs.write_sets(tmp_path)
    tiny.write_pairs(data / "others.jsonl", 12, start=50)
    info = json.loads((data / "dataset_info.json").read_text("utf-8"))
    info["others"] = {"file_name": "others.jsonl"}
    (data / "dataset_info.json").write_text(json.dumps(info), "utf-8")
    monkeypatch.chdir(tmp_path)


def write(name: str, **keys: Any) -> str:
    """Write a file that is not for training."""
    given = {key: value for key, value in keys.items() if value is not None}
    Path(name).write_text(yaml.safe_dump(given, sort_keys=False), "utf-8")
    return name


def drawn(name: str, model: Path) -> Path:
    """Write a file of the drawer with a rate at which two updates can be seen."""
    keys = {"output_dir": OUTPUT, "learning_rate": 1.0e-2, "warmup_ratio": 0, **DRAWER[name]}
    return theirs.write_theirs(Path(f"{name}.yaml"), model, **keys)


def naming(model: Path, kind: str) -> dict[str, Any]:
    """Name what a training left, as a file of chat, api or merging does."""
    common = {"template": "qwen3_nothink", "trust_remote_code": True}
    if kind not in ("lora", "oft"):
        return {"model_name_or_path": OUTPUT, "finetuning_type": kind, **common}
    own = {"adapter_name_or_path": OUTPUT, "finetuning_type": kind}
    return {"model_name_or_path": str(model), **own, **common}


def logits(folder: Path | str, adapter: str | None = None) -> torch.Tensor:
    """Ask transformers, and PEFT where there is an adapter, for the logits of some tokens."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(5, 45)[None]).logits
    return found


def say(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Type lines into the next talk."""
    typed = iter((*lines, "/quit"))
    monkeypatch.setattr("builtins.input", lambda _: next(typed))


@pytest.mark.parametrize("name", DRAWER)
def test_a_file_trains_and_others_merge_talk_and_measure(
    name: str, tiny_model: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "head":  # of the other one, head and embeddings are one
        tiny_model = tiny.make_model(Path("untied"), "untied")
    trained = command("train", drawn(name, tiny_model), *SHORT)
    assert trained.code == 0, trained.err
    kind = DRAWER[name].get("finetuning_type", "lora")
    named = naming(tiny_model, kind)

    merge = {"export_dir": "merged", "export_size": 5, "export_device": "cpu"}
    merged = command("export", write("merge.yaml", **named, **merge, export_legacy_format=False))
    assert merged.code == 0, merged.err
    given = logits("merged")
    adapted = kind in ("lora", "oft")
    expected = logits(tiny_model, OUTPUT) if adapted else logits(OUTPUT)
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    assert (given - logits(tiny_model)).abs().max() > 1e-4

    say(monkeypatch, "question 5")
    talk = write("chat.yaml", **named, infer_backend="huggingface", do_sample=False)
    talked = command("chat", talk, "max_new_tokens=3")
    assert talked.code == 0, talked.err
    run = find_subject(OUTPUT).run
    assert run is not None
    assert f"talking to {run.name}" in talked.out

    rows = {"pretrain": "texts"}.get(name, "questions")
    rows = "pairs" if DRAWER[name].get("stage") == "dpo" else rows
    rows = "judged" if name == "kto" else rows
    asked = {"stage": "sft", "do_eval": True, "do_predict": True, "predict_with_generate": True,
             "eval_dataset": rows, "max_samples": 2, "output_dir": "predicted"}  # fmt: skip
    measured = command("evaluate", write("predict.yaml", **named, **asked), "max_new_tokens=3")
    assert measured.code == 0, measured.err
    results = json.loads(Path("predicted/all_results.json").read_text("utf-8"))
    assert results["eval_loss"] > 0
    lines = [
        json.loads(line)
        for path in Path("predicted").glob("generated_predictions.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    assert len(lines) == (0 if name == "pretrain" else len(lines)) <= 2
    assert all(set(line) == {"prompt", "predict", "label"} for line in lines)
    assert bool(lines) == (name not in ("pretrain",))


def test_a_reward_model_judges_another_files_policy(tiny_model: Path, command: Command) -> None:
    reward = {**theirs.EXAMPLES["reward"], "output_dir": "saves/tiny/lora/reward"}
    path = theirs.write_theirs(Path("reward.yaml"), tiny_model, **reward)
    assert command("train", path, *SHORT).code == 0
    named = {**naming(tiny_model, "lora"), "adapter_name_or_path": "saves/tiny/lora/reward"}
    refused = command("chat", write("chat.yaml", **named))
    assert "this is a reward model: it scores answers" in refused.err
    merged = command("export", write("merge.yaml", **named, export_dir="judge"))
    assert merged.code == 0, merged.err
    lost = {"stage": "rm", "do_eval": True, "eval_dataset": "pairs", "output_dir": "measured"}
    measured = command("evaluate", write("eval.yaml", **named, **lost))
    assert measured.code == 0, measured.err
    results = json.loads(Path("measured/eval_results.json").read_text("utf-8"))
    assert 0 <= results["eval_rewards/accuracies"] <= 1
    ppo = {**theirs.PPO, "output_dir": OUTPUT, "ppo_epochs": 1}
    policy = theirs.write_theirs(Path("ppo.yaml"), tiny_model, **ppo)
    trained = command("train", policy, *SHORT, "max_steps=1")
    assert trained.code == 0, trained.err
    out = command("export", write("p.yaml", **naming(tiny_model, "lora"), export_dir="policy"))
    assert out.code == 0, out.err


def foreign(command: Command, model: Path) -> dict[str, Any]:
    """Train an adapter, and leave of it what LLaMA-Factory would have left."""
    assert command("train", drawn("lora", model), *SHORT).code == 0
    for ours in ("tunesmith-run.json", "base.json"):
        (Path(OUTPUT) / ours).unlink()
    return naming(model, "lora")


def test_what_llamafactory_trained_is_merged_and_measured(
    tiny_model: Path, command: Command
) -> None:
    named = foreign(command, tiny_model)
    merged = command("export", write("merge.yaml", **named, export_dir="merged"))
    assert merged.code == 0, merged.err
    assert "8 prompts, in fp32" in merged.out
    torch.testing.assert_close(logits("merged"), logits(tiny_model, OUTPUT), atol=1e-4, rtol=1e-4)
    proof = json.loads(Path("merged/parity.json").read_text("utf-8"))
    assert (proof["run"], proof["num_probes"]) == (None, 8)
    asked = {"do_predict": True, "predict_with_generate": True, "eval_dataset": "pairs,questions",
             "max_samples": 2, "output_dir": "predicted", "max_new_tokens": 3}  # fmt: skip
    measured = command("evaluate", write("predict.yaml", **named, **asked, dataset_dir="data"))
    assert measured.code == 2
    assert "pairs" in measured.err
    measured = command("evaluate", "predict.yaml", "eval_dataset=questions,others")
    assert measured.code == 0, measured.err
    lines = Path("predicted/generated_predictions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines][:1] == ["It is 0."]
    assert len(lines) == 4
    lost = command("evaluate", write("eval.yaml", **named, do_eval=True, eval_dataset="questions"))
    assert "is no run, and of other models answers alone are measured" in lost.err


@pytest.mark.parametrize("form", ["safetensors", "gguf", "adapter"])
def test_what_llamafactory_trained_is_written_in_other_forms(
    form: str, tiny_model: Path, command: Command
) -> None:
    named = foreign(command, tiny_model)
    path = write("merge.yaml", **named, export_dir="out")
    written = command("export", path, "--format", form)
    assert written.code == 0, written.err
    if form == "adapter":  # no folder of this machine
        config = json.loads(Path("out/adapter_config.json").read_text("utf-8"))
        assert config["base_model_name_or_path"] == tiny_model.name


def test_a_model_is_packed_without_having_been_trained(tiny_model: Path, command: Command) -> None:
    few = {"export_quantization_bit": 4, "export_dir": "packed"}
    named = {"model_name_or_path": str(tiny_model), "template": "qwen3_nothink"}
    path = write("gptq.yaml", **named, **few, export_quantization_dataset="data/texts.jsonl")
    packed = command("export", path)
    assert packed.code == 0, packed.err
    config = json.loads(Path("packed/config.json").read_text("utf-8"))
    assert config["quantization_config"]["bits"] == 4
    refused = command("export", write("gptq.yaml", **named, **few), "export_dir=other")
    assert "GPTQ is calibrated on rows, and a model that is no run has none" in refused.err


def test_a_stopped_training_is_named_by_its_file(tiny_model: Path, command: Command) -> None:
    path = drawn("lora", tiny_model)
    assert command("train", path, *SHORT, "save_steps=1").code == 0
    run = find_subject(OUTPUT).run
    assert run is not None
    run.write_status(state="stopped")  # as if somebody had pressed Ctrl-C
    asked = command("train", path, *SHORT, "resume_from_checkpoint=true")
    assert f"`tunesmith runs resume {run.name}` goes on" in asked.err
    again = command("train", path, *SHORT, "overwrite_output_dir=false")
    assert f"the run {run.name} trains into this folder and has not ended" in again.err
    assert command("train", path, *SHORT).code == 0
