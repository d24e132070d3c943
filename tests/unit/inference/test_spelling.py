"""Each token is spelled by the bytes it writes, whatever the vocabulary is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tunesmith.inference.spelling import Spelling, byte_values
from tunesmith.models.tokenizer import load_tokenizer

TEXTS = ["what is it?", "你好 𠮷野家 😀", "tabs\tand\nlines", "Grüße — “hi”"]


def with_pieces() -> PreTrainedTokenizerFast:
    """A vocabulary as SentencePiece makes them: blanks are letters, unknown bytes are tokens."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    pieces += ["▁", "▁what", "▁is", "a", "w", "h", "t", "i", "s", "▁i", "wh"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    merges = [("▁", "i"), ("▁i", "s"), ("w", "h")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_of_a_text_write_it_byte_by_byte(tiny_model: Path, text: str) -> None:
    tokenizer = load_tokenizer(tiny_model)
    spell = Spelling(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(spell, ids)) == text.encode()


@pytest.mark.parametrize("text", TEXTS)
def test_vocabularies_of_pieces_and_bytes_do_so_too(text: str) -> None:
    tokenizer = with_pieces()
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(Spelling(tokenizer), ids)) == f" {text}".encode()


def test_special_tokens_are_spelled_by_their_names(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    names = [Spelling(tokenizer)(token).decode() for token in range(len(tiny.SPECIALS))]
    assert names == tiny.SPECIALS
    assert Spelling(tokenizer)(10**6) == b""


def test_all_bytes_have_a_letter() -> None:
    assert sorted(byte_values().values()) == list(range(256))
