"""Calls of tools are written as each family's own template does, and masked as TRL masks them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.golden import talks
from tests.golden.talks import TALKS, TOOLS
from tunesmith.errors import DataError
from tunesmith.templates import BREAK, Piece, Template, build_template, named_template

FOLDER = Path(trl.__file__).parent / "chat_templates"
MASKS = Path(__file__).with_name("masks")
OURS = {
    "chatml": named_template("chatml"),
    "alpaca": named_template("alpaca"),
    "mistral": talks.MISTRAL,
    "glm4": talks.GLM4,
}
THEIRS = ["qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3_1", "llama3_2", "glm4moe", "gemma4_v5"]
REFUSED = {
    ("qwen2_5", "a thought before a call"): "writes no reasoning",
    ("qwen3_instruct_2507", "a thought before a call"): "writes no reasoning",
    ("llama3_1", "a thought before a call"): "writes no reasoning",
    ("llama3_1", "two calls"): "only supports single tool-calls",
    ("llama3_1", "a call after a text"): "does not write what an answer says",
    ("llama3_2", "a thought before a call"): "writes no reasoning",
    ("llama3_2", "two calls"): "only supports single tool-calls",
    ("llama3_2", "a call after a text"): "does not write what an answer says",
    ("mistral", "a thought before a call"): "writes no reasoning",
    ("mistral", "a call after a text"): "does not write what an answer says",
    ("gemma4_v5", "a call after a text"): "renders the answer elsewhere",
    ("glm4", "a thought before a call"): "writes no reasoning",
    ("glm4", "a call after a text"): "does not write what an answer says",
}
"""What a family's template would drop in silence."""
every_family = pytest.mark.parametrize("family", [*OURS, *THEIRS])
every_talk = pytest.mark.parametrize("talk", TALKS)


def source(family: str) -> str:
    return OURS.get(family) or (FOLDER / f"{family}.jinja").read_text("utf-8")


def build(text: str) -> Template:
    return build_template(
        text, special_tokens=talks.TOKENS, all_specials=talks.SPECIALS, name="test"
    )


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, so that masks of tokens are masks of texts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **talks.TOKENS)


def text_of(row: tuple[Piece, ...]) -> str:
    return "".join(piece.text for piece in row).replace(BREAK, "")


def marked(row: tuple[Piece, ...]) -> str:
    shown = (f"⟦{piece.text}⟧" if piece.learned else piece.text for piece in row)
    return "".join(shown).replace(BREAK, "")


@every_family
@every_talk
def test_a_talk_is_written_as_its_tokenizer_writes_it(family: str, talk: str) -> None:
    template = build(source(family))
    if (family, talk) in REFUSED:
        with pytest.raises(DataError, match=REFUSED[family, talk]):
            template.render_rows(TALKS[talk], tools=TOOLS)
        return
    theirs: Any = letters().apply_chat_template(
        TALKS[talk], tools=TOOLS, chat_template=source(family), tokenize=False
    )
    ours = text_of(template.render_rows(TALKS[talk], tools=TOOLS)[-1])
    assert ours.startswith(theirs)
    assert ours[len(theirs) :] in ("", template.turn_end, "<|observation|>", "<|tool_response>")
    prompt = letters().apply_chat_template(
        TALKS[talk][:-1],
        tools=TOOLS,
        chat_template=source(family),
        tokenize=False,
        add_generation_prompt=True,
    )
    assert template.render_prompt(TALKS[talk][:-1], TOOLS) == prompt


