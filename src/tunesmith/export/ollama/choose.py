"""Choose the template of Go's language that says what a tokenizer's own does."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tunesmith.export.gguf.vocabulary import adds_ends
from tunesmith.export.ollama.conversations import TALKS, Talk, as_ollama
from tunesmith.export.ollama.go_template import render_go
from tunesmith.templates.environment import compile_template
from tunesmith.templates.marks import read_marks

if TYPE_CHECKING:
    from tunesmith.models.chat import ChatModel

FOLDER = "templates"
ENDING = ".gotmpl"
END = "%eos%"
"""Where a template writes the token that ends a text, whatever it is called."""


def choose_template(chat: ChatModel) -> str | None:
    """Choose the template that renders all conversations alike.

    JSON in it may have other blanks, and its fields another order: Ollama writes it so. Where a
    tokenizer's template refuses a conversation, any text is as good.

    Returns:
        None if no template does.
    """
    wanted = _render_own(chat)
    if TALKS[0] not in wanted:
        return None
    for each in read_templates().values():
        source = each.replace(END, str(chat.tokenizer.eos_token))
        if all(
            _even(render_go(source, as_ollama(talk))) == _even(text)
            for talk, text in wanted.items()
        ):
            return source
    return None


def read_templates() -> dict[str, str]:
    """Read all templates by their names."""
    folder = files(__package__) / FOLDER
    found = sorted(path.name for path in folder.iterdir() if path.name.endswith(ENDING))
    return {
        name.removesuffix(ENDING): (folder / name).read_text("utf-8").removesuffix("\n")
        for name in found
    }


def _render_own(chat: ChatModel) -> dict[Talk, str]:
    """Render the conversations with the tokenizer's template, as far as it takes them."""
    if chat.template is None:
        return {}
    compiled = compile_template(chat.template.source, chat.template.name)
    tokens = {name: str(token) for name, token in chat.tokenizer.special_tokens_map.items()}
    found = {}
    for talk in TALKS:
        options = {} if talk.thinking is None else {"enable_thinking": talk.thinking}
        try:
            text = compiled.render(
                messages=[dict(message) for message in talk.messages],
                tools=list(talk.tools) or None,
                add_generation_prompt=True,
                **tokens,
                **options,
            )
        except Exception:  # noqa: BLE001, S112  a template may raise anything
            continue
        found[talk] = _without_opening(read_marks(text).text, chat)
    return found


def _without_opening(text: str, chat: ChatModel) -> str:
    """Leave out the token that opens a text, where Ollama puts it itself."""
    opens, _ = adds_ends(chat.tokenizer)
    return text.removeprefix(str(chat.tokenizer.bos_token)) if opens else text


def _even(text: str) -> str:
    """Write all JSON of a text in one way."""
    decoder, parts, at = json.JSONDecoder(), [], 0
    while (start := text.find("{", at)) >= 0:
        parts.append(text[at:start])
        try:
            value, at = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            value, at = None, start + 1
        parts.append(_spell(value) if value is not None else "{")
    return "".join([*parts, text[at:]])


def _spell(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
