"""Weights load all of them or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests import tiny
from tunesmith.errors import ModelError
from tunesmith.models.load import (
    build_random_model,
    check_vocabulary,
    count_embeddings,
    load_config,
    load_model,
)

CPU = torch.device("cpu")
Weights = dict[str, torch.Tensor]
FIRST = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    return folder


@pytest.fixture
def sharded(model: Path) -> Path:
    """The same model in several files with an index."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size="50KB")
    assert len(list(model.glob("model-*.safetensors"))) > 2
    return model


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return load_model(folder, dtype=dtype, device=CPU)


def change_weights(folder: Path, change: Callable[[Weights], None]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.where.startswith(str(folder))
    assert caught.value.hint
    return caught.value


def test_a_whole_model_loads_with_the_very_weights_of_its_file(model: Path) -> None:
    stored = load_file(model / "model.safetensors")
    loaded = load(model).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    assert set(loaded) - set(stored) == {"lm_head.weight"}  # tied to the embeddings


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_every_shape_loads(tmp_path: Path, shape: str) -> None:
    loaded = load(tiny.make_model(tmp_path / shape, shape))
    assert count_embeddings(loaded) == 400


def test_weights_take_the_precision_that_is_asked_for(model: Path) -> None:
    assert {p.dtype for p in load(model, torch.bfloat16).parameters()} == {torch.bfloat16}
    tiny.change_json(model / "config.json", dtype="bfloat16")
    assert {p.dtype for p in load(model).parameters()} == {torch.float32}


def test_a_sharded_model_loads_the_same(sharded: Path, tiny_model: Path) -> None:
    whole, parts = load(tiny_model).state_dict(), load(sharded).state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_missing_shard_is_refused_by_its_name(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(sharded).message


def test_a_tensor_missing_from_its_shard_is_refused_by_its_name(sharded: Path) -> None:
    index = json.loads((sharded / "model.safetensors.index.json").read_text("utf-8"))
    shard = sharded / index["weight_map"][FIRST]
    weights = load_file(shard)
    del weights[FIRST]
    save_file(weights, shard, metadata={"format": "pt"})
    assert refusal(sharded).message == f"tensors are missing: {FIRST}"


@pytest.mark.parametrize("name", [FIRST, "model.norm.weight"])
def test_a_missing_tensor_is_refused_by_its_name(model: Path, name: str) -> None:
    change_weights(model, lambda weights: weights.pop(name))
    assert refusal(model).message == f"tensors are missing: {name}"


def test_a_tensor_too_many_is_refused_by_its_name(model: Path) -> None:
    change_weights(model, lambda weights: weights.update({"model.extra.weight": torch.ones(2)}))
    assert refusal(model).message == "tensors are not part of the model: model.extra.weight"


def test_a_layer_too_many_in_the_config_is_refused(model: Path) -> None:
    tiny.change_json(model / "config.json", num_hidden_layers=3, layer_types=None)
    problem = refusal(model)
    assert "tensors are missing: model.layers.2." in problem.message
    assert problem.message.endswith("and 10 more")
    assert "do not belong together" in problem.hint


def test_a_layer_too_few_in_the_config_is_refused(model: Path) -> None:
    tiny.change_json(model / "config.json", num_hidden_layers=1, layer_types=None)
    assert "not part of the model: model.layers.1." in refusal(model).message


def test_a_tensor_of_another_shape_is_refused_by_its_name(model: Path) -> None:
    change_weights(model, lambda weights: weights.update({FIRST: torch.ones(65, 32)}))
    problem = refusal(model)
    assert problem.message == f"tensors are of another shape: {FIRST} [65, 32]"
    assert "do not belong together" in problem.hint


def test_another_width_in_the_config_is_refused(model: Path) -> None:
    tiny.change_json(model / "config.json", intermediate_size=128)
    assert "of another shape" in refusal(model).message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(model: Path, share: float) -> None:
    path = model / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "copy the model folder again" in refusal(model).hint


def test_a_header_that_promises_too_much_is_refused(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    assert "cannot be loaded" in refusal(model).message


def test_missing_embeddings_are_refused(model: Path) -> None:
    change_weights(model, lambda weights: weights.pop("model.embed_tokens.weight"))
    assert "tensors are missing" in refusal(model).message


def test_untied_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "llama", "llama")
    change_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    assert refusal(folder).message == "tensors are missing: lm_head.weight"


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": -1},
        {"num_hidden_layers": None, "layer_types": ["a"]},
    ],
    ids=range(3),
)
def test_impossible_fields_are_refused(model: Path, fields: dict[str, object]) -> None:
    tiny.change_json(model / "config.json", **fields)
    assert refusal(model).message


def test_a_field_that_names_nothing_is_named(model: Path) -> None:
    tiny.change_json(model / "config.json", hidden_act="no_such_function")
    assert "'no_such_function' is unknown or missing" in refusal(model).message


@pytest.mark.parametrize("method", ["eetq", "fp8", "compressed-tensors"])
def test_quantized_weights_are_refused_by_their_kind(model: Path, method: str) -> None:
    tiny.change_json(model / "config.json", quantization_config={"quant_method": method})
    problem = refusal(model)
    assert f"the weights are quantized ({method})" in problem.message
    assert "original model" in problem.hint


def test_a_model_that_is_no_language_model_is_refused(model: Path) -> None:
    tiny.change_json(model / "config.json", model_type="vit")
    problem = refusal(model)
    assert "'vit' is not a causal language model" in problem.message


def test_random_weights_follow_the_seed_and_not_the_file(model: Path) -> None:
    (model / "model.safetensors").unlink()
    built = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        built.append(build_random_model(model, dtype=torch.float32, device=CPU).state_dict())
    assert torch.equal(built[0][FIRST], built[1][FIRST])
    assert not torch.equal(built[0][FIRST], built[2][FIRST])


def test_a_vocabulary_larger_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        check_vocabulary(tmp_path, 1_401, 1_400)
    assert caught.value.message == "the tokenizer has 1,401 tokens, the model 1,400 embeddings"
    check_vocabulary(tmp_path, 1_400, 1_400)


def test_a_config_is_read_as_its_architecture(model: Path) -> None:
    assert type(load_config(model)).__name__ == "Qwen3Config"
