"""LLaMA-Factory's files become recipes that do the same, or are refused by key and line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import theirs
from tests.theirs import become, use
from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.convert import convert
from tunesmith.recipe.llamafactory.file import is_theirs, read_file
from tunesmith.recipe.llamafactory.keys import list_keys
from tunesmith.recipe.llamafactory.spell import spell_converted
from tunesmith.recipe.llamafactory.templates import list_templates
from tunesmith.recipe.load import build_recipe
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.schema import list_options
from tunesmith.recipe.yaml_file import read_yaml

NAMES = Path(__file__).with_name("llamafactory_keys.txt")
PACKAGE = Path(__file__).parents[3] / "src" / "tunesmith" / "recipe" / "llamafactory"


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs.write_sets(tmp_path)
    monkeypatch.chdir(tmp_path)


def section(name: str, **keys: Any) -> dict[str, Any]:
    recipe = become(**keys).recipe
    check_rules(recipe)
    return recipe.model_dump(mode="json")[name]  # type: ignore[no-any-return]


def test_the_table_knows_every_key() -> None:
    assert sorted(list_keys()) == NAMES.read_text("utf-8").split()


def test_the_table_knows_every_key_of_the_loop_underneath() -> None:
    from transformers import Seq2SeqTrainingArguments

    fields = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert not fields - set(list_keys())


def test_every_key_has_one_fate() -> None:
    for key in list_keys().values():
        assert [bool(key.to), bool(key.ignored), bool(key.refused)].count(True) == 1, key
        assert bool(key.hint) == bool(key.refused), key


def test_what_keys_become_are_options_of_ours() -> None:
    known = {option.dotted for option in list_options()}
    for key in list_keys().values():
        for option in re.findall(r"\b(?:model|data|method|tuning|run|compute)\.[\w.]+", key.to):
            assert option in known or option.startswith("run.extra"), key.name


def test_the_code_asks_for_keys_that_there_are() -> None:
    for path in PACKAGE.glob("*.py"):
        for name in re.findall(r"""theirs(?:\[|\.has\(|\.refusal\(\s*)"(\w+)""", path.read_text()):
            assert name in list_keys(), f"{path.name}: {name}"


def test_each_template_is_named_once() -> None:
    names = [name for group in list_templates().values() for name in group]
    assert len(names) == len(set(names)) == 124


def test_files_are_told_apart_by_their_keys() -> None:
    assert is_theirs(read_yaml(theirs.write_theirs(Path("their.yaml"))))
    assert not is_theirs({"model": {"name": "m"}, "data": {"train": ["x"]}})


def test_an_example_becomes_the_recipe_that_does_the_same() -> None:
    expected = {
        "model": {"name": "m"},
        "data": {
            "train": [{"path": "questions", "max_rows": 1000}],
            "info": str(Path("data/dataset_info.json").absolute()),
            "validation_share": 0.1,
            "max_tokens": 64,
            "on_bad_row": "skip",
        },
        "method": {"name": "sft"},
        "tuning": {"kind": "lora", "rank": 4},
        "optimizer": {
            "learning_rate": 1e-4,
            "batch_size": 1,
            "accumulation": 4,
            "scheduler": "cosine",
            "warmup": 0.1,
        },
        "compute": {"precision": "fp32"},
        "evaluate": {"every_steps": 1, "batch_size": 1},
        "run": {
            "name": "tiny-lora-sft",
            "epochs": 3.0,
            "save_every_steps": 500,
            "publish_to": str(Path("saves/tiny/lora/sft").absolute()),
            "compatible_outputs": True,
        },
    }
    assert become(**theirs.EXAMPLES["sft_lora"]).recipe == build_recipe(expected)


@pytest.mark.parametrize("name", theirs.EXAMPLES)
def test_every_example_keeps_the_rules_and_reads_the_same_from_json(name: str) -> None:
    keys = theirs.EXAMPLES[name]
    recipe = become(**keys).recipe
    check_rules(recipe)
    path = theirs.write_theirs(Path("their.json"), **keys)
    assert convert(read_file(path), Around()).recipe == recipe


@pytest.mark.parametrize("name", theirs.EXAMPLES)
def test_what_is_spelled_out_is_the_same_recipe(name: str) -> None:
    converted = become(**theirs.EXAMPLES[name])
    spelled = spell_converted(converted, "their.yaml")
    assert "#   trust_remote_code: code that comes with a model is never run" in spelled
    assert build_recipe(yaml.safe_load(spelled)) == converted.recipe


def test_what_is_not_given_has_their_default() -> None:
    leave = dict.fromkeys(
        [*theirs.SFT.keys() - {"do_train", "dataset"}, "cutoff_len"],
    )
    recipe = become(**leave).recipe
    optimizer = recipe.optimizer.model_dump()
    assert (optimizer["learning_rate"], optimizer["scheduler"]) == (5e-5, "linear")
    assert (optimizer["batch_size"], optimizer["warmup"]) == (8, 0.0)
    assert (recipe.data.max_tokens, recipe.run.epochs, recipe.run.name) == (2048, 3.0, "run")
    assert (recipe.run.log_every_steps, recipe.run.save_every_steps) == (500, 500)
    assert recipe.compute.precision == "fp32"


@pytest.mark.parametrize(
    ("keys", "name", "expected"),
    [
        ({"val_size": 5}, "data", {"validation_rows": 5, "validation_share": 0.0}),
        ({"lora_target": "q_proj, v_proj"}, "tuning", {"targets": ["q_proj", "v_proj"]}),
        ({"lora_alpha": 32}, "tuning", {"alpha": 32}),
        ({"use_rslora": True, "lora_rank": 16}, "tuning", {"rslora": True, "alpha": None}),
        ({"use_dora": True, "additional_target": "norm"}, "tuning", {"dora": True}),
        ({"pissa_init": True}, "tuning", {"init": "pissa_niter"}),
        ({"finetuning_type": "oft", "oft_block_size": 8}, "tuning", {"block_size": 8}),
        ({"adapter_name_or_path": "saves/a"}, "tuning", {"from_adapter": "saves/a"}),
        (
            {"finetuning_type": "freeze", "use_llama_pro": True, **theirs.WITHOUT_LORA},
            "tuning",
            {"spread": True, "layers": 2},
        ),
        ({"freeze_vision_tower": True}, "tuning", {"parts": ["language"]}),
        (
            {"freeze_vision_tower": False, "freeze_multi_modal_projector": False},
            "tuning",
            {"parts": ["language", "projector", "tower"]},
        ),
        (
            {"freeze_language_model": True, "freeze_multi_modal_projector": False},
            "tuning",
            {"parts": ["projector"]},
        ),
        ({"media_dir": "pictures"}, "data", {"media": "pictures"}),
        ({"image_max_pixels": 4096}, "data", {"image_pixels": 4096}),
        (
            {"video_fps": 1.0, "video_maxlen": 16, "video_max_pixels": 4096},
            "data",
            {"video_fps": 1.0, "video_frames": 16, "video_pixels": 4096},
        ),
        ({"shift_attn": True, "cutoff_len": 90}, "model", {"shifted_attention": 22}),
        (
            {"rope_scaling": "yarn"},
            "model",
            {"rope_scaling": {"kind": "yarn", "factor": None, "original_length": None}},
        ),
        (
            {"rope_scaling": "dynamic"},
            "model",
            {"rope_scaling": {"kind": "dynamic", "factor": None, "original_length": None}},
        ),
        ({"adapter_name_or_path": "a,b"}, "tuning", {"from_adapter": "b"}),
        ({"adapter_name_or_path": "a,b"}, "model", {"adapters": ["a"]}),
        (
            {"adapter_name_or_path": "a,b", "create_new_adapter": True},
            "model",
            {"adapters": ["a", "b"]},
        ),
        ({"loraplus_lr_ratio": 16}, "tuning", {"lora_plus_ratio": 16}),
        ({"train_on_prompt": True}, "method", {"learn_prompts": True}),
        ({"mask_history": True}, "method", {"learn_history": False}),
        ({"neftune_noise_alpha": 5}, "method", {"neftune_alpha": 5}),
        ({"use_dft_loss": True}, "method", {"loss": "dft"}),
        (
            {"use_eaft_loss": True, "eaft_alpha": 2.0},
            "method",
            {"loss": "eaft", "entropy_power": 2.0},
        ),
        (
            {"use_asft_loss": True, "asft_alpha": 0.3},
            "method",
            {"loss": "asft", "anchor_weight": 0.3},
        ),
        ({"use_asft_loss": True}, "method", {"loss": "asft", "anchor_weight": 0.1}),
        ({"eaft_alpha": 3.0}, "method", {"loss": "nll", "entropy_power": 1.0}),
        ({"bf16": True}, "compute", {"precision": "bf16"}),
        ({"pure_bf16": True}, "compute", {"precision": "pure_bf16"}),
        ({"fp16": True}, "compute", {"precision": "fp16"}),
        ({"disable_gradient_checkpointing": True}, "compute", {"gradient_checkpointing": "off"}),
        ({"max_steps": 7}, "run", {"steps": 7, "epochs": None}),
        ({"save_strategy": "epoch"}, "run", {"save_every_steps": 0}),
        ({"save_total_limit": 2}, "run", {"keep_checkpoints": 2}),
        ({"run_name": "my run"}, "run", {"name": "my-run"}),
        ({"warmup_steps": 20}, "optimizer", {"warmup": 20}),
        ({"lr_scheduler_type": "constant"}, "optimizer", {"scheduler": "constant", "warmup": 0}),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
            "optimizer",
            {"min_rate": pytest.approx(0.1)},
        ),
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            "optimizer",
            {"decay": pytest.approx(0.6), "warmup": 0.1},
        ),
        ({"optim": "paged_adamw_8bit"}, "optimizer", {"name": "adamw_paged_8bit"}),
        ({"optim": "lion_32bit"}, "optimizer", {"name": "lion", "beta2": 0.999}),
        ({"use_muon": True}, "optimizer", {"name": "muon"}),
        (
            {"use_apollo": True, "finetuning_type": "full"},
            "optimizer",
            {"name": "apollo", "rank": 16, "scale": pytest.approx(32**0.5)},
        ),
        (
            {"use_badam": True, "finetuning_type": "full", "badam_switch_interval": 9},
            "optimizer",
            {"name": "badam", "switch_every_steps": 9},
        ),
        (theirs.EXAMPLES["galore"], "optimizer", {"name": "galore", "scale": 2, "layerwise": True}),
        (theirs.EXAMPLES["sft_packed"], "optimizer", {"update_tokens": 1 * 4 * 64}),
        (theirs.EXAMPLES["pretrain"], "method", {"name": "pretrain", "pack": True}),
        ({**theirs.EXAMPLES["pretrain"], "packing": False}, "method", {"pack": False}),
        (
            {**theirs.EXAMPLES["dpo"], "pref_ftx": 0.5, "dpo_label_smoothing": 0.1},
            "method",
            {"sft_weight": 0.5, "label_smoothing": 0.1, "loss": "sigmoid", "reference": "base"},
        ),
        ({**theirs.EXAMPLES["dpo"], "lora_dropout": 0.1}, "tuning", {"dropout": 0}),
        ({**theirs.EXAMPLES["dpo"], "pref_loss": "simpo"}, "method", {"beta": 0.1, "gamma": 0.5}),
        ({**theirs.EXAMPLES["kto"], "kto_rejected_weight": 2}, "method", {"undesirable_weight": 2}),
        (theirs.EXAMPLES["reward"], "method", {"name": "reward"}),
        (
            theirs.PPO,
            "method",
            {
                "rewards": [{"kind": "model", "weight": 1.0, "model": theirs.PPO["reward_model"]}],
                "answer_tokens": 8,
                "temperature": 0.95,
                "beta": 0.2,
                "kl_target": 6.0,
                "iterations": 4,
                "minibatches": 1,
                "scale_rewards": False,
                "whiten_rewards": False,
            },
        ),
        (
            {
                **theirs.PPO,
                "reward_model": "http://localhost:8000/v1",
                "reward_model_type": "api",
                "ppo_score_norm": True,
            },
            "method",
            {
                "rewards": [
                    {
                        "kind": "url",
                        "weight": 1.0,
                        "url": "http://localhost:8000/v1",
                        "timeout": 60.0,
                    }
                ],
                "scale_rewards": True,
            },
        ),
        (
            {**theirs.PPO, "ppo_buffer_size": 2, "ppo_epochs": 3},
            "optimizer",
            {"batch_size": 1, "accumulation": 8},
        ),
        (
            {**theirs.PPO, "ppo_buffer_size": 2, "ppo_epochs": 3, "max_steps": 5},
            "run",
            {"steps": 30, "save_every_steps": 3000},
        ),
        (theirs.QLORA, "model", {"quantize": {"kind": "nf4", "double": False}}),
        ({"quantization_bit": 8}, "model", {"quantize": {"kind": "int8"}}),
        (
            {"quantization_bit": 2, "quantization_method": "hqq"},
            "model",
            {"quantize": {"kind": "hqq", "bits": 2, "group": 64}},
        ),
        (
            {"val_size": 0.1, "load_best_model_at_end": True},
            "optimizer",
            {"early_stopping": 10**9},
        ),
        ({"val_size": 0.1, "evaluation_strategy": "epoch"}, "evaluate", {"every_steps": 0}),
        (
            {"freeze_extra_modules": "embed_tokens,lm_head", **theirs.EXAMPLES["sft_freeze"]},
            "tuning",
            {"layers": 1, "embeddings": True},
        ),
    ],
    ids=str,
)
def test_keys_become_options(keys: dict[str, Any], name: str, expected: dict[str, Any]) -> None:
    found = section(name, **keys)
    assert {option: found[option] for option in expected} == expected


