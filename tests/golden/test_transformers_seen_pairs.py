"""Pairs, judged answers and scores of rows that show images equal those of transformers' models.

Ours lie end to end, a pair's images once; theirs go through the family's processor and model one
by one, and the formulas are those of the papers, as TRL computes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid, pad, relu

from tests import seeing, tiny
from tests.golden.pairs import Rows, moved
from tests.golden.seen_pairs import (
    CHOSEN,
    REJECTED,
    WORDS,
    Theirs,
    check_same,
    gradients,
    logps_of,
    theirs_of,
    write_judged,
    write_pairs,
    write_questions,
)
from tunesmith.data.prepare import prepare
from tunesmith.inference.sampling import Sampling
from tunesmith.methods import Method, build_method
from tunesmith.methods.averages import Averages
from tunesmith.methods.classify import learn_of
from tunesmith.methods.method import Joining, Row
from tunesmith.methods.online import OnlineMethod, join_answers_of, num_written, token_logps
from tunesmith.methods.reference import reference_logps
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model, load_scorer
from tunesmith.models.reader import Reader, find_reader
from tunesmith.models.roles import load_roles
from tunesmith.models.seeing import let_see
from tunesmith.recipe.data import Data
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.method import CPO, DPO, KTO, ORPO, Reward, SimPO
from tunesmith.training.online.rollouts import Rollouts
from tunesmith.training.prepare import prepare_run

CPU = torch.device("cpu")
BETA = 0.3
PROOF = pytest.mark.proof
FAMILIES = [
    "Qwen 2 VL",
    pytest.param("Qwen 3 VL", marks=PROOF),
    pytest.param("LLaVA", marks=PROOF),
    "Gemma 3",
]
PADDED = {"Gemma 3"}


def read_rows(method: Method, reader: Reader, path: Path) -> list[Row]:
    data = Data(train=(str(path),), max_tokens=256)
    learn = learn_of(method, reader)
    rows = prepare(data, learn, reader.tokenizer, reader.template, seed=0).train
    return [rows[number] for number in range(len(rows))]


def load(folder: Path) -> tuple[Any, Any, Any, Reader]:
    """The base, our model and theirs, which begin as it."""
    reader = find_reader(folder)
    assert reader.senses is not None
    base: Any = load_model(folder, dtype=torch.float32, device=CPU).eval()
    mine, theirs = copy.deepcopy(base), copy.deepcopy(base)
    let_see(mine, reader.senses)
    return base, mine, theirs, reader


def learn_once(method: Method, mine: Any, rows: list[Row], how: Joining) -> torch.Tensor:
    summed_of = method.collate(rows, how)
    ahead = method.look_ahead(mine, [summed_of])
    summed = method.loss(mine, {**summed_of, **ahead})
    mine.zero_grad()
    loss = summed.total / summed.count
    loss.backward()
    return loss.detach()


def said(model: Any, reader: Reader) -> list[list[torch.Tensor]]:
    """What their model says of both answers of each row, token by token."""
    return [
        [logps_of(model, theirs_of(reader, number, answer)) for answer in pair]
        for number, pair in enumerate(zip(CHOSEN, REJECTED, strict=True))
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_dpo_on_images_equals_transformers_in_loss_and_gradients(
    tmp_path: Path, family: str
) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    base, mine, theirs, reader = load(folder)
    method = build_method(DPO(beta=BETA))
    rows = read_rows(method, reader, write_pairs(tmp_path))
    layout = find_layout(mine)
    assert layout.is_flat == (family not in PADDED), layout.padded_because
    how = Joining(flat=layout.is_flat)
    if layout.is_flat:  # an image of a pair is there once
        first = rows[0]["input_ids"]
        shown = sum(token in reader.senses.ids for token in first)  # type: ignore[union-attr]
        alone = theirs_of(reader, 0, CHOSEN[0]).given["input_ids"][0].tolist()
        assert shown == sum(token in reader.senses.ids for token in alone)  # type: ignore[union-attr]
    known = reference_logps(mine, method, Rows(rows), how=how, tokens=90)  # type: ignore[arg-type]
    assert known is not None
    rows = [{**row, "reference": one.tolist()} for row, one in zip(rows, known, strict=True)]
    for each in (mine, theirs):
        moved(each, "")
    with torch.no_grad():
        before = said(base, reader)
    gains = [
        sum(
            sign * (one.sum() - old.sum())
            for sign, one, old in zip((1, -1), now, then, strict=True)
        )
        for now, then in zip(said(theirs, reader), before, strict=True)
    ]
    expected = -logsigmoid(BETA * torch.stack(gains)).mean()
    expected.backward()
    assert abs(expected.item() - 0.6931) > 1e-3
    for flat in {layout.is_flat, False}:
        loss = learn_once(method, mine, rows, Joining(flat=flat))
        check_same((loss, gradients(mine)), (expected.detach(), gradients(theirs)))


def odds(mean: torch.Tensor) -> torch.Tensor:
    return mean - torch.log1p(-torch.exp(mean))


Pair = list[torch.Tensor]
LOSSES: dict[str, tuple[Any, Callable[[Pair], torch.Tensor]]] = {
    "hinge": (
        DPO(loss="hinge", beta=BETA, reference="none"),
        lambda p: relu(1 - BETA * (p[0].sum() - p[1].sum())),
    ),
    "ipo": (
        DPO(loss="ipo", beta=BETA, reference="none"),
        lambda p: (p[0].mean() - p[1].mean() - 1 / (2 * BETA)) ** 2,
    ),
    "robust": (
        DPO(loss="robust", beta=BETA, reference="none", label_smoothing=0.2),
        lambda p: (
            (
                -0.8 * logsigmoid(BETA * (p[0].sum() - p[1].sum()))
                + 0.2 * logsigmoid(-BETA * (p[0].sum() - p[1].sum()))
            )
            / 0.6
        ),
    ),
    "orpo": (
        ORPO(beta=BETA),
        lambda p: -p[0].mean() - BETA * logsigmoid(odds(p[0].mean()) - odds(p[1].mean())),
    ),
    "simpo": (
        SimPO(beta=2.0, gamma=1.0),
        lambda p: -logsigmoid(2.0 * (p[0].mean() - p[1].mean()) - 1.0),
    ),
    "cpo": (
        CPO(beta=BETA),
        lambda p: -logsigmoid(BETA * (p[0].sum() - p[1].sum())) - p[0].mean(),
    ),
}


@pytest.mark.parametrize(
    "name", [name if name == "orpo" else pytest.param(name, marks=PROOF) for name in LOSSES]
)
def test_every_loss_of_pairs_takes_images(tmp_path: Path, name: str) -> None:
    options, formula = LOSSES[name]
    folder = seeing.make_seeing_model(tmp_path / "model", "Qwen 2 VL")
    _, mine, theirs, reader = load(folder)
    method = build_method(options)
    rows = read_rows(method, reader, write_pairs(tmp_path))
    expected = torch.stack([formula(pair) for pair in said(theirs, reader)]).mean()
    expected.backward()
    find_layout(mine)
    loss = learn_once(method, mine, rows, Joining(flat=True))
    check_same((loss, gradients(mine)), (expected.detach(), gradients(theirs)))


@pytest.mark.parametrize("family", ["Qwen 2 VL", pytest.param("Gemma 3", marks=PROOF)])
def test_kto_on_images_equals_transformers_in_loss_and_gradients(
    tmp_path: Path, family: str
) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    base, mine, theirs, reader = load(folder)
    method = build_method(KTO(beta=BETA, undesirable_weight=0.7))
    rows = read_rows(method, reader, write_judged(tmp_path))
    how = Joining(flat=find_layout(mine).is_flat)
    known = reference_logps(mine, method, Rows(rows), how=how, tokens=90)  # type: ignore[arg-type]
    assert known is not None
    rows = [{**row, "reference": one.tolist()} for row, one in zip(rows, known, strict=True)]
    for each in (mine, theirs):
        moved(each, "")
    own = [theirs_of(reader, number, answer) for number, answer in enumerate(CHOSEN)]
    others = [other_of(reader, number, row) for number, row in enumerate(rows)]
    with torch.no_grad():
        drawn = [logps_of(theirs, one).sum() - logps_of(base, one).sum() for one in others]
        kl = torch.stack(drawn).mean().clamp(min=0)
        old = [logps_of(base, one).sum() for one in own]
    losses = []
    for number, one in enumerate(own):
        good, ratio = number % 2 == 0, logps_of(theirs, one).sum() - old[number]
        gain = ratio - kl if good else kl - ratio
        losses.append((1.0 if good else 0.7) * (1 - torch.sigmoid(BETA * gain)))
    expected = torch.stack(losses).mean()
    expected.backward()
    loss = learn_once(method, mine, rows, how)
    check_same((loss, gradients(mine)), (expected.detach(), gradients(theirs)))


def other_of(reader: Reader, number: int, row: Row) -> Theirs:
    """The other row's answer that a row was given, which may be cut."""
    taken = [token for token in row["mismatched"]["labels"] if token >= 0]
    (text,) = (said for said in CHOSEN if said.startswith(text_of(reader, taken)))
    theirs = theirs_of(reader, number, text)
    start = theirs.span[0]
    assert theirs.given["input_ids"][0, start:].tolist()[: len(taken)] == taken
    return Theirs(theirs.given, (start, start + len(taken)))


