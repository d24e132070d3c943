"""Exactly the weights that a recipe names may move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import RecipeError
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.models.targets import find_tokens
from tunesmith.models.tuning import add_lora, apply_tuning, is_full, num_trainable
from tunesmith.recipe.tuning import Freeze, Full, Init, LoRA, Tuning

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {shape: tiny.make_model(root / shape, shape) for shape in tiny.SHAPES}
    made["deep"] = tiny.make_model(root / "deep", "qwen2", num_hidden_layers=12)
    return made


def tune(folder: Path, tuning: Tuning) -> torch.nn.Module:
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    return apply_tuning(model, tuning)


def opened(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names_of(folder: Path, choose: Callable[[str], bool] = lambda name: True) -> set[str]:
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    return {name for name, _ in model.named_parameters() if choose(name)}


def refusal(folder: Path, tuning: Tuning) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        tune(folder, tuning)
    return caught.value


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_full_tuning_opens_everything(folders: dict[str, Path], shape: str) -> None:
    model = tune(folders[shape], Full())
    assert opened(model) == names_of(folders[shape])
    assert num_trainable(model) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("shape", "layers", "expected"),
    [
        ("qwen3", 1, ("model.layers.1.",)),
        ("qwen3", -1, ("model.layers.0.",)),
        ("qwen3", 2, ("model.layers.0.", "model.layers.1.")),
        ("gpt2", 1, ("transformer.h.1.",)),
        ("deep", 2, ("model.layers.10.", "model.layers.11.")),
        ("deep", -2, ("model.layers.0.", "model.layers.1.")),
    ],
)
def test_freezing_opens_the_last_layers_or_the_first(
    folders: dict[str, Path], shape: str, layers: int, expected: tuple[str, ...]
) -> None:
    model = tune(folders[shape], Freeze(layers=layers))
    assert opened(model) == names_of(folders[shape], lambda name: name.startswith(expected))
    assert opened(model)


def test_freezing_opens_what_is_named(folders: dict[str, Path]) -> None:
    wanted = ("self_attn.v_proj", "layers.0.mlp")
    model = tune(folders["qwen3"], Freeze(names=wanted))
    expected = names_of(folders["qwen3"], lambda name: any(part in name for part in wanted))
    assert opened(model) == expected
    assert len(expected) == 2 + 3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("qwen3", {"model.embed_tokens.weight"}),
        ("llama", {"model.embed_tokens.weight", "lm_head.weight"}),
        ("gpt2", {"transformer.wte.weight"}),
    ],
)
def test_embeddings_and_head_are_opened_when_asked(
    folders: dict[str, Path], shape: str, expected: set[str]
) -> None:
    assert opened(tune(folders[shape], Freeze(layers=0, embeddings=True))) == expected


def test_embeddings_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    folder = tiny.make_model(
        tmp_path / "neox", "qwen2", model_type="gpt_neox", num_key_value_heads=None
    )
    model = tune(folder, Freeze(layers=0, embeddings=True))
    assert opened(model) == {"gpt_neox.embed_in.weight", "lm_head.weight"}


def test_embeddings_come_with_named_parameters(folders: dict[str, Path]) -> None:
    model = tune(folders["llama"], Freeze(names=("layers.1.mlp.up",), embeddings=True))
    assert opened(model) == {
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.1.mlp.up_proj.weight",
    }


def test_more_layers_than_there_are_is_refused(folders: dict[str, Path]) -> None:
    for layers in (3, -3):
        problem = refusal(folders["qwen3"], Freeze(layers=layers))
        assert problem.message == "the model has 2 layers, 3 are to be trained"
        assert problem.where == "tuning.layers"


def test_a_name_in_no_parameter_is_refused_with_a_near_one(folders: dict[str, Path]) -> None:
    problem = refusal(folders["qwen3"], Freeze(names=("v_proj", "self_attn.v_prj")))
    assert problem.message == "no parameter's name contains self_attn.v_prj"
    assert problem.hint == "did you mean self_attn.v_proj?"
    assert problem.where == "tuning.names"


def adapted(model: torch.nn.Module) -> set[str]:
    """Name the layers that have matrices of their own."""
    return {name.split(".lora_")[0] for name in opened(model)}


@pytest.mark.parametrize("shape", ["qwen3", "llama"])
def test_lora_on_all_linear_layers_spares_head_and_embeddings(
    folders: dict[str, Path], shape: str
) -> None:
    model = tune(folders[shape], LoRA(rank=4))
    assert all(".lora_A." in name or ".lora_B." in name for name in opened(model))
    layers = {name.removeprefix("base_model.model.") for name in adapted(model)}
    expected = names_of(folders[shape], lambda name: name.split(".")[-2] in LINEAR)
    assert layers == {name.rsplit(".", 1)[0] for name in expected if name.endswith("weight")}


def test_lora_on_all_linear_layers_knows_the_layers_of_gpt2(folders: dict[str, Path]) -> None:
    layers = {name.rsplit(".", 1)[-1] for name in adapted(tune(folders["gpt2"], LoRA(rank=2)))}
    assert layers == {"c_attn", "c_proj", "c_fc"}


def test_lora_on_named_layers_touches_no_other(folders: dict[str, Path]) -> None:
    model = tune(folders["qwen3"], LoRA(rank=4, targets=("q_proj", "layers.1.mlp.down_proj")))
    assert {name.removeprefix("base_model.model.model.") for name in adapted(model)} == {
        "layers.0.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
        "layers.1.mlp.down_proj",
    }


def test_lora_on_a_named_layer_of_gpt2(folders: dict[str, Path]) -> None:
    model = tune(folders["gpt2"], LoRA(rank=4, targets=("c_attn",)))
    assert len(adapted(model)) == 2


def test_rank_alpha_and_dropout_are_those_of_the_recipe(folders: dict[str, Path]) -> None:
    tuning = LoRA(rank=4, alpha=6, dropout=0.25, targets=("q_proj",))
    layer = tune(folders["qwen3"], tuning).get_submodule(
        "base_model.model.model.layers.0.self_attn.q_proj"
    )
    assert layer.lora_A["default"].weight.shape == (4, 32)
    assert layer.scaling["default"] == 6 / 4
    assert layer.lora_dropout["default"].p == 0.25


def test_alpha_is_twice_the_rank_unless_it_is_given(folders: dict[str, Path]) -> None:
    model = tune(folders["qwen3"], LoRA(rank=4, targets=("q_proj",)))
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert layer.scaling["default"] == 2.0


def test_a_new_adapter_changes_no_answer(folders: dict[str, Path]) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = tune(folders["qwen3"], Full()).eval()(input_ids=ids).logits
        adapted = tune(folders["qwen3"], LoRA(rank=4)).eval()(input_ids=ids).logits
    assert torch.equal(plain, adapted)


def test_matrices_are_kept_in_fp32_over_a_bf16_model(folders: dict[str, Path]) -> None:
    model = load_model(folders["qwen3"], dtype=torch.bfloat16, device=torch.device("cpu"))
    tuned = apply_tuning(model, LoRA(rank=4))
    assert {p.dtype for p in tuned.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in tuned.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("q_prj", "did you mean q_proj?"),
        ("query_key_value", "choose of down_proj, gate_proj, k_proj"),
        ("model.layers.9.self_attn.q_proj", "did you mean model.layers.1.self_attn.q_proj?"),
        ("oj", "choose of"),
        ("input_layernorm", "choose of"),
        ("self_attn", "choose of"),
    ],
)
def test_a_target_that_is_no_linear_layer_is_refused(
    folders: dict[str, Path], target: str, hint: str
) -> None:
    problem = refusal(folders["qwen3"], LoRA(rank=4, targets=("k_proj", target)))
    assert problem.message == f"no linear layer of the model is called {target}"
    assert problem.hint.startswith(hint)
    assert problem.where == "tuning.targets"


def test_no_target_at_all_is_refused(folders: dict[str, Path]) -> None:
    problem = refusal(folders["qwen3"], LoRA(rank=4, targets=()))
    assert "no linear layer is named" in problem.message
    assert problem.where == "tuning.targets"


def test_a_name_beside_all_linear_has_no_effect_and_is_refused(folders: dict[str, Path]) -> None:
    problem = refusal(folders["qwen3"], LoRA(rank=4, targets=("all-linear", "q_proj")))
    assert problem.message == "q_proj has no effect beside all-linear"
    assert problem.where == "tuning.targets"


def test_a_head_that_is_tied_to_the_embeddings_cannot_be_adapted(
    folders: dict[str, Path],
) -> None:
    problem = refusal(folders["qwen3"], LoRA(rank=4, targets=("q_proj", "lm_head")))
    assert problem.message == "lm_head cannot be adapted: it is one with the embeddings"
    assert len(adapted(tune(folders["llama"], LoRA(rank=4, targets=("lm_head",))))) == 1


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"target_pattern": "q_proj"}, "target_pattern", "whole name matches q_proj"),
        ({"target_pattern": "("}, "target_pattern", "is no regular expression"),
        ({"target_pattern": ".*head"}, "target_pattern", "one with the embeddings"),
        ({"rank_pattern": {"q": 3}}, "rank_pattern", "no adapted layer ends with q"),
        (
            {"targets": ("q_proj",), "alpha_pattern": {"v_proj": 3}},
            "alpha_pattern",
            "no adapted layer ends with v_proj",
        ),
        ({"modules": ("norms",)}, "modules", "no module of the model is called norms"),
        ({"modules": ("mlp",)}, "modules", "gate_proj in it is adapted"),
        ({"modules": ("lm_head",)}, "modules", "embeddings and head are one"),
        ({"modules": ("embed_tokens",)}, "modules", "embeddings and head are one"),
    ],
)
def test_what_a_model_does_not_have_or_cannot_do_is_refused(
    folders: dict[str, Path], options: dict[str, Any], where: str, message: str
) -> None:
    problem = refusal(folders["qwen3"], LoRA(**options))
    assert message in problem.message
    assert problem.where == f"tuning.{where}"


def test_olora_does_not_begin_with_transposed_weights(folders: dict[str, Path]) -> None:
    assert refusal(folders["gpt2"], LoRA(init="olora")).where == "tuning.init"


@pytest.mark.parametrize("shape", ["qwen3", "gpt2"])
@pytest.mark.parametrize("init", ["pissa", "pissa_niter", "olora", "orthogonal"])
def test_wherever_matrices_begin_the_model_says_what_it_said(
    folders: dict[str, Path], shape: str, init: Init
) -> None:
    if (shape, init) == ("gpt2", "olora"):
        return
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = tune(folders[shape], Full()).eval()(input_ids=ids).logits
        adapted = tune(folders[shape], LoRA(rank=4, init=init))
        assert all(bool(p.any()) for n, p in adapted.named_parameters() if "lora_" in n)
        torch.testing.assert_close(adapted.eval()(input_ids=ids).logits, plain)


@pytest.mark.parametrize("shape", ["qwen3", "llama"])
def test_trained_tokens_learn_as_the_whole_matrices_would(
    folders: dict[str, Path], shape: str
) -> None:
    model = load_model(folders[shape], dtype=torch.float32, device=torch.device("cpu"))
    tuned = apply_tuning(model, LoRA(rank=4), [5, 9])
    whole = tune(folders[shape], Full())
    assert find_layout(tuned).head is None
    ids = torch.tensor([[5, 6, 9, 8]])
    for each in (tuned, whole):
        each(input_ids=ids, labels=ids).loss.backward()
    rows = [p.grad for n, p in tuned.named_parameters() if "trainable_tokens_delta" in n]
    names = ["model.embed_tokens.weight", "lm_head.weight"][: len(rows)]
    assert len(rows) == (1 if shape == "qwen3" else 2)
    for row, name in zip(rows, names, strict=True):
        assert row is not None
        torch.testing.assert_close(row, whole.get_parameter(name).grad[[5, 9]])


def test_tokens_are_found_by_text_and_by_id(folders: dict[str, Path]) -> None:
    tokenizer = find_reader(folders["qwen3"]).tokenizer
    assert find_tokens(tokenizer, ("<|im_end|>", 7)) == [2, 7]
    for tokens in (("question and answer",), (400,), (-1,), (2, "<|im_end|>")):
        with pytest.raises(RecipeError) as caught:
            find_tokens(tokenizer, tokens)
        assert caught.value.where == "tuning.tokens"


def test_runs_of_full_and_frozen_tuning_save_whole_models() -> None:
    assert is_full(Full())
    assert is_full(Freeze())
    assert not is_full(LoRA())


@pytest.mark.parametrize(
    ("family", "layer", "beside"),
    [
        ("Llama 4", "router", "q_proj"),
        ("Phi MoE", "router", "q_proj"),
        ("Mamba", "out_proj", "in_proj"),
        ("Falcon H1", "out_proj", "o_proj"),
    ],
)
def test_layers_that_are_read_past_an_adapter_get_none(
    tmp_path: Path, family: str, layer: str, beside: str
) -> None:
    folder = tiny.make_model(tmp_path / "model", family)

    def load() -> Any:
        return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))

    adapted = add_lora(load(), LoRA(rank=2))
    names = [name for name, _ in adapted.named_parameters() if ".lora_A." in name]
    assert any(f".{beside}." in name for name in names)
    assert not any(f".{layer}." in name for name in names)
    with pytest.raises(RecipeError, match=f"{layer} cannot be adapted"):
        add_lora(load(), LoRA(rank=2, targets=(layer,)))
