"""What LLaMA-Factory's files ask for and cannot be done is refused by key and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import theirs
from tests.theirs import become, use
from tunesmith.errors import RecipeError
from tunesmith.recipe.llamafactory.keys import list_keys


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs.write_sets(tmp_path)
    monkeypatch.chdir(tmp_path)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stage": "ppo"}, "reward_model"),
    ({"stage": "ppo", "reward_model": "r", "do_sample": False}, "do_sample"),
    ({"stage": "ppo", "reward_model": "r", "finetuning_type": "full"}, "reward_model_type"),
    (
        {"stage": "ppo", "reward_model": "r", "load_best_model_at_end": True, "val_size": 0.1},
        "load_best_model_at_end",
    ),
    ({"stage": "ppo", "reward_model": "r", "num_beams": 4}, "num_beams"),
    ({"stage": "ppo", "reward_model": "r", "reward_model_adapters": "a"}, "reward_model_adapters"),
    ({"ppo_epochs": 2}, "ppo_epochs"),
    ({"stage": "dpo", "reward_model": "r"}, "reward_model"),
    ({"finetuning_type": "oft", "oft_rank": 4}, "oft_rank"),
    ({"do_train": None}, "do_train"),
    ({"bf16": True, "fp16": True}, "fp16"),
    ({"use_llama_pro": True}, "use_llama_pro"),
    ({"create_new_adapter": True}, "create_new_adapter"),
    (
        {"finetuning_type": "full", "adapter_name_or_path": "a", "create_new_adapter": True},
        "adapter_name_or_path",
    ),
    ({"freeze_language_model": True}, "freeze_language_model"),
    ({"do_predict": True}, "do_predict"),
    ({"predict_with_generate": True}, "predict_with_generate"),
    ({"dataset": None}, "dataset"),
    ({"model_name_or_path": None}, "model_name_or_path"),
    ({"deepspeed": "ds_z3_config.json"}, "deepspeed"),
    ({"fsdp": "full_shard"}, "fsdp"),
    ({"resume_from_checkpoint": "saves/checkpoint-5"}, "resume_from_checkpoint"),
    ({"infer_backend": "vllm"}, "infer_backend"),
    ({"stage": "dpo", "neat_packing": True}, "neat_packing"),
    ({"stage": "pt", "train_on_prompt": True}, "train_on_prompt"),
    ({"stage": "rm", "mask_history": True}, "mask_history"),
    ({"stage": "dpo", "neftune_noise_alpha": 5}, "neftune_noise_alpha"),
    ({"stage": "dpo", "label_smoothing_factor": 0.1}, "label_smoothing_factor"),
    ({"stage": "dpo", "use_dft_loss": True}, "use_dft_loss"),
    ({"use_dft_loss": True, "use_asft_loss": True}, "use_asft_loss"),
    ({"use_eaft_loss": True, "label_smoothing_factor": 0.1}, "label_smoothing_factor"),
    ({"use_asft_loss": True, "ref_model": "other"}, "ref_model"),
    ({"train_on_prompt": True, "mask_history": True}, "mask_history"),
    ({"eval_dataset": "texts", "val_size": 0.1}, "val_size"),
    ({"eval_strategy": "steps"}, "eval_strategy"),
    ({"do_eval": True}, "do_eval"),
    ({"load_best_model_at_end": True}, "load_best_model_at_end"),
    ({"early_stopping_steps": 3}, "early_stopping_steps"),
    ({"interleave_probs": "0.5,0.5"}, "interleave_probs"),
    ({"interleave_probs": "0.5,0.5", "mix_strategy": "interleave_over"}, "interleave_probs"),
    ({"streaming": True}, "streaming"),
    ({"streaming": True, "max_steps": 5}, "max_samples"),
    ({"streaming": True, "max_steps": 5, "max_samples": None, "val_size": 0.1}, "val_size"),
    ({"quantization_bit": 4, "finetuning_type": "full"}, "quantization_bit"),
    ({"quantization_bit": 4, "quantization_device_map": "auto"}, "quantization_device_map"),
    ({"quantization_bit": 2}, "quantization_bit"),
    ({"quantization_bit": 4, "pissa_init": True}, "pissa_init"),
    ({"quantization_bit": 4, "adapter_name_or_path": "a,b"}, "adapter_name_or_path"),
    (
        {"quantization_bit": 4, "adapter_name_or_path": "a", "create_new_adapter": True},
        "create_new_adapter",
    ),
    ({"stage": "dpo", "pissa_init": True}, "pissa_init"),
    ({"stage": "kto", "pissa_init": True}, "pissa_init"),
    ({"stage": "kto", "ref_model": "m"}, "ref_model"),
    ({"stage": "ppo", "reward_model": "r", "shift_attn": True}, "shift_attn"),
    ({"quantization_bit": 5, "quantization_method": "hqq"}, "quantization_bit"),
    ({"quantization_bit": 8, "quantization_method": "eetq"}, "quantization_method"),
    ({"quantization_bit": 4, "quantization_method": "gptq"}, "quantization_method"),
    ({"quantization_bit": 4, "quantization_method": "strange"}, "quantization_method"),
    ({"stage": "kto", "pref_ftx": 1}, "pref_ftx"),
    ({"stage": "dpo", "pref_loss": "ipo", "dpo_label_smoothing": 0.1}, "dpo_label_smoothing"),
    ({"stage": "dpo", "pref_loss": "kto_pair"}, "pref_loss"),
    ({"stage": "dpo", "pref_loss": "orpo", "pref_ftx": 1}, "pref_ftx"),
    ({"stage": "dpo", "pref_loss": "simpo", "ref_model": "m"}, "ref_model"),
    ({"use_galore": True}, "use_galore"),
    ({"use_galore": True, "use_apollo": True, "finetuning_type": "full"}, "use_apollo"),
    ({"use_galore": True, "finetuning_type": "full", "optim": "sgd"}, "optim"),
    (
        {"use_galore": True, "finetuning_type": "full", "galore_layerwise": True},
        "galore_layerwise",
    ),
    (
        {"use_apollo": True, "finetuning_type": "full", "apollo_scale_type": "tensor"},
        "apollo_scale_type",
    ),
    ({"loraplus_lr_ratio": 16, "finetuning_type": "full"}, "loraplus_lr_ratio"),
    ({"use_rslora": True, "finetuning_type": "freeze"}, "use_rslora"),
    ({"stage": "rm", "val_size": 0.1, "load_best_model_at_end": True}, "load_best_model_at_end"),
    ({"finetuning_type": "freeze", "freeze_extra_modules": "lm_head"}, "freeze_extra_modules"),
    ({"dataset_dir": "ONLINE"}, "dataset_dir"),
    ({"dataset_dir": "nowhere"}, "dataset_dir"),
    ({"template": "vicuna"}, "template"),
    ({"template": "qwen33"}, "template"),
    ({"optim": "adamw_apex_fused"}, "optim"),
    ({"optim": "schedule_free_adamw"}, "lr_scheduler_type"),
    ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type"),
    ({"lr_scheduler_kwargs": {"power": 2}}, "lr_scheduler_kwargs"),
    (
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 9}},
        "lr_scheduler_type",
    ),
    ({"warmup_ratio": 1.5}, "warmup_ratio"),
    ({"save_steps": 0.2}, "save_steps"),
    ({"metric_for_best_model": "accuracy", "val_size": 0.1}, "metric_for_best_model"),
    (
        {"metric_for_best_model": "eval_texts_loss", "eval_dataset": "texts"},
        "metric_for_best_model",
    ),
    ({"eval_on_each_dataset": True, "val_size": 0.1}, "eval_on_each_dataset"),
    ({"tool_format": "qwern"}, "tool_format"),
    ({"learning_rate": "fast"}, "learning_rate"),
    ({"do_train": "maybe"}, "do_train"),
    ({"stage": "sfft"}, "stage"),
]


@pytest.mark.parametrize(("keys", "key"), REFUSED, ids=str)
def test_what_cannot_be_done_is_refused_where_it_stands(keys: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as refused:
        become(**keys)
    assert refused.value.hint
    assert refused.value.where.endswith(f", {key}")
    assert "their.yaml" in refused.value.where


@pytest.mark.parametrize(
    ("keys", "key", "said"),
    [
        ({"lora_rank": 0}, "lora_rank", "tuning.rank cannot be 0"),
        ({"max_samples": 0}, "max_samples", "max_rows cannot be 0"),
        ({"stage": "dpo", "pref_beta": 0}, "pref_beta", "method.beta cannot be 0"),
        ({**theirs.QLORA, "use_dora": True}, "use_dora", "looks at whole weights"),
    ],
    ids=str,
)
def test_a_value_that_ours_refuses_is_named_by_its_key(
    keys: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        become(**keys)
    line = [row.split(":")[0] for row in Path("their.yaml").read_text().splitlines()].index(key)
    assert refused.value.where == f"their.yaml:{line + 1}, {key}"
    assert refused.value.message.startswith(f"{key}: ")


def test_what_an_option_is_is_said_as_its_own_method_means_it() -> None:
    with pytest.raises(RecipeError) as refused:
        become(stage="dpo", pref_beta=0)
    assert "How far the model may go from where it began" in refused.value.hint


def test_every_refused_key_is_refused_unless_it_is_off() -> None:
    samples = {"count": 7, "number": 7.5, "mapping": {"a": 1}}
    for key in list_keys().values():
        if not key.refused or key.group == "generate":
            continue
        words = [word for word in key.type if word != key.default]
        value = words[-1] if isinstance(key.type, list) else samples.get(key.type, "x")
        with pytest.raises(RecipeError) as refused:
            become(**{key.name: not key.default if key.type == "flag" else value})
        assert key.name in refused.value.where


def test_a_typo_is_answered_with_the_nearest_key_and_its_line() -> None:
    with pytest.raises(RecipeError) as refused:
        become(learning_rat=1e-4)
    assert refused.value.hint == "did you mean learning_rate?"
    line = Path("their.yaml").read_text().splitlines().index("learning_rat: 0.0001") + 1
    assert refused.value.where == f"their.yaml:{line}, learning_rat"


def test_what_the_command_line_gives_is_named_there() -> None:
    with pytest.raises(RecipeError) as refused:
        become("do_train=false")
    assert refused.value.where == "command line, do_train"


def test_a_folder_with_files_is_not_written_over_unasked() -> None:
    Path("saves").mkdir()
    Path("saves/mine.txt").touch()
    with pytest.raises(RecipeError) as refused:
        become(output_dir="saves", overwrite_output_dir=None)
    assert "overwrite_output_dir" in refused.value.hint
    assert become(output_dir="saves").recipe.run.publish_to == Path("saves").absolute()


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({}, "export_dir"),
        ({"export_dir": "o", "export_quantization_bit": 5}, "export_quantization_bit"),
        ({"export_dir": "o", "export_quantization_dataset": "a"}, "export_quantization_dataset"),
        ({"export_dir": "o", "export_legacy_format": True}, "export_legacy_format"),
        ({"export_dir": "o", "export_hub_model_id": "a/b"}, "export_hub_model_id"),
        ({"export_dir": "o", "quantization_bit": 4}, "quantization_bit"),
        (
            {"export_dir": "o", "adapter_name_or_path": "a", "finetuning_type": "full"},
            "adapter_name_or_path",
        ),
        ({"export_dir": "o", "num_beams": 4}, "num_beams"),
        ({"export_dir": "o", "rope_scaling": "yarn"}, "rope_scaling"),
    ],
    ids=str,
)
def test_an_export_that_cannot_be_made_is_refused(keys: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as refused:
        use(to_export=True, **keys)
    assert refused.value.where.endswith(f", {key}")