def text_of(reader: Reader, ids: list[int]) -> str:
    return str(reader.tokenizer.decode(ids, skip_special_tokens=True))


@pytest.mark.parametrize(
    "family",
    ["Qwen 2 VL", pytest.param("Gemma 3", marks=PROOF), pytest.param("LLaVA", marks=PROOF)],
)
def test_rewards_of_images_equal_the_head_over_transformers_states(
    tmp_path: Path, family: str
) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    _, _, theirs, reader = load(folder)
    torch.manual_seed(3)
    mine: Any = load_scorer(folder, dtype=torch.float32, device=CPU, new_head=True).eval()
    assert reader.senses is not None
    let_see(mine, reader.senses)
    method = build_method(Reward(center_rewards=0.05))
    rows = read_rows(method, reader, write_pairs(tmp_path))
    how = Joining(flat=find_layout(mine).is_flat)
    assert how.flat == (family not in PADDED)
    head = copy.deepcopy(mine.score.weight.detach()).requires_grad_()

    def score(row: Theirs) -> torch.Tensor:
        states = theirs.model(**row.given).last_hidden_state
        return states[0, row.span[1] - 1] @ head[0]

    losses = []
    for number, pair in enumerate(zip(CHOSEN, REJECTED, strict=True)):
        one, other = (score(theirs_of(reader, number, answer)) for answer in pair)
        losses.append(-logsigmoid(one - other) + 0.05 * (one + other) ** 2)
    expected = torch.stack(losses).mean()
    expected.backward()
    loss = learn_once(method, mine, rows, how)
    wanted = {**gradients(theirs), "score.weight": head.grad}
    check_same((loss, gradients(mine)), (expected.detach(), wanted))