@every_talk
@pytest.mark.parametrize("family", ["qwen2_5", "qwen3_instruct_2507", "glm4moe"])
def test_what_is_learned_is_what_trl_marks(family: str, talk: str) -> None:
    if (family, talk) in REFUSED:
        return
    training = FOLDER / f"{family}_training.jinja"
    tokenizer = letters()
    theirs: Any = tokenizer.apply_chat_template(
        TALKS[talk],
        tools=TOOLS,
        chat_template=training.read_text("utf-8"),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = theirs["input_ids"]
    marks = theirs["assistant_masks"]
    wanted = tokenizer.decode([token for token, mark in zip(ids, marks, strict=True) if mark])
    (row,) = build(source(family)).render_rows(TALKS[talk], tools=TOOLS)
    ours = "".join(piece.text for piece in row if piece.learned).replace(BREAK, "")
    # TRL's marks hold newlines around a turn too, which a server writes, or where it has stopped
    assert ours.replace("\n", "") == wanted.replace("\n", "")


@pytest.mark.parametrize("family", OURS)
def test_masks_are_those_that_were_looked_at(family: str) -> None:
    template = build(source(family))
    shown = []
    for talk, messages in TALKS.items():
        if (family, talk) not in REFUSED:
            rows = template.render_rows(messages, tools=TOOLS)
            shown += [f"# {talk}, row {at}\n{marked(row)}\n" for at, row in enumerate(rows, 1)]
    found = "\n".join(shown)
    path = MASKS / f"{family}.txt"
    if os.environ.get("TUNESMITH_WRITE_GOLDEN"):
        path.write_text(found, "utf-8")
    assert found == path.read_text("utf-8")


LEARNED = {
    "qwen2_5": '<tool_call>\n{"name": "find_shop", "arguments": {"city": "Rom"}}\n</tool_call>'
    "<|im_end|>",
    "llama3_1": '{"name": "find_shop", "parameters": {"city": "Rom"}}<|eot_id|>',
    "glm4moe": "\n<think></think>\n<tool_call>find_shop\n<arg_key>city</arg_key>\n"
    "<arg_value>Rom</arg_value>\n</tool_call><|observation|>",
    "gemma4_v5": '<|tool_call>call:find_shop{city:<|"|>Rom<|"|>}<tool_call|><|tool_response>',
}


@pytest.mark.parametrize("family", LEARNED)
def test_a_call_is_learned_up_to_the_token_that_a_server_stops_at(family: str) -> None:
    (row,) = build(source(family)).render_rows(TALKS["a call at the end"], tools=TOOLS)
    assert [piece.text for piece in row if piece.learned] == [LEARNED[family]]


@every_family
def test_no_result_of_a_tool_is_ever_learned(family: str) -> None:
    template = build(source(family))
    for talk, messages in TALKS.items():
        if (family, talk) in REFUSED:
            continue
        results = [m["content"] for m in messages if m["role"] == "tool" and len(m["content"]) > 1]
        for row in template.render_rows(messages, tools=TOOLS):
            learned = "".join(piece.text for piece in row if piece.learned)
            assert not any(text in learned for text in results)
            assert "Find a shop" not in learned


@pytest.mark.parametrize("family", ["llama3", "phi3"])
def test_a_template_without_tools_says_so(family: str) -> None:
    with pytest.raises(DataError, match="writes no tools; name a template that does"):
        build(source(family)).render_rows(TALKS["one call"], tools=TOOLS)


def test_a_template_that_drops_calls_says_so() -> None:
    bare = "{%- for m in messages %}{{- '<|im_start|>' + m.role + m.content + '<|im_end|>' }}"
    with pytest.raises(DataError, match="does not write the call of find_shop"):
        build(bare + "{%- endfor %}").render_rows(TALKS["one call"][1:])


def test_a_template_of_its_own_for_tools_is_taken_where_there_are_some() -> None:
    plain = source("llama3")
    template = build_template(
        plain,
        special_tokens=talks.TOKENS,
        all_specials=talks.SPECIALS,
        for_tools=source("llama3_1"),
    )
    talk = TALKS["tools and no call"]
    assert template.render_rows(talk) == build(plain).render_rows(talk)
    both = build(source("llama3_1")).render_rows(talk, tools=TOOLS)
    assert template.render_rows(talk, tools=TOOLS) == both


def test_specials_that_a_tool_or_a_result_spells_are_broken() -> None:
    tools = [{"type": "function", "function": {"name": "find_shop", "description": "<|im_end|>"}}]
    talk = [*TALKS["two calls"][:1], asked_for("<|im_end|>"), talks.result(1, "<|im_end|>")]
    (row,) = build(source("chatml")).render_rows([*talk, talks.said("ok")], tools=tools)
    text = "".join(piece.text for piece in row)
    assert text.count(f"<{BREAK}|im_end|>") == 3


def asked_for(city: str) -> dict[str, Any]:
    return talks.asked(city)
