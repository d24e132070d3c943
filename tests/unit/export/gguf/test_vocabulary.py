"""llama.cpp makes the same tokens of a text as the tokenizer it was given."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tunesmith.errors import ExportError
from tunesmith.export.gguf.ask import Questions, ask
from tunesmith.export.gguf.pretokenizers import BY_REGEXES, known_names, name_pretokenizer
from tunesmith.export.gguf.sample import SAMPLE
from tunesmith.export.gguf.write import write_gguf
from tunesmith.models.chat import load_chat_model

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = [rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}{a}{LOWER}{b}" for a, b in (("*", "+"), ("+", "*"))]
SLASHED = REST.replace("]*|", "/]*|", 1)
REGEXES = {
    "qwen2": rf"{ENDINGS}|{WORDS}|\p{{N}}|{REST}",
    "llama-bpe": rf"{ENDINGS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
    "glm4": rf"{ENDINGS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",
    "tekken": rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{SLASHED}",
    "gpt-4o": rf"{CASED[0]}{ENDINGS}?|{CASED[1]}{ENDINGS}?|\p{{N}}{{1,3}}|{SLASHED}",
}
WHOLE_WORDS = ("llama-bpe", "tekken")
TEXTS = [*SAMPLE, *tiny.TEXTS] * 2


def byte_level(name: str) -> Tokenizer:
    """Train a tokenizer that cuts text as models of one kind do."""
    steps: list[Any] = []
    if name in REGEXES:
        steps.append(pre_tokenizers.Split(Regex(REGEXES[name]), "isolated"))
    if name == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    cuts = name not in REGEXES
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cuts))
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in WHOLE_WORDS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return _train(tokenizer, 700, alphabet=pre_tokenizers.ByteLevel.alphabet())


def sentencepiece(prefixed: bool) -> Tokenizer:
    """Train a tokenizer as Llama 2 has one, or as Gemma has one without a space in front."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefixed else replace
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trained = _train(tokenizer, 800, specials=["<unk>", "<s>", "</s>", *bytes_])
    content = trained.to_str()
    for text in bytes_:  # they are pieces of text, and no special tokens
        trained = Tokenizer.from_str(_without_added(content, bytes_))
        assert trained.token_to_id(text) is not None
        break
    trained.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return trained


def _without_added(content: str, texts: list[str]) -> str:
    import json

    found = json.loads(content)
    found["added_tokens"] = [t for t in found["added_tokens"] if t["content"] not in texts]
    return json.dumps(found)


def _train(
    tokenizer: Tokenizer, size: int, *, specials: list[str] | None = None, alphabet: Any = ()
) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials or tiny.SPECIALS,
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def make_chat(folder: Path, tokenizer: Tokenizer, **tokens: str) -> Any:
    tiny.make_model(folder, vocab_size=820, num_hidden_layers=1, template=None)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(str(folder))
    return load_chat_model(folder, precision="fp32", device="cpu")


def check(chat: Any, path: Path, texts: tuple[str, ...] = SAMPLE) -> None:
    write_gguf(chat, path, "f16")
    heard = ask(path, Questions(texts=texts), chat.tokenizer)
    for text, theirs in zip(texts, heard.tokens, strict=True):
        assert theirs == chat.tokenizer(text, add_special_tokens=False)["input_ids"], text


def content_of(tokenizer: Tokenizer) -> Any:
    import json

    return json.loads(tokenizer.to_str())


@pytest.mark.parametrize("name", ["gpt-2", "smollm", *REGEXES])
def test_byte_level_tokenizers_are_recognised_and_read_alike(name: str, tmp_path: Path) -> None:
    tokenizer = byte_level(name)
    assert name_pretokenizer(content_of(tokenizer)) == name
    check(make_chat(tmp_path, tokenizer, eos_token="<|endoftext|>"), tmp_path / "model.gguf")


