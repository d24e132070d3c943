"""Pairs that show images, on positions that turn by length, equal new models of transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForMultimodalLM

from tests import seeing
from tests.golden.pairs import Rows, moved
from tests.golden.seen_pairs import (
    CHOSEN,
    REJECTED,
    Theirs,
    check_same,
    gradients,
    logps_of,
    theirs_of,
    write_pairs,
)
from tests.golden.test_transformers_seen_pairs import learn_once, load, read_rows
from tunesmith.methods import build_method
from tunesmith.methods.method import Joining
from tunesmith.methods.reference import reference_logps
from tunesmith.models.layout import find_layout
from tunesmith.recipe.method import DPO, SimPO

BETA, SHORT = 0.3, 24
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
STILL = {"rope_type": "default", "rope_theta": 1e4}
FAMILIES: dict[str, dict[str, Any]] = {
    "LLaVA": DYNAMIC,
    "Gemma 3": {"full_attention": DYNAMIC, "sliding_attention": STILL},
}
pytestmark = pytest.mark.proof


def forgetful(model: Any) -> Callable[[Theirs], torch.Tensor]:
    """Ask a model as if it had seen no text before: transformers turns on as the last text did."""
    parts = [
        (parent, name, copy.deepcopy(part))
        for parent in model.modules()
        for name, part in parent._modules.items()
        if "inv_freq" in name or "RotaryEmbedding" in type(part).__name__
    ]
    assert parts

    def ask(row: Theirs) -> torch.Tensor:
        for parent, name, part in parts:
            parent._modules[name] = copy.deepcopy(part)
        return logps_of(model, row)

    return ask


def cut(row: Theirs) -> Theirs:
    """Leave the newline out that the template writes behind an answer: it makes a text longer."""
    end, length = row.span[1], row.given["input_ids"].shape[1]
    texts = {name: value for name, value in row.given.items() if value.shape[-1] == length}
    shorter = {name: value[:, :end] for name, value in texts.items()}
    return Theirs({**row.given, **shorter}, row.span)


@pytest.mark.parametrize("loss", ["dpo", "simpo"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_of_a_pair_turns_by_its_own_length(
    tmp_path: Path, family: str, loss: str
) -> None:
    folder = seeing.make_seeing_model(
        tmp_path / "model",
        family,
        max_position_embeddings=SHORT,
        rope_parameters=FAMILIES[family],
        initializer_range=0.1,
    )
    _, mine, _, reader = load(folder)
    base, theirs = (
        AutoModelForMultimodalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        for _ in range(2)
    )
    method = build_method(DPO(beta=BETA) if loss == "dpo" else SimPO(beta=2.0, gamma=1.0))
    rows = read_rows(method, reader, write_pairs(tmp_path))
    layout = find_layout(mine)
    assert not layout.shared
    pairs = [
        [cut(theirs_of(reader, number, answer)) for answer in both]
        for number, both in enumerate(zip(CHOSEN, REJECTED, strict=True))
    ]
    lengths = [row.given["input_ids"].shape[1] for pair in pairs for row in pair]
    assert min(lengths) < SHORT < max(lengths)
    ways = [Joining(flat=flat, shared=False) for flat in {layout.is_flat, False}]
    if loss == "dpo":
        known = reference_logps(mine, method, Rows(rows), how=ways[0], tokens=90)  # type: ignore[arg-type]
        assert known is not None
        rows = [{**row, "reference": one.tolist()} for row, one in zip(rows, known, strict=True)]
    for each in (mine, theirs):
        moved(each, "")
    ask, ask_base = forgetful(theirs), forgetful(base)
    losses = []
    for pair in pairs:
        one, other = (ask(row) for row in pair)
        if loss == "simpo":
            losses.append(-logsigmoid(2.0 * (one.mean() - other.mean()) - 1.0))
            continue
        with torch.no_grad():
            before = [ask_base(row).sum() for row in pair]
        losses.append(-logsigmoid(BETA * (one.sum() - before[0] - other.sum() + before[1])))
    expected = torch.stack(losses).mean()
    expected.backward()
    for how in ways:
        found = learn_once(method, mine, rows, how)
        check_same((found, gradients(mine)), (expected.detach(), gradients(theirs)))
