"""Every optimizer of a recipe makes the step that its paper says, and holds what is estimated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from tests.unit.training.building import DECAY, RATE, build, recipe_of
from tunesmith.errors import MissingPackage, RecipeError
from tunesmith.models.load import load_model
from tunesmith.recipe.schema import describe_section
from tunesmith.training.optimizers import BUILDERS, packages_of
from tunesmith.training.optimizers.memory import REMEMBERED, count_memory
from tunesmith.training.optimizers.weights import list_weights

NAMES = list(describe_section("optimizer"))
EPS = 1e-8
QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
LAST = "model.layers.1.mlp.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
TOKENS = "model.embed_tokens.weight"
HEAD_ROWS = 16


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Matrices large enough to be remembered in 8 bits."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    return tiny.make_model(folder, hidden_size=64, intermediate_size=128)


@pytest.fixture
def model(wide_model: Path) -> nn.Module:
    return load_model(wide_model, dtype=torch.float32, device=torch.device("cpu"))


def fill_gradients(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Give every weight that learns a gradient, and return them in double precision."""
    torch.manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight) if weight.requires_grad else None
    return {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}


def exact(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().double() for name, weight in model.named_parameters()}


def decayed(name: str, weight: torch.Tensor) -> torch.Tensor:
    return weight if "norm" in name else weight * (1 - RATE * DECAY)


Step = Callable[[str, torch.Tensor, torch.Tensor, dict[str, Any]], torch.Tensor]
"""From name, weight, gradient and memory to the weight after one step."""


