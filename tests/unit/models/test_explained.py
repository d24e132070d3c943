"""EVA begins where inputs differ most, and gives ranks to where they explain most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights

from tests import tiny
from tunesmith.models.explained import Spread, adapted_layers, begin_in, share_ranks
from tunesmith.models.load import load_model
from tunesmith.models.roles import Roles, load_reader, load_roles
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.tuning import LoRA
from tunesmith.training.beginning import find_directions
from tunesmith.training.prepare import Prepared, prepare_run

RANK = 4


def draw(width: int = 24) -> np.ndarray[Any, Any]:
    """Draw inputs whose directions differ in length, around a mean far away."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(width, width)))[0]
    lengths = 2.0 ** -np.arange(width)
    return (random.normal(size=(300, width)) * lengths) @ turn + 5 * random.normal(size=width)


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the cosines of the angles between two subspaces (Björck & Golub 1973)."""
    bases = [torch.linalg.qr(each.double().t())[0] for each in (one, other)]
    return torch.linalg.svdvals(bases[0].t() @ bases[1])


@pytest.mark.parametrize("pieces", [1, 2, 30, 150])
def test_directions_and_shares_are_those_of_all_inputs_at_once(pieces: int) -> None:
    inputs = draw()
    spread = Spread(12)
    for part in np.array_split(inputs, pieces):
        spread.add(torch.from_numpy(part))
    centred = inputs - inputs.mean(axis=0)
    _, lengths, exact = np.linalg.svd(centred, full_matrices=False)
    shares = lengths**2 / np.sum(centred**2)
    assert spread.shares()[:6] == pytest.approx(shares[:6].tolist(), rel=1e-3)
    assert spread.count == len(inputs)
    found = spread.directions()[:6].double().numpy()
    assert np.abs((found * exact[:6]).sum(axis=1)) == pytest.approx(1.0, abs=1e-4)


def test_directions_that_are_not_there_are_not_made_up() -> None:
    spread = Spread(8)
    spread.add(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]))
    spread.add(torch.tensor([[1.0, 0.0, 4.0]]))
    assert spread.directions().shape == (2, 3)
    assert sum(spread.shares()) == pytest.approx(1.0)


def test_ranks_go_to_where_they_explain_most() -> None:
    shares = {"a": [0.9, 0.05, 0.01], "b": [0.4, 0.3, 0.2], "c": [0.1, 0.1, 0.1]}
    assert share_ranks(shares, budget=6, most=4) == {"a": 1, "b": 3, "c": 2}
    assert share_ranks(shares, budget=6, most=2) == {"a": 2, "b": 2, "c": 2}
    assert share_ranks(shares, budget=3, most=3) == {"a": 1, "b": 2, "c": 0}


def prepare(folder: Path, model: Path, **tuning: Any) -> tuple[Prepared, Roles]:
    data = tiny.write_pairs(folder / "pairs.jsonl", 12)
    given = {"kind": "lora", "rank": RANK, "init": "eva", "eva_rows": 12, **tuning}
    recipe = load_recipe(tiny.write_recipe(folder / "r.json", model, data, tuning=given))
    return prepare_run(recipe), load_roles(recipe, load_reader(recipe))


def test_it_begins_as_pefts_own_which_goes_round_until_all_settle(
    tmp_path: Path, tiny_model: Path
) -> None:
    prepared, roles = prepare(tmp_path, tiny_model)
    rows = prepared.splits.train
    tuning = prepared.recipe.tuning
    assert isinstance(tuning, LoRA)
    ours = find_directions(prepared, roles, tuning)
    base = load_model(tiny_model, dtype=torch.float32, device=torch.device("cpu"))
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules="all-linear",
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=2.0, tau=0.999),
        task_type="CAUSAL_LM",
    )
    theirs: Any = get_peft_model(base, config, low_cpu_mem_usage=True)
    batches = [{"input_ids": torch.tensor([rows[n]["input_ids"]])} for n in range(len(rows))]
    initialize_lora_eva_weights(theirs, batches, show_progress_bar=False)
    layers = adapted_layers(theirs).items()
    found = {name: layer.lora_A["default"].weight.detach() for name, layer in layers}
    assert sum(map(len, ours.values())) == sum(map(len, found.values())) == 14 * RANK
    assert {name: len(each) for name, each in ours.items()} == {
        name: len(each) for name, each in found.items()
    }
    for name, each in ours.items():
        few = len(each) - 1  # the last may change places with the next
        assert float(cosines(each[:few], found[name]).min()) > 0.99, name


@pytest.mark.parametrize("option", ["rslora", "dora"])
def test_what_is_begun_adds_nothing_and_scales_as_before(
    tmp_path: Path, tiny_model: Path, option: str
) -> None:
    given = {option: True, "alpha_pattern": {"q_proj": 3}}
    prepared, roles = prepare(tmp_path, tiny_model, **given)
    policy: Any = roles.policy
    ids = torch.arange(5, 25)[None]
    before = policy(input_ids=ids).logits
    scales = {name: layer.scaling["default"] for name, layer in adapted_layers(policy).items()}
    tuning = prepared.recipe.tuning
    assert isinstance(tuning, LoRA)
    directions = find_directions(prepared, roles, tuning)
    left_out = sorted(directions)[0]
    del directions[left_out]
    begin_in(policy, directions)
    layers = adapted_layers(policy)
    assert layers.keys() == directions.keys()
    assert len({len(found) for found in directions.values()}) > 1
    for name, layer in layers.items():
        assert layer.scaling["default"] == scales[name]
        assert layer.lora_B["default"].weight.shape[1] == len(directions[name])
        assert torch.equal(layer.lora_A["default"].weight, directions[name])
    torch.testing.assert_close(policy(input_ids=ids).logits, before)
    again: Any = add_lora(
        load_model(tiny_model, dtype=torch.float32, device=torch.device("cpu")), LoRA()
    )
    config = policy.peft_config["default"]
    plain = get_peft_model(again.unload(), config)
    expected = {name: layer.scaling["default"] for name, layer in adapted_layers(plain).items()}
    assert expected == pytest.approx({name: scales[name] for name in layers})
    shapes = {name: weight.shape for name, weight in plain.named_parameters()}
    assert shapes == {name: weight.shape for name, weight in policy.named_parameters()}
