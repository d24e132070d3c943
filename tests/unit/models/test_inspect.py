"""A folder that could run code is refused before any library acts on it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import ModelError
from tunesmith.models.adapter import check_base
from tunesmith.models.inspect import CONFIG_FILES, check_files, labels_of, read_config
from tunesmith.models.load import build_random_model, load_config, load_model
from tunesmith.models.tokenizer import load_tokenizer

CPU = torch.device("cpu")
HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("auto_map", {"auto_map": {"AutoModelForCausalLM": "canary.Model"}}),
    ("trust_remote_code", {"trust_remote_code": True}),
    ("attn_implementation", {"attn_implementation": "evil/kernel"}),
    ("_attn_implementation", {"_attn_implementation": "evil/kernel:function"}),
    ("_attn_implementation_internal", {"_attn_implementation_internal": "evil/kernel"}),
    ("attn_implementation", {"attn_implementation": {"text_config": "evil/kernel"}}),
    ("experts_implementation", {"experts_implementation": "evil/kernel"}),
    ("_experts_implementation", {"_experts_implementation": {"": "evil/kernel"}}),
    ("text_config._attn_implementation", {"text_config": {"_attn_implementation": "evil/kernel"}}),
    ("parts.auto_map", {"parts": [{"deep": 1}, {"auto_map": {"AutoConfig": "canary.Config"}}]}),
]


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy that a test may spoil, with a canary that no library may import."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    canary = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    for name in ("canary", "modeling_canary", "configuration_canary", "tokenization_canary"):
        (folder / f"{name}.py").write_text(canary + "class Model: pass\nclass Config: pass\n")
    return folder


def add(path: Path, fields: dict[str, Any]) -> None:
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **fields}), "utf-8")


@pytest.mark.parametrize("name", CONFIG_FILES)
@pytest.mark.parametrize(("field", "fields"), HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])
def test_a_field_that_asks_for_code_is_refused_in_every_config(
    model: Path, name: str, field: str, fields: dict[str, Any]
) -> None:
    add(model / name, fields)
    with pytest.raises(ModelError) as caught:
        check_files(model)
    assert caught.value.message == f"the field {field} asks for code from outside"
    assert caught.value.where == str(model / name)
    assert "remove the field" in caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_every_loader_refuses_and_the_canary_never_runs(
    model: Path, tmp_path: Path, name: str
) -> None:
    codes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    add(model / name, {"auto_map": {code: f"canary.{code}" for code in codes}})
    loaders = [
        lambda: load_model(model, dtype=torch.float32, device=CPU),
        lambda: build_random_model(model, dtype=torch.float32, device=CPU),
        lambda: load_tokenizer(model),
        lambda: load_config(model),
    ]
    for load in loaders:
        with pytest.raises(ModelError, match="auto_map"):
            load()
    assert not (tmp_path / "ran").exists()
    assert not [name for name in sys.modules if name.endswith("canary")]


def test_code_that_nothing_asks_for_is_left_alone(model: Path, tmp_path: Path) -> None:
    load_model(model, dtype=torch.float32, device=CPU)
    load_tokenizer(model)
    assert not (tmp_path / "ran").exists()


def test_the_canary_would_sing(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(model))
    __import__("canary")
    sys.modules.pop("canary")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": None, "trust_remote_code": False},
        {"auto_map": {}},
        {"attn_implementation": "sdpa", "_attn_implementation": None},
        {"_name_or_path": "Org/Name"},
    ],
    ids=range(4),
)
def test_harmless_values_of_these_fields_are_accepted(model: Path, fields: dict[str, Any]) -> None:
    add(model / "config.json", fields)
    assert check_files(model)["model_type"] == "qwen3"


def test_an_adapter_that_asks_for_code_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    add(tmp_path / "adapter_config.json", {"auto_mapping": None, "auto_map": {"a": "canary.A"}})
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ModelError, match="auto_map asks for code"):
        check_base(tmp_path, tiny_model)


def test_an_adapter_that_names_a_module_to_import_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    add(tmp_path / "adapter_config.json", {"megatron_config": {"a": 1}, "megatron_core": "canary"})
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ModelError, match="megatron_config asks for code"):
        check_base(tmp_path, tiny_model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "weights.ckpt"])
def test_a_folder_of_pickles_only_is_refused_by_name(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    torch.save({}, model / name)
    with pytest.raises(ModelError) as caught:
        load_model(model, dtype=torch.float32, device=CPU)
    assert f"the weights are a pickle ({name})" in caught.value.message
    assert "safetensors" in caught.value.hint


def test_a_pickle_beside_safetensors_is_never_opened(model: Path, tmp_path: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"no pickle at all")
    load_model(model, dtype=torch.float32, device=CPU)


def test_safetensors_of_another_name_never_lead_to_the_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "optimizer.safetensors")
    torch.save({}, model / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(model, dtype=torch.float32, device=CPU)


def test_a_folder_without_weights_says_what_is_missing(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        check_files(model)
    assert caught.value.message == "the folder holds no weights (*.safetensors)"
    assert "from_scratch" in caught.value.hint
    assert check_files(model, weights=False)["model_type"] == "qwen3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not readable as JSON"),
        (b"\xff\xfe{}", "not readable as JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" * 100_000, "not readable as JSON"),
    ],
    ids=range(5),
)
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_config(tmp_path / "config.json")
    assert caught.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("named", [["a", "b"], {"first": "a", "second": "b"}])
def test_labels_without_numbers_are_named(model: Path, named: Any) -> None:
    kinds = ["Qwen3ForSequenceClassification"]
    tiny.change_json(model / "config.json", architectures=kinds, id2label=named)
    with pytest.raises(ModelError, match="id2label"):
        labels_of(model)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        read_config(tmp_path / "config.json")


def test_an_unknown_architecture_is_named(model: Path) -> None:
    tiny.change_json(model / "config.json", model_type="canary")
    with pytest.raises(ModelError, match="'canary' is not a causal language model"):
        load_model(model, dtype=torch.float32, device=CPU)


def test_a_model_beside_an_adapter_never_leads_to_another_base(model: Path, tmp_path: Path) -> None:
    other = tiny.make_model(tmp_path / "other", seed=5)
    adapter = {"base_model_name_or_path": str(other), "peft_type": "LORA"}
    add(model / "adapter_config.json", adapter)
    with pytest.raises(ModelError, match="an adapter beside") as caught:
        load_model(model, dtype=torch.float32, device=CPU)
    assert "adapter_config.json" in caught.value.hint