def test_sets_that_are_interleaved_are_mixed_by_share() -> None:
    keys = {"dataset": "questions,texts", "mix_strategy": "interleave_under"}
    weights = [s["weight"] for s in section("data", **keys, interleave_probs="0.7,0.3")["train"]]
    assert weights == [0.7, 0.3]
    assert section("data", **keys)["mix_until"] == "first"
    over = section("data", **{**keys, "mix_strategy": "interleave_over"})
    assert over["mix_until"] == "last"
    assert [source["weight"] for source in over["train"]] == [1.0, 1.0]
    once = section("data", **{**keys, "mix_strategy": "interleave_once"})["train"]
    assert [source["weight"] for source in once] == [None, None]


def test_held_out_sets_are_measured_one_by_one_if_asked() -> None:
    keys = {"eval_dataset": "questions,texts", "eval_strategy": "epoch"}
    together = section("data", **keys)["validation"]
    assert [source["name"] for source in together] == [None, None]
    each = {**keys, "eval_on_each_dataset": True, "metric_for_best_model": "eval_texts_loss"}
    assert [s["name"] for s in section("data", **each)["validation"]] == ["questions", "texts"]
    assert section("evaluate", **each)["best_on"] == "texts"


def test_what_is_done_anyway_is_said_so() -> None:
    keys = {"streaming": True, "max_steps": 5, "buffer_size": 9, "tool_format": "qwen"}
    notes = become(**keys, max_samples=None).notes
    assert "larger than memory" in notes["streaming"]
    assert "shuffled" in notes["buffer_size"]
    assert "chat template of the model" in notes["tool_format"]