def test_answers_to_images_are_drawn_and_learned_from_as_transformers_reads_them(
    tmp_path: Path,
) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", "Qwen 2 VL")
    path = tiny.write_recipe(
        tmp_path / "recipe.json",
        folder,
        write_questions(tmp_path),
        method={
            "name": "grpo",
            "rewards": [{"kind": "length", "limit": 3}],
            "group_size": 2,
            "answer_tokens": 6,
        },
        tuning={"kind": "full"},
        compute={"tokens_per_batch": 256},
    )
    prepared = prepare_run(load_recipe(path))
    assert isinstance(prepared.method, OnlineMethod)
    roles, how = load_roles(prepared.recipe, prepared.reader), Joining(flat=True)
    assert find_layout(roles.policy).is_flat
    theirs: Any = copy.deepcopy(roles.policy).eval()
    rollouts = Rollouts(prepared, roles, how, method=prepared.method, watched=Averages())
    roles.policy.eval()
    asked = list(range(len(WORDS)))
    rows = rollouts.answers.to(prepared.splits.train, asked, Sampling(max_tokens=6))
    found = token_logps(roles.policy, join_answers_of(rows, how), 1.0).split(
        [num_written(row) for row in rows]
    )
    assert isinstance(roles.reader, Reader)
    for number, (row, mine) in enumerate(zip(rows, found, strict=True)):
        given = dict(theirs_of(roles.reader, number, "red").given)
        length = row["asked"]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            given[name] = given[name][:, :length]
        assert given["input_ids"][0].tolist() == row["input_ids"][:length]
        written = theirs.generate(
            **given, max_new_tokens=6, do_sample=False, eos_token_id=list(roles.reader.stop_ids)
        )[0]
        assert written.tolist() == row["input_ids"]
        more = len(written) - length
        given["mm_token_type_ids"] = pad(given["mm_token_type_ids"], (0, more))
        given["attention_mask"] = pad(given["attention_mask"], (0, more), value=1)
        given["input_ids"] = written[None]
        wanted = logps_of(theirs, Theirs(given, (length, len(written))))
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)


def test_videos_beside_images_in_pairs_are_read_alike_end_to_end_and_padded(tmp_path: Path) -> None:
    rows = []
    for number, shown in enumerate((["red", "green", "blue", "red"], ["blue", "red"] * 3)):
        first, *rest = [seeing.make_picture(colour) for colour in shown]
        first.save(tmp_path / f"{number}.gif", save_all=True, append_images=rest, duration=500)
        seeing.make_picture("red", number).save(tmp_path / f"{number}.png")
        files = {"videos": [f"{number}.gif"], "images": [f"{number}.png"]}
        asked = {"instruction": "<video>what? <image>", "chosen": CHOSEN[number]}
        rows.append({**asked, "rejected": REJECTED[number], **files})
    folder = seeing.make_seeing_model(tmp_path / "model", "Qwen 2.5 VL")
    _, mine, _, reader = load(folder)
    method = build_method(DPO(reference="none"))
    made = read_rows(method, reader, tiny.write_rows(tmp_path / "rows.jsonl", rows))
    assert find_layout(mine).is_flat
    with torch.no_grad():
        flat, padded = (
            method.logps(mine, method.collate(made, Joining(flat=flat))) for flat in (True, False)
        )
    torch.testing.assert_close(flat, padded, rtol=1e-6, atol=1e-5)
    assert (flat[:, 0] - flat[:, 1]).abs().min() > 1
