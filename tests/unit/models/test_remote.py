"""Families that are code in their folder are refused by name, with a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.command import Command
from tunesmith.errors import ModelError
from tunesmith.models.load import load_config
from tunesmith.models.remote import REMOTE, is_built_in

NAMED = {
    "chatglm": ("ChatGLM", "glm4"),
    "baichuan": ("Baichuan", "qwen3"),
    "internlm": ("InternLM", "internlm3"),
    "internlm2": ("InternLM 2", "internlm3"),
    "minicpm": ("MiniCPM", "minicpm3"),
    "qwen": ("Qwen 1", "qwen2"),
    "Yi": ("Yi, first files", "llama"),
    "strange": ("'strange'", "qwen3"),
}
AUTO_MAP = {"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.make_model(tmp_path / "model")


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("kind", NAMED)
def test_a_family_of_remote_code_is_named_with_a_way_out(
    folder: Path, kind: str, asks: bool
) -> None:
    fields: dict[str, Any] = {"model_type": kind, "auto_map": AUTO_MAP if asks else None}
    tiny.change_json(folder / "config.json", **fields)
    with pytest.raises(ModelError) as caught:
        load_config(folder)
    family, way_out = NAMED[kind]
    said = f"{caught.value.message} {caught.value.hint}"
    assert family in caught.value.message
    assert way_out in caught.value.hint
    assert "code in a model folder is never run" in said
    assert ("auto_map" in said) is asks


def test_a_tokenizer_of_remote_code_names_the_family_too(folder: Path) -> None:
    tiny.change_json(folder / "config.json", model_type="chatglm")
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization.Tokenizer", None]}}
    tiny.change_json(folder / "tokenizer_config.json", **tokenizer)
    with pytest.raises(ModelError, match="ChatGLM") as caught:
        load_config(folder)
    assert caught.value.where.endswith("tokenizer_config.json")


def test_a_family_that_is_built_in_needs_its_field_removed_only(folder: Path) -> None:
    tiny.change_json(folder / "config.json", auto_map=AUTO_MAP)
    with pytest.raises(ModelError) as caught:
        load_config(folder)
    assert "remove the field, qwen3 is built into transformers" in caught.value.hint


def test_no_family_is_called_remote_that_is_built_in() -> None:
    assert [kind for kind in REMOTE if is_built_in(kind)] == []


@pytest.mark.parametrize("kind", [None, ["llama"], {"a": 1}, 3])
def test_a_kind_that_is_no_name_is_refused_as_such(folder: Path, kind: Any) -> None:
    tiny.change_json(folder / "config.json", model_type=kind)
    with pytest.raises(ModelError, match="not a causal language model"):
        load_config(folder)


def test_the_command_line_says_so(folder: Path, pairs: Path, command: Command) -> None:
    tiny.change_json(folder / "config.json", model_type="baichuan", auto_map=AUTO_MAP)
    recipe = tiny.write_recipe(folder.parent / "r.json", folder, pairs)
    for words in (["train", str(recipe)], ["chat", str(folder)]):
        result = command(*words)
        assert result.code == 2
        assert "Baichuan is not built into transformers" in result.err
