"""dft, eaft and asft equal what others compute from all logits, in value and in gradient."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from tests import tiny
from tests.golden.answers import make_rows, padded_logits
from tests.golden.pairs import HOW, QUIET, check_same, gradients, make_models, moved
from tests.golden.test_trl import ROWS
from tunesmith.methods import build_method
from tunesmith.methods.divergence import divergences
from tunesmith.methods.sft_losses import entropy_weights, probability_weights
from tunesmith.models import head as heads
from tunesmith.models.compared import Other, Terms, compared_loss
from tunesmith.models.head import Head, Targets, Weighing, summed_loss
from tunesmith.models.reader import find_reader
from tunesmith.recipe.method import SFT


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_POSITIONS", 5)
    monkeypatch.setattr(heads, "CHUNK_BYTES", 0)


def wave(rows: int, vocab: int, speed: float) -> torch.Tensor:
    numbers = torch.arange(rows * vocab, dtype=torch.float32)
    return 3.0 * torch.sin(speed * numbers).view(rows, vocab)


THEIRS = {
    "dft": (probability_weights, 0.07691308110952377),
    "eaft": (partial(entropy_weights, power=1.0), 4.772327899932861),
    "eaft squared": (partial(entropy_weights, power=2.0), 4.3370137214660645),
}
"""What LLaMA-Factory 0.9.5 computes of the waves."""
LEARNED = torch.tensor([1, 2, 3, 4, 5, 7, 8, 9, 10, 11])
TARGETS = torch.tensor([3, 17, 5, 39, 0, 8, 22, 31, 1, 1])
ITSELF = Head(torch.nn.Identity())


@pytest.mark.parametrize(("weigh", "theirs"), THEIRS.values(), ids=THEIRS)
def test_tokens_count_as_in_llamafactory(weigh: Weighing, theirs: float) -> None:
    logits = wave(13, 40, 0.7)[LEARNED]
    plain = Head(torch.nn.Linear(40, 40, bias=False))
    torch.nn.init.eye_(plain.module.weight)  # type: ignore[arg-type]
    for head in (ITSELF, plain):  # two ways to compute
        mine = summed_loss(head, logits, Targets(TARGETS, weigh=weigh)) / len(TARGETS)
        assert mine.item() == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("weight", "theirs"), [(0.1, 0.31945598125457764), (0.5, 1.28962755203)])
def test_an_anchor_weighs_as_in_llamafactory(weight: float, theirs: float) -> None:
    logits, before = wave(13, 40, 0.7)[LEARNED], wave(13, 40, 0.9)[LEARNED]
    wanted = Targets(TARGETS, weigh=probability_weights)
    terms = Terms(divergences, imitation=1.0, distance=weight)
    mine = compared_loss(ITSELF, logits, Other(before, ITSELF), wanted, terms)
    assert mine.total.item() / len(TARGETS) == pytest.approx(theirs, rel=1e-5)


def plain_loss(logits: torch.Tensor, labels: torch.Tensor, loss: str) -> torch.Tensor:
    """DFT and EAFT as their papers write them, of the learned tokens."""
    learned = labels != -100
    losses = cross_entropy(logits[learned], labels[learned], reduction="none")
    if loss == "eaft":
        likeliest = logits[learned].detach().topk(20, dim=-1).values
        entropy = torch.distributions.Categorical(logits=likeliest).entropy()
        return (losses * entropy / 3.0).mean()
    return (losses * (-losses.detach()).exp()).mean()


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("loss", ["dft", "eaft", "asft"])
def test_gradients_equal_those_of_all_logits(tmp_path: Path, loss: Any, tuning: str) -> None:
    folder = tiny.make_model(tmp_path / "model")
    rows = make_rows(tmp_path, folder)
    base, mine, theirs = make_models(folder, tuning)
    base.requires_grad_(False)
    options = SFT(loss=loss, anchor_weight=0.7)
    method = build_method(options).beside(base if tuning == "full" else None)
    for model in (mine, theirs):
        moved(model.train(), "lora_" if tuning == "lora" else "")
    summed = method.loss(mine, method.collate(rows, HOW))
    found = summed.total / summed.count
    found.backward()

    logits, labels = padded_logits(theirs, rows)
    expected = plain_loss(logits, labels, loss)
    if loss == "asft":
        learned = labels != -100
        before = padded_logits(base, rows)[0][learned].softmax(dim=-1)
        log_p = logits[learned].log_softmax(dim=-1)
        expected = expected + 0.7 * kl_div(log_p, before, reduction="batchmean")
    expected.backward()
    check_same((found.detach(), gradients(mine)), (expected.detach(), gradients(theirs)))


def test_a_head_that_is_adapted_is_switched_off_for_what_was_before(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", "untied")
    rows = make_rows(tmp_path, folder)
    from tunesmith.models.load import load_model
    from tunesmith.models.tuning import add_lora
    from tunesmith.recipe.tuning import LoRA

    base: Any = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    options = LoRA(rank=2, targets=("q_proj", "lm_head"), freeze_a=True)
    mine, theirs = (add_lora(copy.deepcopy(base), options) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    for model in (mine, theirs):
        moved(model.train(), "lora_")
    frozen = {name for name, weight in mine.named_parameters() if not weight.requires_grad}
    method = build_method(SFT(loss="asft", anchor_weight=0.7))
    summed = method.loss(mine, method.collate(rows, HOW))
    (summed.total / summed.count).backward()
    assert {name for name, weight in mine.named_parameters() if not weight.requires_grad} == frozen

    logits, labels = padded_logits(theirs, rows)
    learned = labels != -100
    before = padded_logits(base, rows)[0][learned].softmax(dim=-1).detach()
    divergence = kl_div(logits[learned].log_softmax(dim=-1), before, reduction="batchmean")
    expected = plain_loss(logits, labels, "dft") + 0.7 * divergence
    expected.backward()
    found = (summed.total / summed.count).detach()
    check_same((found, gradients(mine)), (expected.detach(), gradients(theirs)))
    assert float(summed.measures["divergence"]) / summed.count == pytest.approx(
        divergence.item(), rel=1e-5
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dft_equals_trl_in_loss_and_in_every_gradient(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from trl import SFTConfig, SFTTrainer

    folder = tiny.make_model(tmp_path / "model")
    rows = make_rows(tmp_path, folder)
    _, mine, theirs = make_models(folder, "full")
    method = build_method(SFT(loss="dft"))
    summed = method.loss(mine.train(), method.collate(rows, HOW))
    (summed.total / summed.count).backward()

    trainer = SFTTrainer(
        theirs,
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"),
            assistant_only_loss=True,
            loss_type="dft",
            max_length=256,
            **{name: value for name, value in QUIET.items() if name != "disable_dropout"},
        ),
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=find_reader(folder).tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(ROWS))])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    found = (summed.total / summed.count).detach()
    check_same((found, gradients(mine)), (loss.detach(), gradients(theirs)))


def test_rows_that_are_measured_get_the_plain_loss(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model")
    rows = make_rows(tmp_path, folder)
    _, model, _ = make_models(folder, "full")
    plain = build_method(SFT())
    batch = plain.collate(rows, HOW)
    expected = plain.loss(model.eval(), batch).total
    for loss in ("dft", "eaft", "asft"):
        torch.testing.assert_close(build_method(SFT(loss=loss)).loss(model, batch).total, expected)
