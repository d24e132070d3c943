"""Write a model folder that every reader of such folders understands, old or new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.inspect import read_config
from tunesmith.models.load import read_architecture
from tunesmith.models.reader import AnyReader, Reader
from tunesmith.runs.write import write_json, write_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunesmith.models.chat import ChatModel, RewardModel
    from tunesmith.templates import Template

SHARD_SIZE = "4GB"
NOT_FOR_OTHERS = ("_", "transformers_version", "output_", "use_cache")
"""Fields of generation_config.json that tell how it was written, not how to answer."""

HOW_IT_WAS_LOADED = ("is_local", "local_files_only")
"""Fields that transformers adds to tokenizer_config.json and that describe this machine."""


def write_folder(
    model: PreTrainedModel,
    chat: ChatModel,
    folder: Path,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights, configuration, tokenizer, template and generation defaults.

    Args:
        model: already in the precision it is to be stored in.
        chat: whose tokenizer, template and ends of answers belong to it.
        state: tensors to store in place of the model's own.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()  # ours is written over it below
    model.save_pretrained(str(folder), max_shard_size=SHARD_SIZE, state_dict=state)
    add_older_names(folder)
    write_reader(chat, folder)


def write_reader(chat: ChatModel, folder: Path) -> None:
    """Write tokenizer, template, generation defaults, and what images are made ready by."""
    chat.tokenizer.save_pretrained(str(folder))
    if chat.senses is not None:
        chat.senses.save(folder)
    write_json(folder / "generation_config.json", generation_defaults(chat))
    _mend_tokenizer(folder, chat.template)


def write_classifier(model: PreTrainedModel, reader: AnyReader, folder: Path) -> None:
    """Write weights, configuration with the labels, and what reads text or images.

    Args:
        model: already in the precision it is to be stored in.
    """
    model.save_pretrained(str(folder), max_shard_size=SHARD_SIZE)
    reader.save(folder)
    add_older_names(folder)
    if isinstance(reader, Reader):
        _mend_tokenizer(folder, None)


def write_scorer(model: PreTrainedModel, reward: RewardModel, folder: Path) -> None:
    """Write a reward model: weights with the head, configuration, tokenizer and template.

    Args:
        model: already in the precision it is to be stored in.
        reward: whose tokenizer and template belong to it, and what images are made ready by.
    """
    model.save_pretrained(str(folder), max_shard_size=SHARD_SIZE)
    reward.tokenizer.save_pretrained(str(folder))
    if reward.senses is not None:
        reward.senses.save(folder)
    add_older_names(folder)
    _mend_tokenizer(folder, reward.template)


def add_older_names(folder: Path) -> None:
    """Add older names to config.json, but none that today's reader takes for something else."""
    path, meant = folder / "config.json", _rope_of(folder)
    config = read_config(path)
    spelled = spell_both_ways(config)
    write_json(path, spelled)
    if _rope_of(folder) != meant:  # GPT-NeoX and Gemma 4 drop a base beside `rope_scaling`
        kept = {*config, "torch_dtype"} & spelled.keys()
        write_json(path, {name: spelled[name] for name in spelled if name in kept})


def _rope_of(folder: Path) -> Any:
    """Read how positions turn; what cannot be read so is nothing."""
    try:
        return read_architecture(folder).get_text_config().to_dict().get("rope_parameters")
    except ModelError:
        return None


def spell_both_ways(config: dict[str, Any]) -> dict[str, Any]:
    """Add the older names of rope and precision, which many readers still look for.

    Without them such a reader falls back to a base of 10,000 in silence.
    """
    spelled = dict(config)
    if isinstance(config.get("text_config"), dict):
        spelled["text_config"] = spell_both_ways(config["text_config"])
    if "dtype" in config:
        spelled["torch_dtype"] = config["dtype"]
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return spelled
    local = rope.get("sliding_attention")
    main = rope.get("full_attention", rope)
    if isinstance(local, dict) and "rope_theta" in local:
        spelled["rope_local_base_freq"] = local["rope_theta"]
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in main:
            spelled[name] = main[name]
    kind = main.get("rope_type", "default")
    rest = {k: v for k, v in main.items() if k not in ("rope_theta", "partial_rotary_factor")}
    spelled["rope_scaling"] = rest if kind != "default" else None
    return spelled


def generation_defaults(chat: ChatModel) -> dict[str, Any]:
    """Keep what the base's makers chose, and end an answer where the template ends it."""
    path = chat.folder / "generation_config.json"
    declared = read_config(path) if path.is_file() else {}
    declared = {
        name: value for name, value in declared.items() if not name.startswith(NOT_FOR_OTHERS)
    }
    pad = chat.tokenizer.pad_token_id
    return {
        **declared,
        "eos_token_id": list(chat.stop_ids),
        "pad_token_id": pad if pad is not None else chat.stop_ids[0],
    }


def _mend_tokenizer(folder: Path, template: Template | None) -> None:
    """Name the class that older readers know, and put the template where each of them looks."""
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content = {name: value for name, value in content.items() if name not in HOW_IT_WAS_LOADED}
    if content.get("tokenizer_class") == "TokenizersBackend":  # its name since transformers 5
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
    if template is not None:
        write_text(folder / "chat_template.jinja", template.source)
        content["chat_template"] = template.source
    # orjson refuses the length of 1e30 by which transformers says that there is no limit
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2))
