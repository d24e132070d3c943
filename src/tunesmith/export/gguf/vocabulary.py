"""A tokenizer in llama.cpp's words: its tokens, what each is, and how they are put together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError
from tunesmith.export.gguf.families import Fields
from tunesmith.export.gguf.pretokenizers import name_pretokenizer
from tunesmith.templates.marks import without_marks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tunesmith.models.chat import ChatModel

NORMAL, UNKNOWN, CONTROL, OWN, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""What a token is, in GGUF."""
NEVER = -1e6
"""The score of a token that is never put together from others."""
SPACE = "▁"


def describe_vocabulary(chat: ChatModel, size: int) -> Fields:
    """List the fields of a tokenizer and its template.

    Args:
        size: rows of the embeddings; those without a token become unused ones.

    Raises:
        ExportError: if llama.cpp has no such tokenizer.
    """
    content: dict[str, Any] = json.loads(chat.tokenizer.backend_tokenizer.to_str())
    fields = _describe_tokens(content, size)
    if _is_byte_level(content):
        fields |= {"model": "gpt2", "pre": name_pretokenizer(content), "merges": _merges(content)}
    elif content["model"]["type"] == "BPE" and content["model"].get("byte_fallback"):
        fields |= _describe_sentencepiece(content, size)
    else:
        raise ExportError(
            f"llama.cpp has no tokenizer of the kind {content['model']['type']} as this one is",
            hint="use --format safetensors; GGUF works for byte-level BPE, and for BPE with bytes "
            "to fall back on",
            where="tokenizer.json",
        )
    fields |= _describe_special(chat)
    named = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return named | _describe_templates(chat)


def _describe_templates(chat: ChatModel) -> Fields:
    """Write the template, and the tokenizer's other one for conversations that offer tools."""
    if chat.template is None:
        return {}
    fields: Fields = {"tokenizer.chat_template": without_marks(chat.template.source)}
    own = chat.tokenizer.chat_template
    if isinstance(own, dict) and own.get("default") == chat.template.source and "tool_use" in own:
        fields["tokenizer.chat_templates"] = ["tool_use"]
        fields["tokenizer.chat_template.tool_use"] = without_marks(str(own["tool_use"]))
    return fields


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    return content["model"]["type"] == "BPE" and '"ByteLevel"' in json.dumps(
        [content.get("pre_tokenizer"), content.get("decoder")]
    )


def _describe_tokens(content: Mapping[str, Any], size: int) -> Fields:
    tokens = [f"[PAD{place}]" for place in range(size)]
    kinds = [UNUSED] * size
    vocab: Any = content["model"]["vocab"]
    if isinstance(vocab, list):
        vocab = {text: place for place, (text, _) in enumerate(vocab)}
    unknown, bytes_too = content["model"].get("unk_token"), content["model"].get("byte_fallback")
    for text, place in vocab.items():
        tokens[place], kinds[place] = text, NORMAL
        if text == unknown:
            kinds[place] = UNKNOWN
        elif bytes_too and len(text) == 6 and text.startswith("<0x"):
            kinds[place] = BYTE
    for added in content["added_tokens"]:
        place, text = added["id"], added["content"]
        if not added["special"] and SPACE in text and not added["normalized"]:
            continue  # no blank of a text is one yet where such are looked for: merges make it
        if kinds[place] != UNKNOWN:
            kinds[place] = CONTROL if added["special"] else OWN
        tokens[place] = text if added["special"] else text.replace(SPACE, " ")
    return {"tokens": tokens, "token_type": kinds}


def _merges(content: Mapping[str, Any]) -> list[str]:
    merges: Sequence[Any] = content["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _describe_sentencepiece(content: Mapping[str, Any], size: int) -> Fields:
    """Give each token the rank of what puts it together as its score."""
    scores = [NEVER] * size
    vocab = content["model"]["vocab"]
    for rank, merge in enumerate(content["model"]["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        place = vocab[left + right]
        scores[place] = max(scores[place], float(-rank))
    spaces = json.dumps([content.get("normalizer"), content.get("pre_tokenizer")])
    for scheme in ("first", "always"):
        if f'"prepend_scheme": "{scheme}"' in spaces:
            raise ExportError(
                "llama.cpp puts a blank before every text and behind every special token, and this "
                f"tokenizer only before a text that begins with none (prepend_scheme: {scheme})",
                hint="use --format safetensors",
                where="tokenizer.json: pre_tokenizer",
            )
    prefixed = '"Prepend"' in spaces
    return {"model": "llama", "pre": "default", "scores": scores, "add_space_prefix": prefixed}


def _describe_special(chat: ChatModel) -> Fields:
    """Name the tokens that open and close texts and answers."""
    tokenizer = chat.tokenizer
    found = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "unknown_token_id": tokenizer.unk_token_id,
        "padding_token_id": tokenizer.pad_token_id,
    }
    others = [token for token in chat.stop_ids if token != tokenizer.eos_token_id]
    if found["eos_token_id"] is None and others:
        found["eos_token_id"] = others.pop(0)
    found |= dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))
    ids: Fields = {name: int(token) for name, token in found.items() if token is not None}
    first, last = adds_ends(tokenizer)
    return {**ids, "add_bos_token": first, "add_eos_token": last}


def adds_ends(tokenizer: PreTrainedTokenizerFast) -> tuple[bool, bool]:
    """Whether a tokenizer itself opens and closes each text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    first = len(whole) > len(bare) and whole[0] == tokenizer.bos_token_id
    last = len(whole) > len(bare) and whole[-1] == tokenizer.eos_token_id
    return first, last
