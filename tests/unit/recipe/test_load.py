"""A recipe file becomes validated options, or an error that says what, where and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tunesmith.errors import RecipeError
from tunesmith.recipe.load import apply_override, build_recipe, dump_recipe, load_recipe
from tunesmith.recipe.tuning import Full, LoRA

LEAST = {"model": {"name": "m"}, "data": {"train": ["rows.jsonl"]}}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*overrides: str, **sections: object) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        build_recipe({**LEAST, **sections}, overrides, where="r.yaml")
    return caught.value


def test_two_sections_are_enough() -> None:
    recipe = build_recipe(dict(LEAST))
    assert recipe.method.name == "sft"
    assert recipe.tuning == LoRA()
    assert recipe.data.train[0].path == "rows.jsonl"


def test_yaml_and_json_files_are_read(tmp_path: Path) -> None:
    one = write(tmp_path / "r.yaml", "model: {name: m}\ndata: {train: rows.jsonl}\n")
    other = write(tmp_path / "r.json", json.dumps(LEAST))
    assert load_recipe(one) == load_recipe(other)


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: {name: m}\r\ndata: {train: rows.jsonl}\r\n")
    assert load_recipe(path).model.name == "m"


def test_a_word_that_begins_as_a_boolean_does_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: {name: truecaser}\ndata: {train: Falsehoods.jsonl}\n", "utf-8")
    assert load_recipe(path).model.name == "truecaser"


def test_what_is_written_out_reads_back_the_same() -> None:
    recipe = build_recipe(
        {**LEAST, "tuning": {"kind": "freeze", "layers": -1}, "run": {"name": "名".encode().hex()}}
    )
    assert build_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_every_default_is_written_out() -> None:
    written = yaml.safe_load(dump_recipe(build_recipe(dict(LEAST))))
    assert written["optimizer"]["max_grad_norm"] == 1.0
    assert written["tuning"] == LoRA().model_dump(mode="json")


def test_overrides_are_read_as_yaml() -> None:
    recipe = build_recipe(
        dict(LEAST),
        ["optimizer.learning_rate=1e-5", "data.train=[a, b]", "tuning={kind: full}", "run.steps=3"],
    )
    assert recipe.optimizer.learning_rate == 1e-5
    assert [source.path for source in recipe.data.train] == ["a", "b"]
    assert isinstance(recipe.tuning, Full)
    assert recipe.run.steps == 3


def test_an_override_goes_into_a_section_the_file_lacks() -> None:
    assert build_recipe(dict(LEAST), ["tuning.rank=3"]).tuning == LoRA(rank=3)


@pytest.mark.parametrize("override", ["x", "x=3", "=3", "tuning.=3", ".x=3", ""])
def test_an_override_without_a_section_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="is no option") as caught:
        apply_override({}, override)
    assert "section.option=value" in caught.value.hint


def test_an_option_without_its_section_is_answered_with_it() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_override({}, "rank=3")
    assert caught.value.hint == "did you mean tuning.rank=3?"


@pytest.mark.parametrize("override", ["weight=2", "data.train.weight=2"])
def test_an_option_of_one_source_is_answered_with_its_place(override: str) -> None:
    hint = refusal(override).hint
    assert "data.train=[{path: ..., weight: 2}]" in hint
    build_recipe(dict(LEAST), [hint.partition(": ")[2].replace("...", "a")])


def test_an_override_cannot_look_into_a_value() -> None:
    with pytest.raises(RecipeError, match="train is not a section"):
        apply_override({"data": {"train": "a"}}, "data.train.path=b")


def test_an_override_with_broken_yaml_is_refused() -> None:
    with pytest.raises(RecipeError, match="not valid YAML"):
        apply_override({}, "data.train=[a")


def test_paths_are_looked_for_beside_the_file_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        write(folder / "both.jsonl", "")
    write(here / "only.jsonl", "")
    monkeypatch.chdir(here)
    recipe = load_recipe(
        write(
            beside / "r.yaml",
            "model: {name: starter}\ndata: {train: [both.jsonl, {path: only.jsonl}, lost.jsonl]}",
        )
    )
    assert [source.path for source in recipe.data.train] == [
        str(beside / "both.jsonl"),
        str(here / "only.jsonl"),
        "lost.jsonl",
    ]
    assert recipe.model.name == "starter"


def test_paths_in_overrides_are_looked_for_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here.jsonl", "")
    monkeypatch.chdir(tmp_path)
    recipe = build_recipe(dict(LEAST), ["data.validation=here.jsonl"])
    assert recipe.data.validation[0].path == str(tmp_path / "here.jsonl")


def test_paths_of_held_out_sets_with_names_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.jsonl", "")
    held = "{one: b.jsonl, two: {path: c.jsonl, max_rows: 2}}"
    text = f"model: {{name: starter}}\ndata: {{train: {{path: a.jsonl}}, validation: {held}}}"
    data = load_recipe(write(tmp_path / "r.yaml", text)).data
    found = [source.path for source in (*data.train, *data.validation)]
    assert found == [str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "c")]
    assert [source.name for source in data.validation] == ["one", "two"]


def test_a_path_too_long_for_a_path_is_left_alone() -> None:
    assert build_recipe({**LEAST, "model": {"name": "x" * 5000}}).model.name == "x" * 5000


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("model: {name: m\n", "not valid YAML", ":2:1"),
        ("model: {name: a}\nmodel: {name: b}\n", "`model` stands twice", ":2:1"),
        ("data:\n  train: a\n  train: b\n", "`train` stands twice", ":3:3"),
        ("model: !!python/object:os.system {}\n", "not valid YAML", ":1:8"),
        ("- a\n- b\n", "no mapping of sections", ""),
        ("", "no mapping of sections", ""),
        ("1: {a: 2}\n", "no mapping of sections", ""),
        ("model: \x00\n", "not valid YAML", ""),
    ],
)
def test_broken_yaml_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str, place: str
) -> None:
    path = write(tmp_path / "r.yaml", text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}{place}"
    assert caught.value.hint


def test_a_missing_file_a_folder_and_another_encoding_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("model: {name: ä}".encode("latin-1"))
    for path, message in ((tmp_path / "no.yaml", "No such file"), (latin, "not UTF-8")):
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)
    with pytest.raises(RecipeError, match="this is a folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("optimizer.learnin_rate=1", "no option learnin_rate in optimizer", "learning_rate?"),
        ("model.rank=2", "no option rank in model", "rank belongs to tuning.rank"),
        ("method.rank=2", "no option rank in method", "where tuning.kind is lora"),
        ("foo.bar=1", "no section foo", "sections are model, data"),
        ("modle.name=1", "no section modle", "did you mean model?"),
        ("tuning.kind=lroa", "tuning.kind cannot be 'lroa'", "did you mean lora?"),
        (
            "method.name=sfft",
            "method.name cannot be 'sfft'",
            "did you mean sft? write pretrain, sft, distill",
        ),
        ("compute.precision=fp8", "compute.precision cannot be 'fp8'", "'bf16'"),
        ("tuning.rank=0", "tuning.rank cannot be 0", "Width of the added matrices"),
        ("run.epochs=many", "run.epochs cannot be 'many'", "every training row"),
        ("optimizer.batch_size=1.5", "optimizer.batch_size cannot be 1.5", "Rows of an"),
        ("data.validation_share=1", "data.validation_share cannot be 1", "Share"),
        ("data.train=[]", "data.train cannot be", "learn from"),
        ("data.train=[{path: a, weigth: 1}]", "no option weigth", "did you mean"),
        ("data.train=[{weight: 1}]", "data.train.0.path is missing", "A file, a folder"),
        ("data.train=[{path: a, weight: .inf}]", "finite number", "Share of this set"),
        ("run.epochs=.inf", "finite number", "every training row"),
        ("run.epochs=true", "true and false are no numbers", "every training row"),
        ("run.steps=true", "true and false are no numbers", "Updates"),
        ("run.steps=10000000000", "less than or equal to 1000000000", "Updates"),
        ("run.seed=4294967296", "less than or equal to 4294967295", "Seed"),
        ("optimizer.warmup=.nan", "finite number", "Steps"),
        ("optimizer.learning_rate=.inf", "finite number", "Peak"),
        ("run.name=../evil", "run.name cannot be '../evil'", "letters, digits"),
        ("model.name=", "model.name cannot be None", "folder"),
    ],
)
def test_a_mistake_is_explained(override: str, message: str, hint: str) -> None:
    problem = refusal(override)
    assert message in problem.message
    assert hint in problem.hint
    assert problem.where.startswith("r.yaml")


@pytest.mark.parametrize("value", ["auto", "on", "off"])
def test_on_and_off_are_words(value: str) -> None:
    recipe = build_recipe(dict(LEAST), [f"compute.gradient_checkpointing={value}"])
    assert recipe.compute.gradient_checkpointing == value
    assert build_recipe(dict(LEAST), ["run.name=yes"]).run.name == "yes"


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
def test_true_is_a_boolean(value: str) -> None:
    assert build_recipe(dict(LEAST), [f"tuning={{kind: freeze, embeddings: {value}}}"]) == (
        build_recipe({**LEAST, "tuning": {"kind": "freeze", "embeddings": True}})
    )


def test_half_a_character_is_refused_and_two_halves_are_one() -> None:
    assert "half of a character" in refusal(r'data.system="\ud83d"').message
    assert build_recipe(dict(LEAST), [r'data.system="\ud83d\ude00"']).data.system == "\U0001f600"


def test_a_section_that_is_no_mapping_is_refused() -> None:
    problem = refusal(optimizer=[1])
    assert problem.message == "optimizer is a section, not [1]"


def test_a_missing_section_is_named() -> None:
    with pytest.raises(RecipeError, match="data is missing"):
        build_recipe({"model": {"name": "m"}})


def test_several_mistakes_are_counted() -> None:
    assert "(and 1 more)" in refusal("tuning.rank=0", "run.steps=0").message


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("tuning.targets=q_proj", "tuning.targets is a list, not 'q_proj'", "write [q_proj]"),
        ("tuning.rank_pattern=3", "tuning.rank_pattern is a mapping, not 3", "{v_proj: 16}"),
        ("tuning.tokens=[1.5]", "tuning.tokens.0 cannot be 1.5: input", "by id or text"),
        (
            "method={name: classify, class_weights: {x: -2}}",
            "method.class_weights.x cannot be -2: input should be greater than 0",
            "",
        ),
        (
            "method={name: classify, class_weights: balancd}",
            "method.class_weights cannot be 'balancd'",
            "write 'balanced'",
        ),
    ],
)
def test_a_value_of_another_type_is_told_in_words_of_recipes(
    override: str, message: str, hint: str
) -> None:
    said = refusal(override)
    assert said.message.startswith(message)
    assert hint in said.hint
    assert "more)" not in said.message


def test_a_list_with_a_wrong_entry_is_not_called_too_short_as_well() -> None:
    said = refusal("method.name=grpo", "method.rewards=[politeness]")
    assert said.message == "method.rewards.0.kind cannot be 'politeness'"
    assert "at least 1 item" in refusal("method.name=grpo", "method.rewards=[]").message
