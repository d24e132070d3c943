"""How the model of a GGUF is spoken with: its own template, and llama.cpp's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from tunesmith.data.tokens import LEADS
from tunesmith.errors import ModelError
from tunesmith.inference.elsewhere.gbnf import fields_in_gbnf
from tunesmith.inference.elsewhere.wire import Address
from tunesmith.inference.engine import Speech, Tokenize
from tunesmith.inference.generate import Messages, Tools
from tunesmith.inference.looked import refuse_shown
from tunesmith.inference.manner import manner_of
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent
from tunesmith.inference.spelling import BYTE, byte_values
from tunesmith.inference.structured import Outline
from tunesmith.inference.structured.lark import ONE_LINE
from tunesmith.templates import BREAK, Breaker, Template, build_template

NORMAL, UNKNOWN_TOKEN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Kinds of token; the last two stand for themselves wherever they are spelled."""
TEMPLATE = "tokenizer.chat_template"


class GgufSpeech(Speech):
    """Speech of a GGUF that llama.cpp serves.

    Args:
        header: what the file says of itself.

    Raises:
        ModelError: if it holds no vocabulary, or a template that cannot be used.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        name: str,
        address: Address,
        longest: int,
    ) -> None:
        self._name, self._address, self.longest = name, address, longest
        texts: Sequence[str] = header.get("tokenizer.ggml.tokens", ())
        kinds: Sequence[int] = header.get("tokenizer.ggml.token_type", ())
        if not texts or len(kinds) != len(texts):
            raise ModelError(
                "the GGUF holds no vocabulary",
                hint="export it again with its tokenizer",
                where=name,
            )
        self._texts, self._kinds, self.num_tokens = texts, kinds, len(texts)
        self._is_bytes = header.get("tokenizer.ggml.model") == "gpt2"
        prefixed = header.get("tokenizer.ggml.add_space_prefix", True)
        self._puts_space = header.get("tokenizer.ggml.model") == "llama" and prefixed
        whole = [texts[at] for at, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)]
        self.template = template = _build(header, texts, whole, name)
        self.stop_ids, self.opening = _stop_ids(header, texts, template), self._begun()
        self.defaults, self.can_chat = Sampling(), template is not None
        self.options = template.options if template else frozenset()
        controls = {texts[at]: at for at, kind in enumerate(kinds) if kind == CONTROL}
        unknown = [texts[at] for at, kind in enumerate(kinds) if kind == UNKNOWN_TOKEN]
        self._broken = Breaker([*controls, *unknown])
        vocabulary = {text: at for at, text in enumerate(texts)}
        self.manner = manner_of(template, vocabulary, controls)

    def write(self, messages: Messages, tools: Tools, options: Mapping[str, Any]) -> Tokenize:
        """Write a conversation as the file's template does."""
        if self.template is None:
            raise ModelError(
                "the GGUF has no chat template, so it can only continue text",
                hint="export it again from a model that has one",
                where=self._name,
            )
        refuse_shown(messages)
        return partial(self.encode, self.template.render_prompt(messages, tools, options))

    def encode(self, text: str) -> list[int]:
        """Tokenize a text; special tokens are read as such but where a BREAK stands in them."""
        ids: list[int] = []
        for part in filter(None, text.split(BREAK)):
            ids += self._tokenize_on(part) if ids else self._tokenize(part)
        return ids

    def start(self, text: str) -> list[int]:
        """Tokenize the start of a plain text; no special token that it spells is read as such."""
        return [*self.opening, *self.encode(self._broken(text))]

    def go_on(self, text: str) -> list[int]:
        """Tokenize what goes on from a plain text."""
        parts = filter(None, self._broken(text).split(BREAK))
        return [token for part in parts for token in self._tokenize_on(part)]

    @cached_property
    def whole_token(self) -> int:
        """A token that writes a letter, and not a part of one."""
        return next(
            token
            for token, kind in enumerate(self._kinds)
            if kind == NORMAL and self.spell(token).strip().isalpha()
        )

    def _tokenize_on(self, text: str) -> list[int]:
        """Tokenize what goes on from another text; no blank is put before it."""
        for lead in LEADS if self._puts_space else ():
            ids = self._tokenize(lead)
            led = self._tokenize(lead + text)
            if led[: len(ids)] == ids:
                return led[len(ids) :]
        return self._tokenize(text)

    def _begun(self) -> list[int]:
        """Return the token that llama.cpp puts before a plain text, whatever the file says."""
        whole, bare = (self._tokenize("a", around=around, parse=False) for around in (True, False))
        return whole[:1] if whole[:1] != bare[:1] else []

    def _tokenize(self, text: str, *, around: bool = False, parse: bool = True) -> list[int]:
        asked = {"content": text, "add_special": around, "parse_special": parse}
        found: list[int] = self._address.ask("/tokenize", asked)["tokens"]
        return found

    def forms(self, outline: Outline, count: int) -> Sequence[Sent]:
        """Make the forms of so many answers: llama.cpp reads the grammars that our own engine does.

        Raises:
            RequestError: if it would read the vocabulary otherwise than it writes it.
        """
        if self._puts_space:
            asked = fields_in_gbnf(outline)
            return [Sent(asked, outline.grammar({}, ONE_LINE)) for _ in range(count)]
        grammar = outline.grammar(self.manner.specials, ONE_LINE)  # its blanks have no end
        asked = {"grammar": f"%llguidance {{}}\n{grammar}"}
        plain = outline.grammar({}, ONE_LINE)
        return [Sent(asked, plain) for _ in range(count)]

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of tokens."""
        kept = [token for token in tokens if keep_special or self._kinds[token] != CONTROL]
        return str(self._address.ask("/detokenize", {"tokens": kept})["content"])

    def spell(self, token: int) -> bytes:
        """Return what a token writes, which may be a part of a character."""
        text, kind = self._texts[token], self._kinds[token]
        if kind in (CONTROL, USER_DEFINED):
            return text.encode()
        if self._is_bytes:
            values = byte_values()
            return bytes(values[letter] for letter in text if letter in values)
        if found := BYTE.fullmatch(text):
            return bytes([int(found.group(1), 16)])
        return text.replace("\u2581", " ").encode()  # how SentencePiece writes a space


def _build(
    header: Mapping[str, Any], texts: Sequence[str], whole: Sequence[str], name: str
) -> Template | None:
    source = header.get(TEMPLATE)
    if source is None:
        return None
    named = {f"{kind}_token": _text_of(header, texts, kind) for kind in ("bos", "eos", "unknown")}
    return build_template(
        str(source),
        special_tokens={each: text for each, text in named.items() if text},
        all_specials=whole,
        name=name,
    )


def _text_of(header: Mapping[str, Any], texts: Sequence[str], kind: str) -> str:
    token = header.get(f"tokenizer.ggml.{kind}_token_id")
    return texts[token] if isinstance(token, int) and token < len(texts) else ""


def _stop_ids(
    header: Mapping[str, Any], texts: Sequence[str], template: Template | None
) -> tuple[int, ...]:
    """List the tokens at which an answer is over, the template's turn end first."""
    found = [] if template is None else [texts.index(template.turn_end)]
    declared = (header.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom"))
    return tuple(dict.fromkeys([*found, *(each for each in declared if isinstance(each, int))]))
