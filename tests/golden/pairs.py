"""The same pairs, and the same moved model, for our methods and for TRL's trainers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith.data.prepare import prepare
from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import TokenRows
from tunesmith.methods.method import Joining, Method
from tunesmith.methods.reference import reference_logps
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.data import Data, Source
from tunesmith.recipe.tuning import LoRA

PAIRS = [
    {
        "instruction": f"question {n}",
        "input": " more" * n,
        "chosen": f"It is {n * 7}." + " word" * (n % 4),
        "rejected": "the lazy dog" + " jumps" * (n % 3),
    }
    for n in range(6)
]
HOW = Joining(flat=True)
QUIET: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "gradient_checkpointing": False,
    "disable_dropout": False,
}
DUMMY = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * len(PAIRS)
Gradients = dict[str, torch.Tensor]


def make_rows(tmp_path: Path, folder: Path) -> TokenRows:
    reader = find_reader(folder)
    data = Data(train=(Source(path=str(tiny.write_rows(tmp_path / "pairs.jsonl", PAIRS))),))
    learn = Learn("preference", history=False)
    return prepare(data, learn, reader.tokenizer, reader.template, seed=0).train


def parts(row: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """The tokens of question, chosen and rejected answer."""
    first, second = row["answers"]
    ids = row["input_ids"]
    return ids[:first], ids[first:second], ids[second:]


def as_trl(rows: Iterable[dict[str, Any]]) -> list[dict[str, list[int]]]:
    """The same tokens as TRL's collator of pairs takes them."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [dict(zip(names, parts(row), strict=True)) for row in rows]


def moved(model: Any, part: str) -> None:
    """Move weights, so that the policy is not the reference any more."""
    draw = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if part in name:
            weight.data += 0.05 * torch.randn(weight.shape, generator=draw)


def make_models(folder: Path, tuning: str) -> tuple[Any, Any, Any]:
    """The base, our model, and TRL's, which equals it."""
    base = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    mine, theirs = copy.deepcopy(base), copy.deepcopy(base)
    if tuning == "lora":
        options = LoRA(rank=2, targets=("q_proj", "down_proj"))
        mine, theirs = add_lora(mine, options), add_lora(theirs, options)
        theirs.load_state_dict(mine.state_dict())
    return base, mine, theirs


def learn_once(
    method: Method, model: Any, rows: list[dict[str, Any]], tuning: str
) -> tuple[torch.Tensor, dict[str, float], Gradients]:
    """Our loss, measures and gradients; what a reference says is said before the model moves."""
    if method.needs_reference:
        logps = reference_logps(model, method, Rows(rows), how=HOW, tokens=50)  # type: ignore[arg-type]
        assert logps is not None
        rows = [{**row, "reference": one.tolist()} for row, one in zip(rows, logps, strict=True)]
    moved(model, "lora_" if tuning == "lora" else "")
    summed = method.loss(model, method.collate(rows, HOW))
    assert summed.count == len(rows)
    loss = summed.total / summed.count
    loss.backward()
    measures = {name: float(value) / summed.count for name, value in summed.measures.items()}
    return loss.detach(), measures, gradients(model)


def one_by_one(
    loss_of: Callable[[dict[str, Any]], torch.Tensor], rows: list[dict[str, Any]], model: Any
) -> tuple[torch.Tensor, Gradients]:
    """TRL's loss, each row a batch of its own, averaged, and the gradients."""
    losses = []
    for row in rows:
        loss = loss_of(row) / len(rows)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum(), gradients(model)


def gradients(model: Any) -> Gradients:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def check_same(
    mine: tuple[torch.Tensor, Gradients], theirs: tuple[torch.Tensor, Gradients]
) -> None:
    torch.testing.assert_close(mine[0], theirs[0], rtol=2e-6, atol=1e-7)
    assert mine[1].keys() == theirs[1].keys()
    for name, one in theirs[1].items():
        differs = torch.linalg.vector_norm(mine[1][name] - one)
        assert differs <= 1e-5 * torch.linalg.vector_norm(one), name


class Rows:
    """Rows as the reference takes them."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        import numpy as np

        self.rows = rows
        self.lengths = np.array([len(row["input_ids"]) for row in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row]
