"""How far a model is from another one is measured truly, and ties are told from faults."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import ExportError
from tunesmith.export import parity
from tunesmith.export.parity import (
    Distance,
    check_distance,
    check_same_answers,
    greedy,
    measure_distance,
    take_reference,
)
from tunesmith.models.chat import ChatModel, load_chat_model

PROBES = [{"ids": [1, 40, 50, 60, 2]}, {"ids": [1, 70, 80]}, {"ids": [90]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "model", "llama", seed=2)


@pytest.fixture
def model(folder: Path) -> ChatModel:
    torch.set_num_threads(1)
    return load_chat_model(folder, precision="fp32", device="cpu")


def changed(model: ChatModel, scale: float) -> ChatModel:
    """Return the same model with a little noise in its head."""
    inner: Any = copy.deepcopy(model.model)
    torch.manual_seed(0)
    inner.lm_head.weight.data += scale * torch.randn_like(inner.lm_head.weight)
    return replace(model, model=inner)


def test_a_model_is_at_no_distance_from_itself(model: ChatModel) -> None:
    reference = take_reference(model, PROBES)
    distance = measure_distance(model, reference)
    assert (distance.kl, distance.top1, distance.max_logit_difference) == (0.0, 1.0, 0.0)
    assert distance.num_tokens == sum(map(len, reference.answers))
    assert check_same_answers(model, reference) == 0


def test_the_distance_is_that_of_an_independent_computation(model: ChatModel) -> None:
    other = changed(model, 0.02)
    reference = take_reference(model, PROBES)
    distance = measure_distance(other, reference)
    kl, same, count, worst = 0.0, 0, 0, 0.0
    for prompt, given in zip(reference.prompts, reference.answers, strict=True):
        for place in range(len(given)):
            ids = torch.tensor([prompt + given[:place]])
            with torch.no_grad():
                one, two = (m.model(input_ids=ids).logits[0, -1] for m in (model, other))
            p, q = one.double().softmax(-1), two.double().softmax(-1)
            kl += float((p * (p.log() - q.log())).sum())
            same += int(one.argmax() == two.argmax())
            worst = max(worst, float((one - two).abs().max()))
            count += 1
    assert distance.num_tokens == count > 30
    assert distance.kl == pytest.approx(kl / count, rel=1e-3)
    assert distance.top1 == same / count
    assert distance.max_logit_difference == pytest.approx(worst, rel=1e-3)
    assert distance.kl > 1e-4


def test_a_logit_that_is_no_number_is_never_near(model: ChatModel) -> None:
    reference = take_reference(model, PROBES)
    broken = changed(model, 0.0)
    head: Any = broken.model
    head.lm_head.weight.data[7] = float("nan")
    distance = measure_distance(broken, reference)
    assert math.isnan(distance.kl)
    assert math.isnan(distance.max_logit_difference)
    for one in (distance, replace(distance, kl=0.0, top1=1.0)):
        with pytest.raises(ExportError, match="moves too far"):
            check_distance(one, "bf16", "out")


def test_the_token_that_ends_an_answer_belongs_to_it(model: ChatModel) -> None:
    (plain,) = greedy(model, [PROBES[0]["ids"]])
    assert len(plain) == parity.ANSWER_TOKENS
    end = plain[3]
    stopping = replace(model, stop_ids=(end,))
    assert greedy(stopping, [PROBES[0]["ids"]]) == [plain[: plain.index(end) + 1]]


def test_a_model_that_answers_differently_is_refused_with_both_answers(model: ChatModel) -> None:
    reference = take_reference(model, PROBES)
    with pytest.raises(ExportError, match="answers differently from the tuned one") as caught:
        check_same_answers(changed(model, 1.0), reference)
    assert repr(model.tokenizer.decode(reference.answers[0])) in caught.value.message


def make_twins(model: ChatModel, gap: float) -> ChatModel:
    """Give the likeliest first token a twin whose logit is lower by `gap` times its own."""
    twins = changed(model, 0.0)
    head = twins.model.lm_head.weight.data  # type: ignore[union-attr]
    first = greedy(model, [PROBES[0]["ids"]])[0][0]
    head[399] = head[first] * (1 - gap)
    return twins


def swap_twins(model: ChatModel) -> ChatModel:
    swapped = changed(model, 0.0)
    head = swapped.model.lm_head.weight.data  # type: ignore[union-attr]
    first = greedy(model, [PROBES[0]["ids"]])[0][0]
    head[[first, 399]] = head[[399, first]]
    return swapped


def test_another_choice_between_equals_is_a_tie_and_no_fault(model: ChatModel) -> None:
    twins = make_twins(model, 1e-6)
    reference = take_reference(twins, PROBES[:1])
    swapped = swap_twins(twins)
    assert greedy(swapped, reference.prompts) != reference.answers
    assert check_same_answers(swapped, reference) == 1


def test_another_choice_between_unequals_is_a_fault(model: ChatModel) -> None:
    twins = make_twins(model, 0.1)
    reference = take_reference(twins, PROBES[:1])
    with pytest.raises(ExportError, match="answers differently"):
        check_same_answers(swap_twins(twins), reference)


def test_an_answer_that_ends_earlier_is_a_fault(model: ChatModel) -> None:
    reference = take_reference(model, PROBES[:1])
    stopping = replace(model, stop_ids=(reference.answers[0][3],))
    with pytest.raises(ExportError, match="answers differently"):
        check_same_answers(stopping, reference)


def test_models_of_many_words_are_compared_on_fewer_prompts(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 4 * 400 * parity.ANSWER_TOKENS
    for budget, expected in ((1, 1), (2 * room, 2), (100 * room, 3)):
        monkeypatch.setattr(parity, "LOGITS_BYTES", budget)
        assert len(take_reference(model, PROBES).prompts) == expected


@pytest.mark.parametrize(
    ("kl", "top1", "fine"),
    [
        (0.0, 1.0, True),
        (0.02, 0.95, True),
        (0.0201, 1.0, False),
        (0.0, 0.949, False),
        (float("nan"), 1.0, False),
        (float("inf"), 1.0, False),
    ],
)
def test_the_limits_of_a_cast_hold(kl: float, top1: float, fine: bool) -> None:
    distance = Distance(100, kl, top1, 0.5)
    if fine:
        check_distance(distance, "bf16", "out")
        return
    with pytest.raises(ExportError) as caught:
        check_distance(distance, "bf16", "out")
    assert f"KL {kl:.4f} nats a token (limit 0.02)" in caught.value.message
    assert "(limit 95%)" in caught.value.message
    assert (caught.value.hint, caught.value.where) == ("export with --precision fp32", "out")


def test_no_other_precision_is_advised_where_there_is_none() -> None:
    with pytest.raises(ExportError) as caught:
        check_distance(Distance(100, 1.0, 0.0, 0.5), "fp32", "out")
    assert "fault of the export" in caught.value.hint
