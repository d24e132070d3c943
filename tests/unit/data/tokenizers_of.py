"""Tokenizers of the known families, made on the spot, each with a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.tiny import TEXTS
from tests.unit.templates import families
from tunesmith.models.reader import Reader
from tunesmith.models.tokenizer import load_template, load_tokenizer
from tunesmith.templates import named_template

MERGES = [("▁", "h"), ("▁h", "i"), ("▁", "q"), ("h", "e"), ("l", "l"), ("he", "ll"), ("\n", "\n")]
LETTERS = [*map(chr, range(33, 127)), "é"]


def make_byte_level(folder: Path, template: str = families.CHATML) -> Reader:
    """Bytes as letters, no space before a text, as GPT-2, Qwen and Llama 3 do it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=families.SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return _save(folder, tokenizer, template)


def make_spaced(folder: Path, template: str = named_template("alpaca")) -> Reader:
    """A space before every text and bytes for unknown letters, as Llama 2 does it."""
    singles = ["▁", "\n", *LETTERS]
    words = ["<unk>", *families.TOKENS.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [*singles, *("".join(pair) for pair in MERGES)]
    vocabulary = {word: number for number, word in enumerate(words)}
    model = models.BPE(vocabulary, MERGES, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", *families.TOKENS.values()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return _save(folder, tokenizer, template)


def _save(folder: Path, tokenizer: Tokenizer, template: str) -> Reader:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
        **families.TOKENS,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (folder / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    loaded = load_tokenizer(folder)
    return Reader(folder, loaded, load_template(folder, loaded), ())