def test_an_update_has_the_rows_of_all_gpus() -> None:
    recipe = become(around=Around(processes=4)).recipe
    assert (recipe.optimizer.batch_size, recipe.optimizer.accumulation) == (4, 4)


def test_the_command_line_wins_in_their_words_and_in_ours() -> None:
    recipe = become("learning_rate=1e-5", "lora_rank=2", "run.keep_checkpoints=1").recipe
    assert recipe.optimizer.learning_rate == 1e-5
    assert recipe.tuning.model_dump()["rank"] == 2
    assert recipe.run.keep_checkpoints == 1


@pytest.mark.parametrize(
    ("template", "ships", "expected"),
    [
        ("llama3", True, None),
        ("qwen", None, None),
        ("qwen", False, "chatml"),
        ("chatml", True, "chatml"),
        ("alpaca", True, "alpaca"),
    ],
)
def test_templates_write_the_same_text(
    template: str, ships: bool | None, expected: str | None
) -> None:
    around = Around(has_template=lambda name: ships)
    recipe = become(around=around, template=template).recipe
    assert recipe.model.template == expected
    assert bool(recipe.data.system) == (
        expected == "alpaca" or (template, ships) == ("qwen", False)
    )


def test_a_chat_draws_as_theirs_does() -> None:
    assert use(template="qwen3", infer_backend="vllm").sampling == {
        "temperature": 0.95,
        "top_p": 0.7,
        "top_k": 50,
        "repetition_penalty": 1.0,
        "max_tokens": 1024,
    }
    assert use(do_sample=False).sampling["temperature"] == 0
