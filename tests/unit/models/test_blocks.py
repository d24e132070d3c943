"""New blocks change nothing at first, learn, and make a plain model with more layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny
from tunesmith.errors import RecipeError
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_config, load_model
from tunesmith.models.tuning import apply_tuning
from tunesmith.recipe.tuning import Freeze, LlamaPro

IDS = torch.arange(3, 33)[None]
ROW = "num_hidden_layers"


def load(folder: Path) -> Any:
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(input_ids=IDS).logits
    return out


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {}),
        ("gemma2", {"layer_types": ["sliding_attention", "full_attention"] * 2}),
        (
            "gemma3",
            {"layer_types": [*["sliding_attention"] * 2, "full_attention", "sliding_attention"]},
        ),
    ],
)
def test_new_blocks_say_nothing_and_learn(tmp_path: Path, shape: str, kinds: Any) -> None:
    folder = tiny.make_model(tmp_path / "m", shape, num_hidden_layers=4, **kinds)
    base, model = load(folder), load(folder)
    with torch.no_grad():  # norms of random models all begin alike
        for one, other in zip(base.parameters(), model.parameters(), strict=True):
            if one.dim() == 1:
                other.copy_(one.add_(torch.linspace(-0.2, 0.2, len(one))))
    tuned: Any = apply_tuning(model, LlamaPro(blocks=2))
    assert torch.equal(logits(tuned), logits(base))
    assert find_layout(tuned).is_flat == find_layout(base).is_flat
    opened = {name.split(".")[2] for name, w in tuned.named_parameters() if w.requires_grad}
    assert opened == {"2", "5"}
    loss = tuned(input_ids=IDS, labels=IDS).loss
    loss.backward()
    trained = [w for w in tuned.parameters() if w.requires_grad]
    moves = torch.optim.SGD(trained, lr=0.1)
    assert sum(float(w.grad.abs().sum()) for w in trained if w.grad is not None) > 0
    moves.step()
    after = logits(tuned)
    assert not torch.equal(after, logits(base))
    assert cross_entropy(after[0, :-1], IDS[0, 1:]) < loss.detach()
    tuned.save_pretrained(str(tmp_path / "out"))
    assert AutoConfig.from_pretrained(str(tmp_path / "out")).num_hidden_layers == 6
    plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"), dtype=torch.float32)
    assert torch.equal(logits(plain), after)
    config: Any = plain.config
    if kinds:
        old = kinds["layer_types"]
        assert list(config.layer_types) == [*old[:2], old[1], *old[2:], old[3]]
    with torch.no_grad():
        given = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        assert torch.equal(tuned.generate(IDS, **given), plain.generate(IDS, **given))


def test_blocks_lie_evenly_where_their_number_does_not_divide(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "m", "llama", num_hidden_layers=5)
    tuned: Any = apply_tuning(load(folder), LlamaPro(blocks=2))
    opened = {name.split(".")[2] for name, w in tuned.named_parameters() if w.requires_grad}
    assert opened == {"2", "6"}


@pytest.mark.parametrize("shape", ["gpt2", "routed", "mamba"])
def test_other_blocks_are_refused(tmp_path: Path, shape: str) -> None:
    folder = tiny.make_model(tmp_path / "m", shape)
    with pytest.raises(RecipeError, match="cannot be silenced"):
        apply_tuning(load(folder), LlamaPro())


def test_more_blocks_than_there_are_are_refused(tiny_model: Path) -> None:
    with pytest.raises(RecipeError, match="2 blocks"):
        apply_tuning(load(tiny_model), LlamaPro(blocks=3))


def test_shapes_alone_are_enough(tiny_model: Path) -> None:
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(load_config(tiny_model))
        tuned: Any = apply_tuning(model, LlamaPro(blocks=1))
    assert len(tuned.model.layers) == 3


def test_layers_spread_as_new_blocks_lie(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "m", "llama", num_hidden_layers=6)
    pro: Any = apply_tuning(load(tiny.make_model(tmp_path / "n", "llama", num_hidden_layers=4)),
                            LlamaPro(blocks=2))  # fmt: skip
    model: Any = apply_tuning(load(folder), Freeze(layers=2, spread=True))
    opened, wanted = (
        {name for name, w in each.named_parameters() if w.requires_grad} for each in (model, pro)
    )
    assert opened == wanted
    with pytest.raises(RecipeError, match="evenly"):
        apply_tuning(load(folder), Freeze(layers=4, spread=True))
