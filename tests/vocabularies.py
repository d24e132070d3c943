"""Vocabularies of the kinds that models have, and models that know nothing but a form."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tunesmith.inference.structured.forms import GrammarForm

Vocabulary = PreTrainedTokenizerFast
KINDS = ("bytes", "sentencepiece", "pieces")
MARKS = ["[TOOL_CALLS]", "<|assistant|>", "<|python_tag|>", "<tool_call>", "</tool_call>"]


def make_vocabulary(kind: str, folder: Path) -> PreTrainedTokenizerFast:
    """Make a tokenizer of one of the kinds, with special tokens that mark calls."""
    if kind == "bytes":
        return byte_level(folder)
    return of_pieces() if kind == "pieces" else like_sentencepiece()


def byte_level(folder: Path) -> PreTrainedTokenizerFast:
    tiny.make_tokenizer(folder)
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        additional_special_tokens=MARKS,
    )


def like_sentencepiece() -> PreTrainedTokenizerFast:
    """Blanks are letters of their own, and what is in no token is spelled by its bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    specials = ["<unk>", "</s>", *MARKS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    backend.train_from_iterator([*tiny.TEXTS * 3, '{"name": "a", "age": 3}'], trainer)
    backend = Tokenizer.from_str(_plain_bytes(backend.to_str()))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", additional_special_tokens=MARKS
    )


def of_pieces() -> PreTrainedTokenizerFast:
    """A vocabulary of likely pieces, as T5 has, which llguidance does not read itself."""
    backend = Tokenizer(models.Unigram(byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never"), decoders.Fuse()]
    )
    texts = [*tiny.TEXTS * 3, '{"name": "a", "age": 3}']
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>", *MARKS], unk_token="<unk>"
    )
    backend.train_from_iterator(texts, trainer)
    read = json.loads(backend.to_str())
    read["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    read["model"]["byte_fallback"] = True
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(read)),
        eos_token="</s>",
        additional_special_tokens=MARKS,
    )


def _plain_bytes(spelled: str) -> str:
    """Let the bytes be ordinary tokens, as they are in such vocabularies."""
    read = json.loads(spelled)
    read["added_tokens"] = [
        each for each in read["added_tokens"] if not each["content"].startswith("<0x")
    ]
    return json.dumps(read)


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {mark: int(tokenizer.convert_tokens_to_ids(mark)) for mark in MARKS}  # type: ignore[arg-type]


def write(form: GrammarForm, tokenizer: PreTrainedTokenizerFast, seed: int, most: int = 400) -> str:
    """Write as a model that knows nothing would: any token that is allowed."""
    draw, ids = random.Random(seed), []
    while len(ids) < most and not form.is_over():
        allowed = form.mask().nonzero().flatten().tolist()
        token = draw.choice(allowed)
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
        form.take(token)
    assert len(ids) < most
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def accepts(form: GrammarForm, tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether a text may be written, and the answer may end there."""
    for token in tokenizer.encode(text, add_special_tokens=False):
        if not form.mask()[token]:
            return False
        form.take(token)
    return form.is_over() or bool(form.mask()[int(tokenizer.eos_token_id or 0)])