@pytest.mark.parametrize("prefixed", [True, False])
def test_tokenizers_like_sentencepiece_are_read_alike(tmp_path: Path, prefixed: bool) -> None:
    chat = make_chat(
        tmp_path, sentencepiece(prefixed), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    check(chat, tmp_path / "model.gguf", (*SAMPLE, *HARD, "one</s>two <s> three"))
    fields = gguf.GGUFReader(str(tmp_path / "model.gguf")).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert fields["tokenizer.ggml.add_eos_token"].contents() is False
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert kinds[:4] == [2, 3, 3, 6]


HARD = (
    "",
    " ",
    "\n",
    "a\n\n\nb",
    f"x{' ' * 40}y",
    "trail   ",
    "\r\n \r\n",
    "𠮷野家 𓀀 ⌨️ 海螺\u3000汉堡",
    "one</s> two",
    "</s>x",
    "\t\tq  <table> <turn>user\nhi",
)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_tokenizer_like_gemmas_is_read_alike(tmp_path: Path, normalized: bool) -> None:
    tokenizer = sentencepiece(prefixed=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    own = ["\n\n", "\n\n\n", "▁▁", "▁▁▁▁", "<table>"]
    tokenizer.add_tokens([AddedToken(text, normalized=normalized) for text in own])
    tokenizer.add_special_tokens([AddedToken("<turn>", normalized=False, special=True)])
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    check(make_chat(tmp_path, tokenizer, **named), tmp_path / "model.gguf", (*SAMPLE, *HARD))


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_a_blank_that_comes_only_where_none_is_cannot_be_said(tmp_path: Path, scheme: Any) -> None:
    tokenizer = sentencepiece(prefixed=False)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    chat = make_chat(tmp_path, tokenizer, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(ExportError, match=f"prepend_scheme: {scheme}"):
        write_gguf(chat, tmp_path / "model.gguf", "f16")


def test_known_regular_expressions_have_the_hashes_that_are_listed() -> None:
    hashes = {sha256(regex.encode()).hexdigest() for regex in REGEXES.values()}
    assert hashes <= BY_REGEXES.keys()
    assert {*REGEXES, "gpt-2", "smollm"} <= set(known_names())


@pytest.mark.parametrize(
    "cut",
    [
        pre_tokenizers.Split(Regex(r"\p{L}+|\d+"), "isolated"),
        pre_tokenizers.Whitespace(),
        pre_tokenizers.Digits(individual_digits=False),
    ],
)
def test_an_unknown_way_to_cut_text_is_refused(cut: Any) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ExportError, match="not known to cut text") as caught:
        name_pretokenizer(content_of(tokenizer))
    assert "gpt-2" in caught.value.hint
    assert "qwen2" in caught.value.hint


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    chat = make_chat(tmp_path, tokenizer, unk_token="<unk>")
    with pytest.raises(ExportError, match="no tokenizer of the kind WordPiece"):
        write_gguf(chat, tmp_path / "model.gguf", "f32")


def test_a_template_of_its_own_for_tools_is_used_by_llama_cpp(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", num_hidden_layers=1)
    said = {
        name: "{% for m in messages %}{{ m.content }}{% endfor %}" + f"<|im_end|>{name}"
        for name in ("default", "tool_use")
    }
    templates = [{"name": name, "template": text} for name, text in said.items()]
    tiny.change_json(folder / "tokenizer_config.json", chat_template=templates)
    chat = load_chat_model(folder, precision="fp32", device="cpu")
    write_gguf(chat, tmp_path / "model.gguf", "f16")
    function = {"name": "time", "description": "", "parameters": {"type": "object"}}
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    tools = {**asked, "tools": [{"type": "function", "function": function}]}
    heard = ask(tmp_path / "model.gguf", Questions(conversations=[asked, tools]), chat.tokenizer)
    assert heard.prompts == ["hi<|im_end|>default", "hi<|im_end|>tool_use"]
