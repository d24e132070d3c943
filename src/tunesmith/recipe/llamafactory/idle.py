"""Keys of a LLaMA-Factory file that change nothing beside its others, there neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.keys import list_keys
from tunesmith.recipe.llamafactory.rules import is_off

NEEDED = ("model_name_or_path", "dataset", "do_train", "reward_model", "overwrite_output_dir")
OF = {
    "lora_": "it is for finetuning_type: lora",
    "pissa_": "pissa_init is not true",
    "oft_": "it is for finetuning_type: oft",
    "module_dropout": "it is for finetuning_type: oft",
    "freeze_trainable_": "it is for finetuning_type: freeze",
    "freeze_extra_": "it is for finetuning_type: freeze",
    "pref_": "it is for stage: dpo",
    "dpo_": "it is for stage: dpo",
    "simpo_": "it is for pref_loss: simpo",
    "kto_": "it is for stage: kto",
    "galore_": "use_galore is not true, or takes no such key",
    "apollo_": "use_apollo is not true, or takes no such key",
    "badam_": "use_badam is not true",
    "quantization_method": "quantization_bit is not given, or bitsandbytes is taken without it too",
    "quantization_": "quantization_bit is not given, or the method takes no such key",
    "double_quantization": "quantization_bit is not given, or the method takes no such key",
    "packing": "rows of this stage are packed, or not, without it too",
}
"""Why keys with such a beginning change nothing."""
BESIDE = "it changes nothing beside the other keys of the file"


def find_idle(
    theirs: TheirFile, sections: dict[str, Any], convert: Callable[[TheirFile], dict[str, Any]]
) -> dict[str, str]:
    """Find the keys without which the file becomes the same recipe, and say why.

    Args:
        sections: what the file becomes.
        convert: what a file with one key less becomes.
    """
    found = {}
    for name, value in theirs.given.items():
        key = list_keys()[name]
        if not key.to or name in NEEDED or is_off(key, value):
            continue
        kept = {other: given for other, given in theirs.given.items() if other != name}
        try:
            same = convert(replace(theirs, given=kept)) == sections
        except RecipeError:  # the file needs it
            continue
        if same:
            why = (text for start, text in OF.items() if name.startswith(start))
            found[name] = next(why, BESIDE)
    return found