def adam(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    return decayed(name, weight) - RATE * gradient / (gradient.abs() + EPS)


def lion(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    return decayed(name, weight) - RATE * gradient.sign()


def adafactor(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    square = gradient**2
    if gradient.dim() == 2:
        rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
        square = rows @ columns / rows.mean()
    step = gradient / square.sqrt()
    step = step / max(1.0, float(step.norm() / step.numel() ** 0.5))
    return decayed(name, weight) - RATE * step


def sgd(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    return decayed(name, weight) - RATE * gradient


def muon(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    if gradient.dim() < 2 or name == TOKENS:
        return adam(name, weight, gradient, _)
    alone = nn.Parameter(weight.float())
    alone.grad = gradient.float()
    torch.optim.Muon(
        [alone], lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    ).step()
    return alone.detach().double()


def galore(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    if gradient.dim() < 2 or name == TOKENS:
        return adam(name, weight, gradient, _)
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    if gradient.shape[0] <= gradient.shape[1]:
        low = left[:, :4].T @ gradient
        step = left[:, :4] @ (low / (low.abs() + EPS))
    else:
        low = gradient @ right[:4].T
        step = low / (low.abs() + EPS) @ right[:4]
    return decayed(name, weight) - RATE * 0.25 * step


def apollo(
    name: str, weight: torch.Tensor, gradient: torch.Tensor, memory: dict[str, Any]
) -> torch.Tensor:
    if gradient.dim() < 2 or name == TOKENS:
        return adam(name, weight, gradient, memory)
    wide = gradient if gradient.shape[0] <= gradient.shape[1] else gradient.T
    directions = memory["projection"].double()
    low = directions.T @ wide
    step = low / (low.abs() + EPS)
    if directions.shape[1] > 1:
        longer, scale = step.norm(dim=0) / low.norm(dim=0), 1.0
    else:
        longer, scale = step.norm() / low.norm(), 11.3
    moved = scale * wide * longer
    return decayed(name, weight) - RATE * (moved if wide.shape == gradient.shape else moved.T)


def adam_mini(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    square = gradient**2
    if "q_proj" in name:
        heads = square.view(-1, HEAD_ROWS * gradient.shape[1]).mean(1)
        mean = heads.repeat_interleave(HEAD_ROWS)[:, None]
    elif gradient.dim() == 2:
        mean = square.mean(1, keepdim=True)
    else:
        mean = square.mean()
    return decayed(name, weight) - RATE * gradient / (mean.sqrt() + EPS)


def badam(name: str, weight: torch.Tensor, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    return adam(name, weight, gradient, _) if ".layers.0." in name else weight


STEPS: dict[str, Step] = {
    "adamw": adam,
    "adamw_8bit": adam,
    "lion": lion,
    "lion_8bit": lion,
    "adafactor": adafactor,
    "sgd": sgd,
    "muon": muon,
    "galore": galore,
    "apollo": apollo,
    "apollo_mini": apollo,
    "adam_mini": adam_mini,
    "schedule_free": adam,
    "badam": badam,
}
ONLY_ON_A_GPU = {"adamw_paged_8bit"}
OF_THE_KIND: dict[str, dict[str, Any]] = {
    "galore": {"rank": 4},
    "apollo": {"rank": 4},
    "sgd": {"momentum": 0.9},
}


def test_every_name_can_be_built_and_is_tested_here() -> None:
    assert set(NAMES) == set(BUILDERS) == {*REMEMBERED, "badam"} == {*STEPS, *ONLY_ON_A_GPU}


@pytest.mark.parametrize("name", STEPS)
def test_the_first_step_is_the_one_worked_by_hand(model: nn.Module, name: str) -> None:
    optimizer: Any = build(recipe_of(name, **OF_THE_KIND.get(name, {})), model)
    before, gradients = exact(model), fill_gradients(model)
    if name == "schedule_free":
        optimizer.train()
    optimizer.step()
    if name == "schedule_free":
        optimizer.eval()  # the average of one step is where it led
    after, weights = exact(model), dict(model.named_parameters())
    for weight in (QUERY, DOWN, LAST, NORM, TOKENS):
        memory = optimizer.state[weights[weight]]
        gradient = gradients.get(weight, torch.zeros_like(before[weight]))
        wanted = STEPS[name](weight, before[weight], gradient, memory)
        assert torch.allclose(after[weight], wanted, rtol=0, atol=2e-3 * RATE), weight


def test_a_second_step_of_galore_keeps_its_directions(model: nn.Module) -> None:
    optimizer = build(recipe_of("galore", rank=4, weight_decay=0), model)
    weight = dict(model.named_parameters())[DOWN]
    before = weight.detach().double()
    first, second = (fill_gradients(model, seed)[DOWN] for seed in (1, 2))
    for gradient in (first, second):
        weight.grad = gradient.float()
        optimizer.step()
    left = torch.linalg.svd(first, full_matrices=False)[0][:, :4]
    low = [left.T @ gradient for gradient in (first, second)]
    mean = (0.9 * 0.1 * low[0] + 0.1 * low[1]) / (1 - 0.9**2)
    square = (0.999 * 0.001 * low[0] ** 2 + 0.001 * low[1] ** 2) / (1 - 0.999**2)
    step = left @ (low[0].sign() + mean / (square.sqrt() + EPS))
    wanted = before - RATE * 0.25 * step
    assert torch.allclose(weight.detach().double(), wanted, rtol=0, atol=1e-3 * RATE)


def test_a_step_of_apollo_grows_by_a_hundredth_at_most(model: nn.Module) -> None:
    optimizer = build(recipe_of("apollo", rank=4, weight_decay=0), model)
    weight = dict(model.named_parameters())[DOWN]
    lengths = []
    for factor in (1.0, 1.0, 1.0):
        before = weight.detach().clone()
        weight.grad = factor * fill_gradients(model, len(lengths))[DOWN].float()
        optimizer.step()
        lengths.append(float((weight.detach() - before).norm()))
    assert lengths[1] <= 1.0101 * lengths[0]
    assert lengths[2] <= 1.0101 * lengths[1]


def test_random_projections_differ_by_matrix_and_change_in_time(model: nn.Module) -> None:
    optimizer = build(recipe_of("apollo", rank=4, project_every_steps=2), model)
    weights = dict(model.named_parameters())
    other = QUERY.replace("layers.0", "layers.1")
    seen = []
    for _ in range(3):
        fill_gradients(model)
        optimizer.step()
        seen.append([optimizer.state[weights[n]]["projection"].clone() for n in (QUERY, other)])
    assert not torch.equal(*seen[0])
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[1][0], seen[2][0])
    assert float(seen[0][0].square().mean()) == pytest.approx(1 / 4, rel=0.3)


def test_muon_steps_alike_in_all_directions(model: nn.Module) -> None:
    optimizer = build(recipe_of("muon", weight_decay=0), model)
    before = exact(model)[DOWN]
    fill_gradients(model)
    optimizer.step()
    strengths = torch.linalg.svdvals(exact(model)[DOWN] - before) / (RATE * 0.2 * 128**0.5)
    assert strengths.min() > 0.5
    assert strengths.max() < 1.5


@pytest.mark.parametrize("name", STEPS)
def test_what_an_optimizer_holds_is_what_was_counted(model: nn.Module, name: str) -> None:
    recipe = recipe_of(name, **OF_THE_KIND.get(name, {}))
    counted = count_memory(recipe, list_weights(model, recipe), 4)
    optimizer: Any = build(recipe, model)
    fill_gradients(model)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    assert counted.gradients == 4 * sum(weight.numel() for weight in learning)
    if name == "schedule_free":
        optimizer.train()
    optimizer.step()
    assert counted.held == pytest.approx(stored(optimizer), rel=0.02, abs=4096)
    if name == "schedule_free":
        optimizer.eval()
    assert counted.saved == pytest.approx(stored(optimizer), rel=0.02, abs=4096)


@pytest.mark.parametrize("shape", ["gpt2", "mixture", "gemma2", "mamba"])
def test_models_of_other_shapes_are_moved_or_refused(tmp_path: Path, shape: str) -> None:
    folder = tiny.make_model(tmp_path / shape, shape)
    refused = set()
    for name in STEPS:
        recipe = recipe_of(name, **OF_THE_KIND.get(name, {}))
        model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
        counted = count_memory(recipe, list_weights(model, recipe), 4)
        try:
            optimizer: Any = build(recipe, model)
        except RecipeError:
            refused.add(name)
            continue
        before = exact(model)
        fill_gradients(model)
        if name == "schedule_free":
            optimizer.train()
        optimizer.step()
        after = exact(model)
        still = {n for n in before if torch.equal(before[n], after[n])}
        assert not still or name == "badam", still
        assert counted.held == pytest.approx(stored(optimizer), rel=0.02, abs=4096), name
    assert refused == (set() if shape == "gemma2" else {"adam_mini"})


def stored(optimizer: torch.optim.Optimizer) -> int:
    tensors = [t for m in optimizer.state.values() for t in m.values() if torch.is_tensor(t)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def test_embeddings_are_remembered_exactly(model: nn.Module) -> None:
    optimizer = build(recipe_of("adamw_8bit"), model)
    fill_gradients(model)
    optimizer.step()
    weights = dict(model.named_parameters())
    assert optimizer.state[weights[TOKENS]]["state1"].dtype == torch.float32
    assert optimizer.state[weights[DOWN]]["state1"].dtype == torch.uint8


def test_layerwise_holds_one_gradient_at_a_time(model: nn.Module) -> None:
    recipe = recipe_of("sgd", layerwise=True, max_grad_norm=0)
    counted = count_memory(recipe, list_weights(model, recipe), 4)
    assert counted.held == 0
    assert counted.gradients_at_once == 4 * max(weight.numel() for weight in model.parameters())


def test_paging_is_refused_where_there_is_no_gpu(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match="this run has none") as caught:
        build(recipe_of("adamw_paged_8bit"), model)
    assert "adamw_8bit" in caught.value.hint


@pytest.mark.parametrize("name", ["muon", "galore", "apollo", "apollo_mini"])
def test_where_no_matrix_learns_nothing_can_be_saved_on_it(model: nn.Module, name: str) -> None:
    for weight_name, weight in model.named_parameters():
        weight.requires_grad_("norm" in weight_name)
    with pytest.raises(RecipeError, match="no matrix is trained"):
        build(recipe_of(name), model)


@pytest.mark.parametrize("name", ["adam_mini", "badam"])
def test_a_model_whose_parts_have_strange_names_is_refused(tmp_path: Path, name: str) -> None:
    class Strange(nn.Module):
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Embedding(3, 4), nn.Linear(4, 3)

        def get_input_embeddings(self) -> nn.Module:
            return self.one

        def get_output_embeddings(self) -> nn.Module:
            return self.two

    with pytest.raises(RecipeError, match=name):
        build(recipe_of(name), Strange())


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("bitsandbytes", "adam_mini", "schedulefree"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    for name in ("adamw_8bit", "lion", "adam_mini", "schedule_free"):
        with pytest.raises(MissingPackage, match="is not installed") as caught:
            packages_of(recipe_of(name))
        assert caught.value.hint == "pip install 'tunesmith[optim]'"
    assert packages_of(recipe_of("galore")) == ()
