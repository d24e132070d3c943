"""What is learned from a teacher equals TRL's divergence of all logits, and its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests import tiny
from tests.golden.answers import make_rows, padded_logits
from tests.golden.pairs import HOW, check_same, gradients, make_models, moved
from tunesmith.methods import build_method
from tunesmith.methods.divergence import divergences
from tunesmith.models import head as heads
from tunesmith.models.compared import Other, Terms, compared_loss
from tunesmith.models.head import Head, Targets
from tunesmith.models.load import load_model
from tunesmith.recipe.method import Distill

BETAS = [0.0, 0.3, 0.5, 1.0]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_POSITIONS", 5)
    monkeypatch.setattr(heads, "CHUNK_BYTES", 0)


def trl_divergence(
    logits: torch.Tensor, others: torch.Tensor, labels: torch.Tensor, **options: float
) -> torch.Tensor:
    """TRL's, a token, times the square of the temperature."""
    from trl.experimental.gkd import GKDTrainer

    found: torch.Tensor = GKDTrainer.generalized_jsd_loss(logits, others, labels, **options)
    return found * options["temperature"] ** 2


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("beta", BETAS)
def test_a_divergence_and_its_gradient_equal_those_of_trl(beta: float, temperature: float) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(1, 7, 50)).requires_grad_()
    others, labels = 3 * torch.randn(1, 7, 50), torch.zeros(1, 7, dtype=torch.long)
    theirs = trl_divergence(logits, others, labels, beta=beta, temperature=temperature)
    (expected,) = torch.autograd.grad(theirs, logits)
    mine, away = divergences(logits.detach()[0], others[0], beta=beta, temperature=temperature)
    torch.testing.assert_close(mine.mean(), theirs.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(away / 7, expected[0], rtol=1e-5, atol=1e-7)


def test_the_same_model_is_no_distance_away() -> None:
    logits = torch.randn(4, 30)
    for beta in BETAS:
        nats, away = divergences(logits, logits.clone(), beta=beta)
        torch.testing.assert_close(nats, torch.zeros(4), atol=1e-6, rtol=0)
        torch.testing.assert_close(away, torch.zeros(4, 30), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize(("beta", "temperature", "share"), [(0.0, 2.0, 0.5), (0.5, 1.0, 1.0)])
def test_gradients_of_a_student_equal_those_of_all_logits(
    tmp_path: Path, tuning: str, beta: float, temperature: float, share: float
) -> None:
    folder = tiny.make_model(tmp_path / "model")
    larger = tiny.make_model(tmp_path / "larger", "llama", seed=5, hidden_size=64, vocab_size=416)
    teacher: Any = load_model(larger, dtype=torch.float32, device=torch.device("cpu"))
    teacher.requires_grad_(False).eval()
    moved(teacher, "weight")
    rows = make_rows(tmp_path, folder)
    _, mine, theirs = make_models(folder, tuning)
    for model in (mine, theirs):
        moved(model.train(), "lora_" if tuning == "lora" else "")
    options = Distill(teacher="larger", beta=beta, temperature=temperature, teacher_weight=share)
    method = build_method(options).beside(teacher)
    summed = method.loss(mine, method.collate(rows, HOW))
    found = summed.total / summed.count
    found.backward()

    logits, labels = padded_logits(theirs, rows)
    others = padded_logits(teacher, rows)[0][..., :400]  # its last rows stand for no token
    far = trl_divergence(logits, others, labels, beta=beta, temperature=temperature)
    learned = labels != -100
    near = cross_entropy(logits[learned], labels[learned])
    expected = (1 - share) * near + share * far
    expected.backward()
    check_same((found.detach(), gradients(mine)), (expected.detach(), gradients(theirs)))
    measured = method.loss(mine.eval(), method.collate(rows, HOW))
    torch.testing.assert_close(measured.total / measured.count, near.detach())
    divergence = measured.measures["divergence"] / measured.count
    torch.testing.assert_close(divergence, far.detach(), rtol=1e-5, atol=1e-6)


HEADS: dict[str, dict[str, float]] = {"plain": {}, "softcap": {"softcap": 2.0}}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_any_head_gets_the_gradient_of_all_logits(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 50)
    head, other = Head(linear, **options), Head(torch.nn.Linear(16, 64).requires_grad_(False))
    hidden, given = torch.randn(23, 8, requires_grad=True), torch.randn(23, 16)
    targets = torch.randint(50, (23,))
    wanted = [hidden, *linear.parameters()]
    terms = Terms(divergences, imitation=0.4, distance=0.6)
    mine = compared_loss(head, hidden, Other(given, other), Targets(targets), terms).total * 0.5
    logits, theirs = head.logits(hidden), other.logits(given)[:, :50].softmax(dim=-1)
    far = torch.nn.functional.kl_div(logits.log_softmax(dim=-1), theirs, reduction="sum")
    whole = (0.4 * cross_entropy(logits, targets, reduction="sum") + 0.6 * far) * 0.5
    torch.testing.assert_close(mine, whole)
    expected = torch.autograd.grad(whole, wanted)
    for one, another in zip(torch.autograd.grad(mine, wanted), expected, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-5)


def test_all_logits_are_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    compute = Head.logits

    def watched(head: Head, hidden: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(hidden))
        return compute(head, hidden)

    monkeypatch.setattr(Head, "logits", watched)
    head, other = Head(torch.nn.Linear(8, 50)), Head(torch.nn.Linear(8, 50))
    hidden, targets = torch.randn(23, 8, requires_grad=True), torch.zeros(23, dtype=torch.long)
    terms = Terms(divergences, imitation=0.4, distance=0.6)
    compared_loss(head, hidden, Other(torch.randn(23, 8), other), Targets(targets), terms)
    assert largest == 5
