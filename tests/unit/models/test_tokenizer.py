"""A tokenizer comes with a template and the tokens that end an answer, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import ModelError, RecipeError
from tunesmith.models.chat import Subject, load_subject
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import load_reader, load_roles
from tunesmith.models.tokenizer import load_template, load_tokenizer, special_texts
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.options import Recipe

EOS, START, END = range(3)
OPEN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
SHOUTING = (
    "{% for m in messages %}{{ m.role + '!' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant!' }}{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer without weights, which need not be there."""
    tiny.make_tokenizer(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    return tmp_path / "model"


def set_template(folder: Path, template: Any) -> None:
    tiny.change_json(folder / "tokenizer_config.json", chat_template=template)


def set_generation(folder: Path, **fields: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps(fields), "utf-8")


def recipe_for(tmp_path: Path, model: Path, **sections: Any) -> Recipe:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    return load_recipe(tiny.write_recipe(tmp_path / "r.json", model, data, **sections))


def test_a_fast_tokenizer_loads_with_its_words(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert len(tokenizer) == 400
    assert tokenizer.decode(tokenizer.encode("你好, what is it?")) == "你好, what is it?"


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name) as caught:
        load_tokenizer(folder)
    assert caught.value.where == str(folder)
    assert "copy the whole model folder" in caught.value.hint


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"type": "canary"}}'], ids=range(4))
def test_a_damaged_tokenizer_is_refused(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content, "utf-8")
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded: ") as caught:
        load_tokenizer(folder)
    assert "copy tokenizer.json" in caught.value.hint


def test_the_tokenizer_s_own_template_is_taken(folder: Path) -> None:
    set_template(folder, SHOUTING)
    reader = find_reader(folder)
    assert reader.template is not None
    prompt = reader.template.render_prompt([{"role": "user", "content": "hello"}])
    assert prompt == "user!hello<|im_end|>assistant!"


def test_a_template_in_a_file_of_its_own_is_taken(folder: Path) -> None:
    set_template(folder, None)
    (folder / "chat_template.jinja").write_text(SHOUTING, "utf-8")
    reader = find_reader(folder)
    assert reader.template is not None
    assert reader.template.source == SHOUTING


def test_an_override_replaces_the_tokenizer_s_own(folder: Path) -> None:
    set_template(folder, SHOUTING)
    reader = find_reader(folder, "alpaca")
    assert reader.template is not None
    prompt = reader.template.render_prompt([{"role": "user", "content": "hello"}])
    assert prompt == "### Instruction:\nhello\n\n### Response:\n"
    assert reader.stop_ids == (EOS,)


def test_an_override_from_a_file_replaces_the_tokenizer_s_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(SHOUTING, "utf-8")
    reader = find_reader(folder, str(tmp_path / "mine.jinja"))
    assert reader.template is not None
    assert reader.template.source == SHOUTING


def test_of_several_templates_the_default_is_taken(folder: Path) -> None:
    templates = {"tool_use": OPEN, "default": SHOUTING}
    set_template(folder, [{"name": k, "template": v} for k, v in templates.items()])
    reader = find_reader(folder)
    assert reader.template is not None
    assert reader.template.source == SHOUTING


def test_several_templates_without_a_default_are_refused_by_their_names(folder: Path) -> None:
    set_template(folder, [{"name": n, "template": SHOUTING} for n in ("tool_use", "rag")])
    with pytest.raises(ModelError, match="templates rag, tool_use, but no default one") as caught:
        find_reader(folder)
    assert "model.template" in caught.value.hint


def test_a_model_without_a_template_has_none(folder: Path) -> None:
    set_template(folder, None)
    assert find_reader(folder).template is None


def test_a_template_that_ends_no_turn_is_refused(folder: Path) -> None:
    set_template(folder, OPEN)
    with pytest.raises(ModelError, match="ends an answer with no special token") as caught:
        find_reader(folder)
    assert "model.template" in caught.value.hint


def test_chatml_needs_its_token_in_the_vocabulary(tmp_path: Path, folder: Path) -> None:
    content = (folder / "tokenizer.json").read_text("utf-8").replace("<|im_end|>", "<|other|>")
    (folder / "tokenizer.json").write_text(content, "utf-8")
    set_template(folder, None)
    with pytest.raises(ModelError, match=r"<\|im_end\|>, which the vocabulary lacks") as caught:
        load_template(folder, load_tokenizer(folder), "chatml")
    assert "alpaca" in caught.value.hint


def test_an_unknown_override_is_refused_with_the_names_there_are(folder: Path) -> None:
    with pytest.raises(RecipeError, match="no chat template 'chatlm'") as caught:
        find_reader(folder, "chatlm")
    assert "chatml" in caught.value.hint


def test_special_texts_are_all_that_stand_for_one_token(folder: Path) -> None:
    assert special_texts(load_tokenizer(folder)) == sorted(tiny.SPECIALS)


def test_answers_end_at_the_template_s_turn_end_first(folder: Path) -> None:
    assert find_reader(folder).stop_ids == (END, EOS)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [(7, (END, EOS, 7)), ([1, 0, 9], (END, EOS, START, 9)), (None, (END, EOS))],
)
def test_ends_that_the_makers_declare_come_after_it(
    folder: Path, declared: Any, expected: tuple[int, ...]
) -> None:
    set_generation(folder, eos_token_id=declared)
    assert find_reader(folder).stop_ids == expected


@pytest.mark.parametrize("declared", [True, "2", ["2"], {"id": 2}, [True]])
def test_ends_that_are_no_token_ids_are_left_out(folder: Path, declared: Any) -> None:
    set_generation(folder, eos_token_id=declared)
    assert find_reader(folder).stop_ids == (END, EOS)


def test_a_model_without_template_ends_where_its_text_ends(folder: Path) -> None:
    set_template(folder, None)
    assert find_reader(folder).stop_ids == (EOS,)


def test_a_method_of_conversations_needs_a_template(tmp_path: Path, folder: Path) -> None:
    set_template(folder, None)
    with pytest.raises(ModelError) as caught:
        load_reader(recipe_for(tmp_path, folder))
    assert caught.value.message == "the model has no chat template"
    assert "model.template: chatml" in caught.value.hint
    recipe = recipe_for(tmp_path, folder, method={"name": "pretrain"})
    assert load_reader(recipe).template is None


def test_a_vocabulary_larger_than_the_embeddings_is_refused_before_any_step(
    tmp_path: Path,
) -> None:
    model = tiny.make_model(tmp_path / "model", vocab_size=399)
    recipe = recipe_for(tmp_path, model)
    with pytest.raises(ModelError, match="400 tokens, the model 399 embeddings"):
        load_roles(recipe, load_reader(recipe))
    with pytest.raises(ModelError, match="400 tokens, the model 399 embeddings"):
        load_subject(Subject("model", model), precision="fp32", device="cpu")


def test_embeddings_may_be_padded(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", vocab_size=512)
    chat = load_subject(Subject("model", model), precision="fp32", device="cpu")
    assert not chat.model.training
    assert not any(parameter.requires_grad for parameter in chat.model.parameters())
    assert {parameter.dtype for parameter in chat.model.parameters()} == {torch.float32}
