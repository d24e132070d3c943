"""Every option is listed once, with its type, default and help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.errors import RecipeError
from tunesmith.recipe.load import build_recipe, load_recipe
from tunesmith.recipe.method import GRPO, PPO, Distill
from tunesmith.recipe.new import NEEDED, QUESTIONS, compose, write_new
from tunesmith.recipe.rewards import Function
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.schema import describe_section, find_options, json_schema, list_options

EXAMPLES = Path(__file__).parents[3] / "examples"
TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": int | float,
    "object": dict,
    "array": list,
    "null": type(None),
}
ANSWERS = {"model": "starter", "data": "rows.jsonl", "method": "sft", "tuning": "lora", "name": "a"}


def test_every_option_has_help_and_a_type() -> None:
    for option in list_options():
        assert len(option.help) > 10, option.dotted
        assert option.type, option.dotted


def test_options_of_one_kind_say_which() -> None:
    rank = find_options("tuning.rank")[0]
    assert rank.choice == ("kind", "lora", "loha", "lokr")
    assert rank.default == "8"
    assert rank.type == "whole number > 0"


def test_the_kinds_of_a_section_are_listed_once() -> None:
    kinds = [option for option in list_options() if option.dotted == "tuning.kind"]
    assert len(kinds) == 1
    assert all(kind in kinds[0].help for kind in ("full", "freeze", "lora"))
    assert (kinds[0].type, kinds[0].default) == (
        "full | freeze | llama_pro | lora | adalora | vera | oft | ia3 | hra | loha | lokr",
        "lora",
    )
    assert set(describe_section("tuning")) == set(kinds[0].type.split(" | "))


def test_a_section_or_an_option_is_found_by_name() -> None:
    assert {option.section for option in find_options("run")} == {"run"}
    assert find_options("learning_rate") == find_options("optimizer.learning_rate")
    assert [option.name for option in find_options("lora")] == [
        "kind",
        "parts",
        "targets",
        "target_pattern",
        "modules",
        "from_adapter",
        "rank",
        "alpha",
        "rank_pattern",
        "alpha_pattern",
        "dropout",
        "lora_plus_ratio",
        "rslora",
        "dora",
        "init",
        "eva_rows",
        "eva_rho",
        "loftq_rounds",
        "freeze_a",
        "tokens",
    ]
    assert [option.dotted for option in find_options("full")] == [
        "tuning.kind",
        "tuning.parts",
    ]
    assert find_options(None) == list_options()


def test_a_name_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        find_options("optimiser")
    assert caught.value.hint == "did you mean optimizer?"


def test_the_json_schema_accepts_what_we_accept() -> None:
    schema = json_schema()
    assert set(schema["required"]) == {"model", "data"}
    assert schema["$defs"]["LoRA"]["properties"]["rank"]["description"]
    assert schema["$defs"]["LoRA"]["additionalProperties"] is False


def fits(value: Any, rule: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether a value fits a JSON schema; knows the words that ours uses of arrays and objects."""
    if "$ref" in rule:
        return fits(value, known[rule["$ref"].rpartition("/")[2]], known)
    if "anyOf" in rule or "oneOf" in rule:
        return any(fits(value, each, known) for each in rule.get("anyOf", rule.get("oneOf")))
    if "type" in rule and not isinstance(value, TYPES[rule["type"]]):
        return False
    if rule.get("type") == "array":
        return all(fits(each, rule["items"], known) for each in value)
    options = rule.get("properties")
    if options is None:
        return value in rule.get("enum", [value]) and value == rule.get("const", value)
    return (value.keys() <= options.keys() and value.keys() >= set(rule.get("required", ()))) and (
        all(fits(each, options[name], known) for name, each in value.items())
    )


@pytest.mark.parametrize(
    ("train", "good"),
    [
        ("pairs.jsonl", True),
        (["pairs.jsonl"], True),
        ({"path": "pairs.jsonl"}, True),
        (["a", {"path": "pairs.jsonl", "weight": 2.0}], True),
        (3, False),
        ([3], False),
        ([{"weight": 2.0}], False),
        ({"path": "a", "weigth": 2.0}, False),
    ],
)
def test_the_json_schema_takes_the_sources_that_we_take(train: Any, good: bool) -> None:
    schema = json_schema()
    recipe = {"model": {"name": "starter"}, "data": {"train": train, "validation": train}}
    assert fits(recipe, schema, schema["$defs"]) is good
    if good:
        build_recipe(recipe)
    else:
        with pytest.raises(RecipeError):
            build_recipe(recipe)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_json_schema_takes_the_examples(path: Path) -> None:
    schema = json_schema()
    assert fits(yaml.safe_load(path.read_text("utf-8")), schema, schema["$defs"])


@pytest.mark.parametrize("method", ["sft", "pretrain"])
@pytest.mark.parametrize("tuning", ["lora", "full", "freeze"])
def test_a_new_recipe_is_sound_and_commented(method: str, tuning: str) -> None:
    text = compose({**ANSWERS, "method": method, "tuning": tuning})
    recipe = build_recipe(yaml.safe_load(text))
    check_rules(recipe)
    assert (recipe.method.name, recipe.tuning.kind) == (method, tuning)
    options = [line for line in text.splitlines() if line.startswith("  ") and "#" not in line]
    comments = [line for line in text.splitlines() if line.startswith("  #")]
    assert len(comments) >= len(options)


@pytest.mark.parametrize("method", sorted(describe_section("method")))
def test_a_new_recipe_can_be_written_for_every_method(tmp_path: Path, method: str) -> None:
    path, needed = tmp_path / "r.yaml", NEEDED.get(method)
    more = {needed.name: "rewards.py:polite"} if needed else {}
    write_new(path, {**ANSWERS, "method": method, **more})
    recipe = load_recipe(path)
    check_rules(recipe)
    if isinstance(recipe.method, GRPO | PPO):
        assert recipe.method.rewards == (Function(function="rewards.py:polite"),)
    if isinstance(recipe.method, Distill):
        assert recipe.method.teacher == "rewards.py:polite"
    assert ("max_tokens" in recipe.data.model_fields_set) == (method != "classify")


def test_a_new_recipe_refuses_what_its_method_has_no_use_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--teacher has no effect with the method sft"):
        write_new(tmp_path / "r.yaml", {**ANSWERS, "teacher": "large"})


@pytest.mark.parametrize(
    "answer",
    ["a: b", "1.5", "[x", 'a"b: c', "a #b", "yes", "true", "null", " a", "a\nb", "中", "/a b" * 99],
)
def test_a_new_recipe_keeps_answers_that_look_like_yaml(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "r.yaml"
    write_new(path, {**ANSWERS, "model": answer, "data": answer})
    recipe = load_recipe(path)
    assert recipe.model.name == answer
    assert recipe.data.train[0].path == answer


@pytest.mark.parametrize("name", ["2024", "yes", "true", "1e5"])
def test_a_new_recipe_keeps_a_name_that_looks_like_something_else(name: str) -> None:
    recipe = build_recipe(yaml.safe_load(compose({**ANSWERS, "name": name})))
    assert recipe.run.name == name


def test_a_new_recipe_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(RecipeError, match="there already"):
        write_new(path, ANSWERS)
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_new_recipe_refuses_answers_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"tuning.kind cannot be 'loar'"):
        write_new(tmp_path / "r.yaml", {**ANSWERS, "tuning": "loar"})
    assert not (tmp_path / "r.yaml").exists()


def test_questions_cover_what_a_recipe_must_have() -> None:
    assert {question.name for question in QUESTIONS} == set(ANSWERS)
