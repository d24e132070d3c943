"""Somebody's LLaMA-Factory files: trained, talked to, exported and served as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests import theirs, tiny
from tests.command import Command
from tunesmith.errors import ModelError
from tunesmith.models.chat import Subject, find_subject, load_chat_model
from tunesmith.models.given import find_given
from tunesmith.recipe.quantize import HQQ
from tunesmith.runs.store import list_runs
from tunesmith.training.train import resume

SHORT = ("max_steps=2", "evaluate.sample_rows=0", "compute.threads=1")
OUTPUTS = {
    "trainer_log.jsonl",
    "trainer_state.json",
    "train_results.json",
    "all_results.json",
    "training_loss.png",
}


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs.write_sets(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", theirs.EXAMPLES)
def test_every_example_trains_and_leaves_its_files(
    name: str, tiny_model: Path, command: Command
) -> None:
    path = theirs.write_theirs(Path(f"{name}.yaml"), tiny_model, **theirs.EXAMPLES[name])
    outcome = command("train", path, *SHORT)
    assert outcome.code == 0, outcome.err
    assert "trust_remote_code: code that comes with a model is never run" in outcome.out
    (run,) = list_runs()
    assert run.status().state == "done"
    assert [record["step"] for record in run.metrics() if "loss" in record] == [1, 2]
    folder = Path("saves/tiny/lora/sft")
    assert {path.name for path in folder.iterdir()} >= OUTPUTS
    assert {path.name for path in run.path.iterdir()} >= OUTPUTS
    assert {path.name for path in run.model.iterdir()} <= {path.name for path in folder.iterdir()}
    assert find_subject(str(folder)).run == run


def test_a_policy_learns_by_the_reward_model_of_another_file(
    tiny_model: Path, command: Command
) -> None:
    judge = {**theirs.EXAMPLES["reward"], "output_dir": "saves/tiny/lora/reward"}
    path = theirs.write_theirs(Path("reward.yaml"), tiny_model, **judge)
    assert command("train", path, *SHORT).code == 0
    path = theirs.write_theirs(Path("ppo.yaml"), tiny_model, **theirs.PPO)
    outcome = command("train", path, *SHORT, "max_steps=1", "ppo_epochs=2")
    assert outcome.code == 0, outcome.err
    assert "top_p: answers are drawn from all tokens" in outcome.out
    run = find_subject("saves/tiny/lora/ppo").run
    assert run is not None
    figures = [record for record in run.metrics() if "loss" in record]
    assert [record["step"] for record in figures] == [2]  # their steps are rollouts
    assert figures[0]["reward"] == figures[0]["reward_model"] != 0
    assert find_subject(run.recipe().method.rewards[0].model).run != run  # type: ignore[union-attr]


def test_a_quantized_base_trains(tiny_model: Path, command: Command) -> None:
    pytest.importorskip("bitsandbytes")
    path = theirs.write_theirs(Path("qlora.yaml"), tiny_model, **theirs.QLORA)
    outcome = command("train", path, *SHORT)
    assert outcome.code == 0, outcome.err


def test_figures_have_the_names_that_scripts_look_for(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("sft.json"), tiny_model, **theirs.EXAMPLES["sft_lora"])
    assert command("train", path, *SHORT).code == 0
    folder = Path("saves/tiny/lora/sft")
    log = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    first = log[0]
    assert first["current_steps"] == 1
    assert first["total_steps"] == 2
    assert first["percentage"] == 50.0
    assert {"loss", "lr", "epoch", "elapsed_time", "remaining_time"} <= set(first)
    results = json.loads((folder / "all_results.json").read_text())
    assert {"epoch", "train_loss", "train_runtime", "eval_loss"} <= set(results)
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["log_history"][0]["step"] == 1
    assert (folder / "eval_results.json").is_file()


def test_figures_of_preferences_have_their_names_too(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("dpo.yaml"), tiny_model, **theirs.EXAMPLES["dpo"])
    assert command("train", path, *SHORT, "val_size=0.2").code == 0
    folder = Path("saves/tiny/lora/sft")
    state = json.loads((folder / "trainer_state.json").read_text())
    first, last = state["log_history"][0], state["log_history"][-1]
    kinds = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
    assert {*kinds, "logps/chosen", "logps/rejected"} <= set(first)
    ours = list_runs()[0].metrics()
    assert last["eval_rewards/accuracies"] == ours[-1]["eval_rewards_accuracy"]
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["eval_rewards/accuracies"] == last["eval_rewards/accuracies"]
    assert (folder / "training_rewards_accuracies.png").is_file()


def test_a_trained_file_is_merged_and_talked_to_by_files(
    tiny_model: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = theirs.write_theirs(Path("sft.yaml"), tiny_model)
    assert command("train", training, *SHORT).code == 0
    whole = {
        "model_name_or_path": str(tiny_model),
        "adapter_name_or_path": "saves/tiny/lora/sft",
        "template": "qwen3_nothink",
        "trust_remote_code": True,
        "infer_backend": "huggingface",
    }
    Path("chat.yaml").write_text(yaml.safe_dump(whole), "utf-8")
    merge = {**whole, "export_dir": "merged", "export_size": 5, "export_legacy_format": False}
    Path("merge.yaml").write_text(yaml.safe_dump(merge), "utf-8")
    outcome = command("export", "merge.yaml")
    assert outcome.code == 0, outcome.err
    assert Path("merged/model.safetensors").is_file()
    few = {"export_quantization_bit": 4, "export_quantization_nsamples": 3}
    packed = {**merge, **few, "export_dir": "packed", "export_quantization_maxlen": 9}
    Path("packed.yaml").write_text(yaml.safe_dump(packed), "utf-8")
    outcome = command("export", "packed.yaml")
    assert outcome.code == 0, outcome.err
    assert "gptq-4" in outcome.out
    outcome = command("export", "packed.yaml", "--format", "gguf", "--to", "other")
    assert "asks for GPTQ in 4 bits, which --format gguf does not hold" in outcome.err
    assert json.loads(Path("packed/parity.json").read_text())["calibrated"] == 3 * 9
    monkeypatch.setattr("builtins.input", lambda _: "/quit")
    outcome = command("chat", "chat.yaml", "max_new_tokens=4")
    assert outcome.code == 0, outcome.err
    assert list_runs()[0].name in outcome.out
    assert find_given("chat.yaml", ["do_sample=false"]).use.sampling["temperature"] == 0  # type: ignore[union-attr]


def test_a_changed_copy_leaves_the_run_as_it_was(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("sft.yaml"), tiny_model)
    assert command("train", path, *SHORT).code == 0
    config = Path("saves/tiny/lora/sft/adapter_config.json")
    config.write_text("{}")
    (run,) = list_runs()
    assert json.loads((run.model / "adapter_config.json").read_text())["r"] == 4
    again = command("train", path, *SHORT)
    assert again.code == 0, again.err
    assert json.loads(config.read_text())["r"] == 4


def test_a_run_that_goes_on_publishes_too(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("sft.yaml"), tiny_model)
    assert command("train", path, *SHORT).code == 0
    (run,) = list_runs()
    for file in Path("saves/tiny/lora/sft").iterdir():
        file.unlink()
    resume(run)
    assert find_subject("saves/tiny/lora/sft").run == run


def test_the_converted_recipe_trains_to_the_same_loss(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("sft.yaml"), tiny_model)
    assert command("train", path, *SHORT).code == 0
    converted = command("recipe", "convert", path, *SHORT)
    assert converted.code == 0, converted.err
    Path("ours.yaml").write_text(converted.out, "utf-8")
    assert command("train", "ours.yaml").code == 0
    first, second = ([r["loss"] for r in run.metrics()] for run in list_runs())
    assert first == second


def test_a_mistake_names_the_key_and_what_to_do(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("sft.yaml"), tiny_model, deepspeed="z3.json")
    outcome = command("train", path)
    assert outcome.code == 2
    assert "sharded training is not there yet" in outcome.err
    assert f"where: {path}:" in outcome.err
    assert not list_runs()


def test_a_model_without_a_template_gets_the_one_of_the_same_text(
    tmp_path: Path, command: Command
) -> None:
    model = tiny.make_model(tmp_path / "bare", template=None)
    path = theirs.write_theirs(Path("sft.yaml"), model)
    assert "template: chatml" in command("recipe", "convert", path).out
    refused = command("recipe", "convert", path, "template=llama3")
    assert "the model ships no chat template" in refused.err


def test_overrides_without_a_file_are_refused(tiny_model: Path, command: Command) -> None:
    outcome = command("chat", tiny_model, "temperature=1")
    assert outcome.code == 2
    assert "replaces a key of a LLaMA-Factory file" in outcome.err
    assert "no folder is named" in command("export", tiny_model).err


def test_an_adapter_of_theirs_is_talked_to(tiny_model: Path, command: Command) -> None:
    path = theirs.write_theirs(Path("sft.yaml"), tiny_model)
    assert command("train", path, *SHORT).code == 0
    folder = Path("saves/tiny/lora/sft")
    for ours in ("tunesmith-run.json", "base.json"):
        (folder / ours).unlink()
    whole = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(folder)}
    Path("chat.yaml").write_text(yaml.safe_dump(whole), "utf-8")
    given = find_given("chat.yaml").name
    model = load_chat_model(given)
    assert model.template is not None
    exported = command("export", "chat.yaml", "export_dir=out")
    assert exported.code == 0, exported.err
    assert "8 prompts, in fp32" in exported.out


def test_a_run_is_measured_by_a_file_and_kept_in_the_bits_that_it_names(
    tiny_model: Path, command: Command
) -> None:
    training = theirs.write_theirs(Path("sft.yaml"), tiny_model)
    assert command("train", training, *SHORT, "val_size=0.3").code == 0
    given = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": "saves/tiny/lora/sft"}
    Path("use.yaml").write_text(yaml.safe_dump({**given, "template": "qwen3_nothink"}), "utf-8")
    outcome = command("evaluate", "use.yaml", "--max-rows", "1", "--max-tokens", "4")
    assert outcome.code == 0, outcome.err
    assert list_runs()[0].scores_file.is_file()
    assert command("evaluate", "use.yaml", "model_name_or_path=nowhere").code == 2
    bits = ["quantization_bit=4", "quantization_method=hqq"]
    found = find_given("use.yaml", bits).name
    assert isinstance(found, Subject)
    assert found.quantize == HQQ(bits=4)
    run = list_runs()[0]
    recipe = yaml.safe_load(run.recipe_file.read_text("utf-8"))
    recipe["model"]["quantize"] = {"kind": "nf4"}
    run.recipe_file.write_text(yaml.safe_dump(recipe), "utf-8")
    with pytest.raises(ModelError, match="other bits: nf4, and hqq"):
        find_given("use.yaml", bits)
