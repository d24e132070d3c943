"""Judged answers: the loss by hand, the same kl and gradient in any batches, mismatched answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.unit.data.preparing import prepare_files
from tests.unit.methods.test_dpo import check_same, gradients
from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import UNLEARNED, TokenRows
from tunesmith.errors import DataError
from tunesmith.methods import build_method
from tunesmith.methods.averages import Averages
from tunesmith.methods.batches import count_tokens, split_update
from tunesmith.methods.held_out import measure_held_out
from tunesmith.methods.kto import kto_losses
from tunesmith.methods.method import Joining
from tunesmith.methods.ranks import Share
from tunesmith.methods.reference import reference_logps
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.recipe.method import KTO

METHOD = build_method(KTO(beta=0.2, undesirable_weight=1.5))
FLAT = Joining(flat=True)
ROWS = [
    {"prompt": f"question {n}" + " more" * (n % 3), "completion": f"It is {n}.", "label": n % 3 > 0}
    for n in range(7)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu")).eval()


def make_rows(tmp_path: Path, folder: Path, rows: list[dict[str, Any]] = ROWS) -> TokenRows:
    learn = Learn("judged", history=False)
    path = tiny.write_rows(tmp_path / "judged.jsonl", rows)
    return prepare_files(find_reader(folder), path, learn=learn).train


def judged(sizes: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Rows of so many tokens: question, answer, another row's answer."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for number, (question, own, other) in enumerate(sizes):
        ids = torch.randint(1, 400, (question + own + other,), generator=draw).tolist()
        asked, answer, taken = ids[:question], ids[question:][:own], ids[question + own :]
        good = number % 3 > 0
        made = [
            {
                "input_ids": asked + said,
                "labels": [UNLEARNED] * question + said,
                "good": good,
            }
            for said in (answer, taken)
        ]
        known = [-6.0 * own + number, -6.5 * other]
        rows.append({**made[0], "mismatched": made[1], "reference": known})
    return rows


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_loss_by_hand() -> None:
    ratios, good = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([True, False, False])
    found = kto_losses(ratios, good, torch.tensor(0.5), beta=0.2)
    assert found.tolist() == pytest.approx([1 - sigmoid(0.3), 1 - sigmoid(-0.3), 1 - sigmoid(0.3)])
    assert kto_losses(torch.zeros(2), good[:2], torch.tensor(0.0), beta=0.2).tolist() == [0.5, 0.5]


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6
    ),
    tokens=st.integers(1, 60),
    flat=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_rows_in_any_batches_give_the_same_kl_and_gradient(
    model: Any, sizes: list[tuple[int, int, int]], tokens: int, flat: bool
) -> None:
    rows, how = judged(sizes), Joining(flat=flat)
    whole = METHOD.collate(rows, FLAT)
    ahead = METHOD.look_ahead(model, [whole])
    at_once = METHOD.loss(model, {**whole, **ahead})
    sizes_ = [count_tokens(row, how) for row in rows]
    parts = split_update(sizes_, tokens=tokens, flat=flat)
    batches = [METHOD.collate(rows[part], how) for part in parts]
    again = METHOD.look_ahead(model, batches)
    split = [METHOD.loss(model, {**batch, **again}) for batch in batches]
    assert float(again["kl"]) == pytest.approx(float(ahead["kl"]), rel=1e-6, abs=1e-6)
    one, other = Averages(), Averages()
    one.add(at_once)
    for each in split:
        other.add(each)
    assert one.take() == pytest.approx(other.take(), rel=1e-4, abs=1e-5)
    total = sum(each.total for each in split)
    check_same(gradients(model, total), gradients(model, at_once.total), floor=1e-7)


def test_kl_is_measured_on_answers_to_other_questions_and_never_negative(model: Any) -> None:
    rows = judged([(3, 4, 5), (4, 2, 6), (2, 2, 2)])
    batch = METHOD.collate(rows, FLAT)
    said = METHOD.logps(model, batch).detach()
    gained = (said[:, 1] - batch["reference"][:, 1]).mean()
    kl = METHOD.look_ahead(model, [batch])["kl"]
    assert kl == pytest.approx(max(float(gained), 0.0))
    far = {**batch, "reference": said + 3.0}
    assert METHOD.look_ahead(model, [far])["kl"] == 0.0
    assert METHOD.look_ahead(model, [])["kl"] == 0.0


def test_measures_are_means_over_the_rows_they_are_about(model: Any) -> None:
    rows = judged([(3, 4, 5), (4, 2, 6), (2, 2, 2), (5, 3, 1)])
    batch = METHOD.collate(rows, FLAT)
    ahead = METHOD.look_ahead(model, [batch])
    averages = Averages()
    averages.add(METHOD.loss(model, {**batch, **ahead}))
    found = averages.take()
    said = METHOD.logps(model, batch)[:, 0].detach()
    rewards = 0.2 * (said - batch["reference"][:, 0])
    good = batch["good"]
    assert good.tolist() == [False, True, True, False]
    assert found["rewards_chosen"] == pytest.approx(rewards[good].mean().item())
    assert found["rewards_rejected"] == pytest.approx(rewards[~good].mean().item())
    margin = found["rewards_chosen"] - found["rewards_rejected"]
    assert found["rewards_margin"] == pytest.approx(margin)
    assert found["logps_chosen"] == pytest.approx(said[good].mean().item())
    assert found["kl"] == pytest.approx(float(ahead["kl"]))
    right = ((rewards > 0.2 * ahead["kl"]) == good).float().mean()
    assert found["rewards_accuracy"] == pytest.approx(right.item())
    lonely = METHOD.collate(rows[1:2], FLAT)
    averages.add(METHOD.loss(model, {**lonely, **ahead}))
    assert "rewards_rejected" not in averages.take()


def test_every_question_gets_another_answer_and_gives_its_own_once(
    tmp_path: Path, folder: Path
) -> None:
    rows = make_rows(tmp_path, folder)
    spell = find_reader(folder).tokenizer.decode
    taken = []
    for number in range(len(rows)):
        row = rows[number]
        (own, asked), (other, again) = (
            (spell([t for t in each["labels"] if t != UNLEARNED]), each["labels"].count(UNLEARNED))
            for each in (row, row["mismatched"])
        )
        assert own == f"It is {number}.<|im_end|>"
        assert other != own
        assert row["input_ids"][:asked] == row["mismatched"]["input_ids"][:again]
        assert row["good"] == row["mismatched"]["good"] == (number % 3 > 0)
        taken.append(other)
    assert sorted(taken) == [f"It is {n}.<|im_end|>" for n in range(7)]
    assert [rows[n]["mismatched"] for n in range(7)] == [
        make_rows(tmp_path, folder)[n]["mismatched"] for n in range(7)
    ]


def test_a_taken_answer_is_cut_to_the_longest_row(tmp_path: Path, folder: Path) -> None:
    long = [
        {"prompt": "a", "completion": "word " * 30, "label": True},
        {"prompt": "word " * 30, "completion": "b", "label": False},
    ]
    rows = make_rows(tmp_path, folder, long)
    longest = int(rows.lengths.max())
    assert len(rows[1]["mismatched"]["input_ids"]) == longest
    assert count_tokens(rows[1], FLAT) == longest


def test_one_row_alone_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="one row only"):
        make_rows(tmp_path, folder, ROWS[:1])


@pytest.mark.parametrize("flat", [True, False])
def test_held_out_rows_have_one_kl_whatever_the_batches(
    tmp_path: Path, folder: Path, model: Any, flat: bool
) -> None:
    rows, how = make_rows(tmp_path, folder), Joining(flat=flat)
    known = reference_logps(model, METHOD, rows, how=how, tokens=30)
    assert known is not None
    rows = rows.beside(reference=known - [1.5, 0.5])
    found = [measure_held_out(model, METHOD, rows, how=how, batch_size=n) for n in (1, 3, 7)]
    assert found[0] is not None
    assert found[0]["kl"] == pytest.approx(0.5, abs=1e-4)
    expected = (4 * sigmoid(-0.2) + 3 * 1.5 * sigmoid(0.2)) / 7
    assert found[0]["loss"] == pytest.approx(expected, abs=1e-5)
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4, abs=1e-5)
    never = Share(give_up=lambda: True)
    assert measure_held_out(model, METHOD, rows, how=how, batch_size=2, share=never) is None
