"""Load a tokenizer, its chat template and the tokens that end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.inspect import check_files, read_config
from tunesmith.models.reasons import reason_of
from tunesmith.settings import forbid_network
from tunesmith.templates import Template, build_template, named_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


FAST = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Files of which a fast tokenizer needs one."""
OLDER_TEMPLATE = "chat_template.json"
"""Where processors of models that see kept their template before it had a file of its own."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a model folder.

    Raises:
        ModelError: if there is none, or it is damaged.
    """
    forbid_network()
    check_files(folder, weights=False)
    if not any((folder / name).is_file() for name in FAST):
        raise _no_fast_tokenizer(folder)
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as problem:  # the library raises many kinds for a damaged file
        raise ModelError(
            f"the tokenizer cannot be loaded: {reason_of(problem)}",
            hint="copy tokenizer.json and tokenizer_config.json of the model again",
            where=str(folder),
        ) from problem
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or len(tokenizer) == 0:
        raise _no_fast_tokenizer(folder)
    return tokenizer


def _no_fast_tokenizer(folder: Path) -> ModelError:
    return ModelError(
        "the model has no fast tokenizer (tokenizer.json)",
        hint="copy the whole model folder; if it never had one, convert it with transformers",
        where=str(folder),
    )


def load_template(
    folder: Path, tokenizer: PreTrainedTokenizerFast, override: str | None = None
) -> Template | None:
    """Build the chat template: the override if there is one, else the tokenizer's own.

    Raises:
        ModelError: if the template needs tokens that the vocabulary lacks.
    """
    source: Any = named_template(override) if override else _own_template(folder, tokenizer)
    if source is None:
        return None
    for_tools = ""
    if isinstance(source, dict):
        source, for_tools = _default_of(source, folder), source.get("tool_use", "")
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    template = build_template(
        str(source),
        special_tokens=specials,
        all_specials=special_texts(tokenizer),
        name=override or folder.name,
        for_tools=for_tools,
    )
    if override == "chatml" and "<|im_end|>" not in tokenizer.get_vocab():
        raise ModelError(
            "the template chatml needs the token <|im_end|>, which the vocabulary lacks",
            hint="write model.template: alpaca, which needs no token of its own",
            where=str(folder),
        )
    return template


def _own_template(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Return the tokenizer's own template, or the one that a processor kept beside it."""
    beside = folder / OLDER_TEMPLATE
    if tokenizer.chat_template is None and beside.is_file():
        return read_config(beside).get("chat_template")
    return tokenizer.chat_template


def _default_of(sources: dict[str, str], folder: Path) -> str:
    if "default" not in sources:
        raise ModelError(
            f"the tokenizer has templates {', '.join(sorted(sources))}, but no default one",
            hint="write the path of one of them as model.template",
            where=str(folder),
        )
    return sources["default"]


def special_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """List the spellings that the tokenizer would read as one token wherever they stand."""
    return sorted({str(token) for token in tokenizer.added_tokens_decoder.values()})


def stop_ids(
    folder: Path, tokenizer: PreTrainedTokenizerFast, template: Template | None
) -> tuple[int, ...]:
    """List the tokens at which an answer is over, the template's turn end first."""
    found: list[int] = []
    if template is not None:
        vocab = tokenizer.get_vocab()
        found += [vocab[template.turn_end], vocab[template.call_end]]
    if tokenizer.eos_token_id is not None:
        found.append(int(tokenizer.eos_token_id))
    generation = folder / "generation_config.json"
    if generation.is_file():
        declared = read_config(generation).get("eos_token_id")
        found += _as_ids(declared)
    return tuple(dict.fromkeys(found))


def _as_ids(value: Any) -> list[int]:
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if type(entry) is int]  # True is no token
