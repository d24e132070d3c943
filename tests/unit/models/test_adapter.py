"""An adapter loads on the base it was trained on, every tensor of it, or not at all."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tunesmith.errors import ModelError
from tunesmith.models.adapter import (
    BELONGS_TO,
    WEIGHTS,
    check_base,
    check_beneath,
    load_adapter,
    note_base,
)
from tunesmith.models.beneath import Beneath
from tunesmith.models.fingerprint import tokenizer_sha256, weights_sha256
from tunesmith.models.load import load_model
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.tuning import LoRA


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    return make_adapter(folder, base, targets=("q_proj", "o_proj", "down_proj"))


@pytest.fixture
def adapter(tmp_path: Path, made: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def load(folder: Path) -> Any:
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def make_adapter(folder: Path, base: Path, **options: object) -> Path:
    torch.manual_seed(1)
    tuned = add_lora(load(base), LoRA(rank=4, **options))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(str(folder))
    note_base(folder, base=base, sha256=weights_sha256(base))
    return folder


def claim(adapter: Path, base: Path) -> None:
    """Let an adapter say that it belongs to `base`."""
    note_base(adapter, base=base, sha256=weights_sha256(base))


def refusal(adapter: Path, base: Path) -> ModelError:
    model = load(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT only warns of what must be refused
        with pytest.raises(ModelError) as caught:
            load_adapter(model, adapter, base)
    assert str(adapter) in caught.value.where
    return caught.value


def change_weights(adapter: Path, keep: slice, **extra: torch.Tensor) -> None:
    weights = load_file(adapter / WEIGHTS)
    kept = {name: weights[name] for name in sorted(weights)[keep]}
    save_file({**kept, **extra}, adapter / WEIGHTS, metadata={"format": "pt"})


def test_an_adapter_loads_on_its_own_base_and_changes_its_answers(
    adapter: Path, base: Path
) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = load(base)(ids).logits
        adapted = load_adapter(load(base), adapter, base)(ids).logits
    assert (plain - adapted).abs().max() > 1e-4


def test_every_tensor_of_the_file_is_in_the_loaded_adapter(adapter: Path, base: Path) -> None:
    loaded = load_adapter(load(base), adapter, base).state_dict()
    for name, tensor in load_file(adapter / WEIGHTS).items():
        inside = name.replace(".weight", ".default.weight")
        assert torch.equal(loaded[inside], tensor), name


def test_a_base_elsewhere_with_the_same_weights_is_accepted(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(base, tmp_path / "moved"))
    load_adapter(load(moved), adapter, moved)


def test_another_base_of_the_same_shape_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = tiny.make_model(tmp_path / "other", seed=9)
    problem = refusal(adapter, other)
    assert "trained on another base: the weights differ" in problem.message
    assert str(other) in problem.where


def test_a_base_of_which_one_bit_changed_is_refused(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(base, tmp_path / "changed"))
    content = bytearray((changed / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (changed / "model.safetensors").write_bytes(content)
    assert "the weights differ" in refusal(adapter, changed).message


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ("llama", {}),
        ("gpt2", {}),
        ("qwen3", {"num_hidden_layers": 3}),
        ("qwen3", {"num_hidden_layers": 1}),
        ("qwen3", {"hidden_size": 64}),
        ("qwen3", {"intermediate_size": 128}),
    ],
    ids=["llama", "gpt2", "deeper", "shallower", "wider", "wider inside"],
)
def test_another_shape_is_refused_even_if_the_adapter_claims_it(
    adapter: Path, tmp_path: Path, shape: str, changes: dict[str, int]
) -> None:
    other = tiny.make_model(tmp_path / "other", shape, **changes)
    claim(adapter, other)
    assert refusal(adapter, other).hint


@pytest.mark.parametrize("keep", [slice(0, None, 2), slice(1, None), slice(0)])
def test_a_part_of_the_tensors_is_refused(adapter: Path, base: Path, keep: slice) -> None:
    change_weights(adapter, keep)
    problem = refusal(adapter, base)
    assert problem.message.startswith("tensors of the adapter are missing: base_model.model.")


def test_a_tensor_too_many_is_refused_by_its_name(adapter: Path, base: Path) -> None:
    change_weights(adapter, slice(None), extra=torch.ones(2, 2))
    assert refusal(adapter, base).message == "tensors of the adapter are left over: extra"


def test_a_tensor_of_another_shape_is_refused(adapter: Path, base: Path) -> None:
    name = min(load_file(adapter / WEIGHTS))
    change_weights(adapter, slice(None), **{name: torch.ones(3, 3)})
    assert name.removesuffix(".weight") in refusal(adapter, base).message


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", BELONGS_TO])
def test_a_missing_file_is_named(adapter: Path, base: Path, name: str) -> None:
    (adapter / name).unlink()
    problem = refusal(adapter, base)
    assert name in problem.message
    assert "copy" in problem.hint


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", BELONGS_TO])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_file_cut_short_is_refused(adapter: Path, base: Path, name: str, share: float) -> None:
    content = (adapter / name).read_bytes()
    (adapter / name).write_bytes(content[: int(len(content) * share)])
    assert str(adapter / name) in refusal(adapter, base).where


def test_a_note_of_another_form_is_refused(adapter: Path, base: Path) -> None:
    (adapter / BELONGS_TO).write_text(json.dumps(["base"]), "utf-8")
    assert "the note about the adapter's base is damaged" in refusal(adapter, base).message


@pytest.mark.parametrize("kind", ["CANARY", "PROMPT_TUNING", None])
def test_a_kind_that_is_not_put_on_a_base_is_refused_by_name(
    adapter: Path, base: Path, kind: str | None
) -> None:
    tiny.change_json(adapter / "adapter_config.json", peft_type=kind, num_virtual_tokens=3)
    assert f"of the kind {kind}" in refusal(adapter, base).message
    with pytest.raises(ModelError, match=f"of the kind {kind}"):
        check_beneath(base, Beneath((adapter,)))


def test_a_damaged_adapter_is_refused_before_it_is_added(adapter: Path, base: Path) -> None:
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="the adapter is damaged"):
        check_beneath(base, Beneath((adapter,)))


def test_a_pickled_adapter_is_refused(adapter: Path, base: Path) -> None:
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    assert WEIGHTS in refusal(adapter, base).message


def test_a_base_that_asks_for_code_is_refused_with_its_adapter(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    hostile = Path(shutil.copytree(base, tmp_path / "hostile"))
    tiny.change_json(hostile / "config.json", auto_map={"AutoConfig": "canary.Config"})
    with pytest.raises(ModelError, match="auto_map"):
        check_base(adapter, hostile)


def test_fingerprints_see_content_and_not_names(base: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(base, tmp_path / "other name"))
    assert weights_sha256(copied) == weights_sha256(base)
    assert tokenizer_sha256(copied) == tokenizer_sha256(base)
    tiny.change_json(copied / "tokenizer_config.json", chat_template="changed")
    assert weights_sha256(copied) == weights_sha256(base)
    assert tokenizer_sha256(copied) != tokenizer_sha256(base)
    tiny.change_json(copied / "config.json", rms_norm_eps=1e-3)
    assert weights_sha256(copied) != weights_sha256(base)
