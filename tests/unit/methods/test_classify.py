"""Classification: F1 by hand, the same gradient in any batches, what is counted over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.errors import RecipeError
from tunesmith.evaluation.classes import Confusion
from tunesmith.methods import build_method
from tunesmith.methods.averages import Averages, macro_f1
from tunesmith.methods.classify import class_scores, count_classes
from tunesmith.methods.method import Joining, LossSum
from tunesmith.models.classifier import choose_labels, load_classifier_model
from tunesmith.models.inspect import labels_of
from tunesmith.models.score import find_score
from tunesmith.models.tuning import apply_tuning
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.method import Classify
from tunesmith.recipe.tuning import Freeze, LoRA
from tunesmith.training.prepare import prepare_run

CPU = torch.device("cpu")
METHOD = build_method(Classify())
NAMED, THERE = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0])


def make_rows() -> list[dict[str, Any]]:
    texts = [[5, 3, 9, 2], [1, 4], [7], [2, 2, 8, 9, 1, 3], [6, 6, 6]]
    return [
        {"input_ids": ids, "labels": [-100] * len(ids), "label": float(at % 3)}
        for at, ids in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny.make_model(tmp_path_factory.mktemp("m") / "model", "mistral")
    torch.manual_seed(1)
    made = load_classifier_model(folder, ("a", "b", "c"), dtype=torch.float32, device=CPU).eval()
    torch.nn.init.normal_(made.score.weight)  # type: ignore[union-attr,arg-type]
    return made


def test_f1_by_hand() -> None:
    right, named, there = count_classes(NAMED, THERE, 4).tolist()
    assert (right, named, there) == ([1, 1, 2, 0], [2, 1, 3, 0], [2, 2, 2, 0])
    # a: 2*1/4, b: 2*1/3, c: 2*2/5; nobody is of the fourth and nothing is named so
    assert macro_f1(right, named, there) == pytest.approx((1 / 2 + 2 / 3 + 4 / 5) / 3)
    assert macro_f1([], [], []) == 0.0


def test_a_table_gives_the_same_figures() -> None:
    table = Confusion(["a", "b", "c"], [[1, 0, 1], [1, 1, 0], [0, 0, 2]])
    assert table.accuracy == pytest.approx(4 / 6)
    assert table.macro_f1 == pytest.approx((1 / 2 + 2 / 3 + 4 / 5) / 3)


def test_classes_of_several_batches_are_counted_together() -> None:
    averages = Averages()
    for part in (slice(0, 2), slice(2, 6)):
        named, there = NAMED[part], THERE[part]
        right = {"accuracy": (named == there).float().sum()}
        counts = count_classes(named, there, 3)
        averages.add(LossSum(torch.tensor(3.0), len(named), right, classes=counts))
    assert averages.take() == {
        "loss": 1.0,
        "accuracy": pytest.approx(4 / 6),
        "macro_f1": pytest.approx((1 / 2 + 2 / 3 + 4 / 5) / 3),
    }
    assert averages.take() == {}


@pytest.mark.parametrize("how", [Joining(True), Joining(True, coarse=True), Joining(False)])
def test_rows_in_any_batches_are_scored_as_alone(model: Any, how: Joining) -> None:
    rows = make_rows()
    alone = torch.cat([model(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows])
    batch = METHOD.collate(rows, how)
    torch.testing.assert_close(class_scores(model, batch), alone, rtol=1e-4, atol=1e-5)
    assert METHOD.count(batch) == METHOD.loss(model, batch).count == len(rows)


@pytest.mark.parametrize("tuning", [LoRA(rank=2), Freeze(layers=1)])
def test_the_head_is_trained_whatever_the_tuning(tmp_path: Path, tuning: Any) -> None:
    folder = tiny.make_model(tmp_path / "model", "llama")
    base = load_classifier_model(folder, ("a", "b"), dtype=torch.float32, device=CPU)
    head = find_score(apply_tuning(base, tuning))
    assert head is not None
    assert any(weight.requires_grad for weight in head.parameters())


def test_labels_are_read_from_a_folder_and_kept_if_they_suffice(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model")
    assert labels_of(folder) == ()
    assert choose_labels(folder, ("x", "y")) == ("x", "y")
    made = load_classifier_model(folder, ("b", "a", "c"), dtype=torch.float32, device=CPU)
    made.save_pretrained(str(folder))
    assert labels_of(folder) == ("b", "a", "c")
    assert choose_labels(folder, ("a", "b")) == ("b", "a", "c")
    assert choose_labels(folder, ("a", "z")) == ("a", "z")
    tiny.change_json(folder / "config.json", id2label=None, label2id=None)
    assert labels_of(folder) == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("how", [Joining(flat=True), Joining(flat=False)], ids=str)
def test_weighted_classes_are_averaged_as_torch_does(model: Any, how: Joining) -> None:
    weights = torch.tensor([0.5, 2.0, 3.0])
    rows = [{**row, "class_weight": float(weights[int(row["label"])])} for row in make_rows()]
    batch = METHOD.collate(rows, how)
    found = METHOD.loss(model, batch)
    scores = class_scores(model, METHOD.collate(make_rows(), how))
    classes = torch.tensor([int(row["label"]) for row in rows])
    expected = torch.nn.CrossEntropyLoss(weight=weights)(scores, classes).detach()
    torch.testing.assert_close((found.total / METHOD.count(batch)).detach(), expected)
    averages = Averages()
    averages.add(found)
    measured = averages.take()
    assert measured["loss"] == pytest.approx(float(expected))
    assert measured["accuracy"] == pytest.approx(
        float((scores.argmax(1) == classes).float().mean())
    )


def test_balanced_labels_count_alike_in_all(tmp_path: Path, tiny_model: Path) -> None:
    labels = ["7"] * 6 + ["8"] * 3 + ["9"]
    rows = [{"text": f"number {n}", "label": label} for n, label in enumerate(labels)]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)

    def weights(given: Any) -> dict[str, float]:
        ways = {
            "method": {"name": "classify", "class_weights": given},
            "evaluate": {"sample_rows": 3, "sample_tokens": 64},
        }
        recipe = load_recipe(tiny.write_recipe(tmp_path / "r.json", tiny_model, data, **ways))
        train = prepare_run(recipe).splits.train
        return {
            labels[at]: train[at]["class_weight"]
            for at in range(len(train))
            if train.conversation(at).label == labels[at]  # type: ignore[union-attr]
        }

    assert weights("balanced") == pytest.approx({"7": 10 / 18, "8": 10 / 9, "9": 10 / 3})
    assert weights({"9": 4}) == {"7": 1.0, "8": 1.0, "9": 4.0}
    with pytest.raises(RecipeError, match="'seven', which is no label") as caught:
        weights({"seven": 2.0})
    assert caught.value.where == "method.class_weights"
    assert Classify(class_weights={7: 2.0}).class_weights == {"7": 2.0}  # type: ignore[dict-item]
