"""Keys that cannot stand together, there or here."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.keys import Key, list_keys
from tunesmith.recipe.llamafactory.method import SFT_LOSSES
from tunesmith.recipe.llamafactory.ppo import check_ppo

REMOVE = "remove it"
OFF_TOO: dict[str, tuple[object, ...]] = {
    "metric_for_best_model": ("eval_loss", "loss"),
    "ray_num_workers": (0,),
    "report_to": (["none"],),
}
"""Values beside the default that ask for nothing."""


def check_keys(theirs: TheirFile, groups: tuple[str, ...]) -> None:
    """Refuse what cannot be done: a key, or keys together.

    Args:
        groups: the groups of keys that act on what is done.

    Raises:
        RecipeError: naming the key and its line.
    """
    for name in theirs.given:
        key = list_keys()[name]
        if key.group in groups and key.refused and not is_off(key, theirs[name]):
            raise theirs.refusal(name, f"{name}: {key.refused}", key.hint)


def is_off(key: Key, value: object) -> bool:
    """Whether a value asks for nothing beside what is done anyway."""
    if value is False:
        return key.default is not True
    return value in (key.default, None, "", [], {}, *OFF_TOO.get(key.name, ()))


def check_together(theirs: TheirFile) -> None:
    """Refuse keys of training that cannot stand together.

    Raises:
        RecipeError: naming the key and its line.
    """
    for rule in RULES:
        rule(theirs)


def one_precision(theirs: TheirFile) -> None:
    """Numbers are of one kind."""
    if theirs["fp16"] and (theirs["bf16"] or theirs["pure_bf16"]):
        other = "bf16" if theirs["bf16"] else "pure_bf16"
        raise theirs.refusal("fp16", f"fp16 and {other} are both true", "remove one")


def check_trains(theirs: TheirFile) -> None:
    """Refuse a file that asks for something else than training.

    Raises:
        RecipeError: naming the command that does it.
    """
    path = theirs.path
    for name in ("do_predict", "predict_with_generate"):
        if theirs["do_train"] and theirs[name]:
            raise theirs.refusal(
                name,
                f"{name}: answers are not written while training",
                "remove it here; when the run is done, `tunesmith evaluate` takes a file with "
                "do_predict: true, without do_train",
            )
    if theirs["do_train"] or theirs.has("task"):  # benchmarks are refused as such
        return
    asked = {
        "do_predict": (theirs["do_predict"], "evaluate"),
        "do_eval": (theirs["do_eval"], "evaluate"),
        "export_dir": (theirs.has("export_dir"), "export"),
        "infer_backend": (theirs.has("infer_backend"), "chat"),
    }
    for name, (given, command) in asked.items():
        if given:
            raise theirs.refusal(
                name,
                f"the file asks for no training: do_train is not true, and there is {name}",
                f"`tunesmith {command} {path}` does it"
                + (", `serve` as well" if command == "chat" else ""),
            )
    raise theirs.refusal(
        "do_train",
        "the file asks for no training: do_train is not true",
        f"write do_train: true; chat, serve, export and evaluate take {path} as it is",
    )


def something_is_trained(theirs: TheirFile) -> None:
    """A file says what to start from, and what to learn."""
    for name, what in (("model_name_or_path", "Qwen/Qwen3-0.6B"), ("dataset", "identity")):
        if not theirs.has(name):
            raise theirs.refusal(name, f"{name} is missing", f"write {name}: {what}")
    if theirs["infer_backend"] not in ("huggingface", "hf"):
        raise theirs.refusal("infer_backend", "a training has no engine for answers", REMOVE)


def keys_of_sft(theirs: TheirFile) -> None:
    """Some keys mean something to sft only."""
    if theirs["stage"] == "sft":
        return
    flags = (f"use_{name}_loss" for name in SFT_LOSSES)
    for name in ("neat_packing", "train_on_prompt", "mask_history", "neftune_noise_alpha", *flags):
        if theirs[name]:
            raise theirs.refusal(
                name, f"{name} is for stage: sft, and this is {theirs['stage']}", REMOVE
            )


def keys_of_ppo(theirs: TheirFile) -> None:
    """Rewards are for ppo only."""
    if theirs["stage"] == "ppo":
        return
    for name, key in list_keys().items():
        of_ppo = name.startswith(("ppo_", "reward_model"))
        if of_ppo and theirs.has(name) and not is_off(key, theirs[name]):
            raise theirs.refusal(
                name, f"{name} is for stage: ppo, and this is {theirs['stage']}", REMOVE
            )


def one_loss_of_sft(theirs: TheirFile) -> None:
    """Targets are weighed or smoothed in one way."""
    chosen = [f"use_{name}_loss" for name in SFT_LOSSES if theirs[f"use_{name}_loss"]]
    if theirs["stage"] != "sft" or not chosen:
        return
    if len(chosen) > 1:
        raise theirs.refusal(chosen[1], f"{chosen[0]} and {chosen[1]} are given", "remove one")
    if theirs["label_smoothing_factor"]:
        raise theirs.refusal(
            "label_smoothing_factor",
            f"label_smoothing_factor has no effect beside {chosen[0]}",
            REMOVE,
        )
    if theirs["use_asft_loss"] and theirs.has("ref_model"):
        raise theirs.refusal("ref_model", "use_asft_loss stays near the base itself", REMOVE)


def masks_agree(theirs: TheirFile) -> None:
    """What is learned of a conversation is said once."""
    if theirs["mask_history"] and theirs["train_on_prompt"]:
        raise theirs.refusal(
            "mask_history", "mask_history and train_on_prompt contradict each other", "remove one"
        )


def held_out_rows_are_said_once(theirs: TheirFile) -> None:
    """Held-out rows come from sets or from a share, and are there if they are to be measured."""
    if theirs.has("eval_dataset") and theirs["val_size"]:
        raise theirs.refusal("val_size", "both eval_dataset and val_size are given", "remove one")
    if theirs.has("eval_dataset") or theirs["val_size"]:
        return
    for name in ("eval_strategy", "do_eval", "load_best_model_at_end", "early_stopping_steps"):
        if theirs[name] not in (None, False, "no"):
            raise theirs.refusal(
                name, f"{name} needs held-out rows", "write val_size: 0.1, or name an eval_dataset"
            )


def sets_to_measure_are_named(theirs: TheirFile) -> None:
    """Only sets that are named can be measured one by one."""
    if theirs["eval_on_each_dataset"] and not theirs.has("eval_dataset"):
        raise theirs.refusal(
            "eval_on_each_dataset",
            "eval_on_each_dataset has no effect: there is no eval_dataset",
            "name the sets: eval_dataset: a,b",
        )


def mixtures_have_shares(theirs: TheirFile) -> None:
    """Shares belong to sets that are interleaved, one each."""
    if not theirs.has("interleave_probs"):
        return
    if theirs["mix_strategy"] == "concat":
        raise theirs.refusal(
            "interleave_probs",
            "interleave_probs has no effect: mix_strategy is concat",
            "write mix_strategy: interleave_under, or remove it",
        )
    count = len(theirs["interleave_probs"].split(","))
    for name in ("dataset", "eval_dataset"):
        if theirs.has(name) and count != len(theirs[name].split(",")):
            raise theirs.refusal(
                "interleave_probs", f"there are {count} shares for {name}", "give one for each set"
            )


def streams_have_an_end(theirs: TheirFile) -> None:
    """What is streamed has no known length."""
    if not theirs["streaming"]:
        return
    if theirs["max_steps"] <= 0:
        raise theirs.refusal("streaming", "streaming needs max_steps", "write max_steps: 1000")
    if theirs.has("max_samples"):
        raise theirs.refusal("max_samples", "max_samples does not go with streaming", "remove one")
    if 0 < theirs["val_size"] < 1:
        raise theirs.refusal(
            "val_size", "a share of a stream is not known", "write how many rows: val_size: 100"
        )


def few_bits_stay_frozen(theirs: TheirFile) -> None:
    """Few bits can be read, and adapters alone learn beside them."""
    if theirs["quantization_bit"] is None:
        return
    if theirs["finetuning_type"] not in ("lora", "oft"):
        raise theirs.refusal(
            "quantization_bit",
            f"quantized weights cannot be trained, as {theirs['finetuning_type']} would",
            "write finetuning_type: lora, or remove it",
        )
    if theirs["quantization_device_map"] is not None:
        raise theirs.refusal(
            "quantization_device_map", "a model is not spread out while it is trained", REMOVE
        )


def few_bits_take_one_adapter(theirs: TheirFile) -> None:
    """Beside few bits one adapter learns, from its beginning or from where it was."""
    if theirs["quantization_bit"] is None:
        return
    if theirs["pissa_init"]:
        raise theirs.refusal(
            "pissa_init",
            "PiSSA takes its beginning out of whole weights, and few bits have none",
            "remove it, or quantization_bit",
        )
    if theirs["create_new_adapter"] and theirs.has("adapter_name_or_path"):
        raise theirs.refusal(
            "create_new_adapter", "a new adapter is not laid over another one on few bits", REMOVE
        )
    if "," in (theirs["adapter_name_or_path"] or ""):
        raise theirs.refusal(
            "adapter_name_or_path",
            "few bits take a single adapter",
            "merge the others into the base first: `tunesmith export` with --also",
        )


def references_stay(theirs: TheirFile) -> None:
    """What PiSSA and shifted attention change of a base is no reference any more."""
    stage = theirs["stage"]
    compares = stage in ("ppo", "kto") or (
        stage == "dpo" and theirs["pref_loss"] not in ("orpo", "simpo")
    )
    if theirs["pissa_init"] and compares:
        raise theirs.refusal(
            "pissa_init", f"stage: {stage} compares with the base, which PiSSA changes", REMOVE
        )
    if theirs["shift_attn"] and stage == "ppo":
        raise theirs.refusal("shift_attn", "shift_attn does not go with stage: ppo", REMOVE)
    if theirs.has("ref_model") and stage == "kto":
        raise theirs.refusal("ref_model", "kto compares with the model before training", REMOVE)


def losses_fit(theirs: TheirFile) -> None:
    """Each preference loss takes some of its keys."""
    loss = theirs["pref_loss"]
    if theirs["stage"] == "kto" and theirs["pref_ftx"]:
        raise theirs.refusal("pref_ftx", "kto has no next-token loss beside it", REMOVE)
    if theirs["stage"] != "dpo":
        return
    if loss != "sigmoid" and theirs["dpo_label_smoothing"]:
        raise theirs.refusal(
            "dpo_label_smoothing", f"dpo_label_smoothing has no effect on {loss}", REMOVE
        )
    if loss == "kto_pair":
        raise theirs.refusal(
            "pref_loss", "kto_pair is not there", "write stage: kto, which needs no pairs"
        )
    if loss in ("orpo", "simpo"):
        for name in ("pref_ftx", "ref_model"):
            if theirs[name]:
                raise theirs.refusal(name, f"{name} has no effect on {loss}", REMOVE)


def one_optimizer(theirs: TheirFile) -> None:
    """One optimizer moves the weights, and some want whole matrices."""
    chosen = [
        name
        for name in ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon")
        if theirs[name]
    ]
    if len(chosen) > 1:
        raise theirs.refusal(chosen[1], f"{chosen[0]} and {chosen[1]} are given", "remove one")
    if chosen and theirs["finetuning_type"] == "lora" and chosen[0] != "use_muon":
        raise theirs.refusal(
            chosen[0],
            f"{chosen[0]} saves memory on whole matrices, and lora trains small ones",
            "write finetuning_type: full, or remove it",
        )


def blocks_are_opened_alone(theirs: TheirFile) -> None:
    """The new blocks of LLaMA Pro lie in the model already, and freezing opens them."""
    if theirs["use_llama_pro"] and theirs["finetuning_type"] != "freeze":
        raise theirs.refusal(
            "use_llama_pro",
            f"use_llama_pro opens whole blocks, and {theirs['finetuning_type']} does not",
            "write finetuning_type: freeze, or convert the file and write tuning.kind: llama_pro, "
            "which adds the blocks itself",
        )


def lora_has_its_own_keys(theirs: TheirFile) -> None:
    """What bends LoRA means nothing to other tunings."""
    kind = theirs["finetuning_type"]
    if theirs["create_new_adapter"] and not theirs["adapter_name_or_path"]:
        raise theirs.refusal(
            "create_new_adapter", "create_new_adapter has no effect: no adapter is there", REMOVE
        )
    if kind == "lora":
        if theirs["pissa_iter"] not in (-1, 16):
            raise theirs.refusal(
                "pissa_iter", "PiSSA takes 16 rounds or is exact", "write 16 or -1"
            )
        return
    others = ("additional_target", "adapter_name_or_path", "create_new_adapter")
    beside = () if kind == "oft" else others
    for name in ("loraplus_lr_ratio", "use_rslora", "use_dora", "pissa_init", *beside):
        if theirs[name]:
            raise theirs.refusal(name, f"{name} is for finetuning_type: lora", REMOVE)


def best_weights_have_a_loss(theirs: TheirFile) -> None:
    """Scores and rewards choose no checkpoint there; they would here."""
    stage = theirs["stage"]
    if stage in ("rm", "ppo") and theirs["load_best_model_at_end"]:
        raise theirs.refusal(
            "load_best_model_at_end",
            f"load_best_model_at_end does not go with stage: {stage}",
            REMOVE,
        )


RULES: tuple[Callable[[TheirFile], None], ...] = (
    something_is_trained,
    one_precision,
    keys_of_sft,
    one_loss_of_sft,
    masks_agree,
    held_out_rows_are_said_once,
    sets_to_measure_are_named,
    mixtures_have_shares,
    streams_have_an_end,
    few_bits_stay_frozen,
    few_bits_take_one_adapter,
    references_stay,
    losses_fit,
    one_optimizer,
    blocks_are_opened_alone,
    lora_has_its_own_keys,
    keys_of_ppo,
    check_ppo,
    best_weights_have_a_loss,
)
