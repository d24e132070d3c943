"""Held-out sets are kept apart by name, and sets are mixed until one of them is through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.unit.data.preparing import PACKED, check_counts, prepare_files, spell_rows
from tests.unit.data.test_mix import make_units
from tests.unit.data.tokenizers_of import make_byte_level
from tunesmith.data.mix import mix
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return make_byte_level(tmp_path / "model")


def files(folder: Path, **sizes: int) -> dict[str, str]:
    """Write sets of so many rows, no row in two."""
    starts = np.cumsum([0, *sizes.values()]).tolist()
    return {
        name: str(tiny.write_pairs(folder / f"{name}.jsonl", size, start))
        for (name, size), start in zip(sizes.items(), starts, strict=False)
    }


def test_a_mapping_names_held_out_sets() -> None:
    data = Data(train="a", validation={"faq": "b", "tools": {"path": "c", "max_rows": 2}})
    assert [(s.path, s.name) for s in data.validation] == [("b", "faq"), ("c", "tools")]
    assert [s.name for s in Data(train="a", validation={"path": "b"}).validation] == [None]
    assert [s.name for s in Data(train="a", validation=["b"]).validation] == [None]
    again = Data.model_validate(data.model_dump(mode="json"))
    assert again == data


def test_rows_of_a_named_set_stand_beside_each_other(tmp_path: Path, reader: Reader) -> None:
    found = files(tmp_path, train=5, faq=3, rest=2, tools=4)
    held = [{"path": found["faq"], "name": "faq"}, found["rest"]]
    held.append({"path": found["tools"], "name": "tools"})
    splits = prepare_files(reader, Path(found["train"]), validation=held)
    check_counts(splits.report)
    assert splits.validation is not None
    assert splits.validation.sets == {"faq": range(3), "tools": range(3, 7)}
    shown = spell_rows(reader, splits.validation)
    assert len(shown) == splits.report.num_validation == 9
    numbers = [int(text.partition("question ")[2].partition("<")[0]) for text in shown]
    assert numbers == [5, 6, 7, 10, 11, 12, 13, 8, 9]


def test_the_same_rows_are_measured_with_names_and_without(tmp_path: Path, reader: Reader) -> None:
    found = files(tmp_path, train=5, faq=3, tools=4)
    names = {name: found[name] for name in ("faq", "tools")}
    named = prepare_files(reader, Path(found["train"]), validation=names).validation
    plain = prepare_files(reader, Path(found["train"]), validation=[*names.values()]).validation
    assert named is not None
    assert plain is not None
    assert sorted(spell_rows(reader, named)) == sorted(spell_rows(reader, plain))


def test_packed_texts_of_named_sets_are_not_packed_together(tmp_path: Path, reader: Reader) -> None:
    for name in ("train", "one", "two"):
        tiny.write_rows(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}"} for n in range(9)])
    held = {name: str(tmp_path / f"{name}.jsonl") for name in ("one", "two")}
    train = tmp_path / "train.jsonl"
    splits = prepare_files(reader, train, learn=PACKED, validation=held, max_tokens=16)
    assert splits.validation is not None
    shown = spell_rows(reader, splits.validation)
    assert all("two" not in shown[row] for row in splits.validation.sets["one"])
    assert all("one" not in shown[row] for row in splits.validation.sets["two"])


def test_a_named_set_that_is_learned_too_is_refused(tmp_path: Path, reader: Reader) -> None:
    found = files(tmp_path, train=5, faq=3)
    held = {"faq": found["faq"], "same": found["train"]}
    with pytest.raises(DataError, match="no row of the held-out set 'same' is left"):
        prepare_files(reader, Path(found["train"]), validation=held)


@pytest.mark.parametrize(
    ("sizes", "weights", "until", "expected"),
    [
        ((30, 70), (1.0, 1.0), "first", [30, 30]),
        ((30, 70), (1.0, 1.0), "last", [70, 70]),
        ((10, 40), (0.2, 0.8), "first", [10, 40]),
        ((10, 40), (0.2, 0.8), "last", [10, 40]),
        ((10, 40), (0.5, 0.5), "total", [25, 25]),
        ((10, 10), (0.3, 0.7), "first", [4, 10]),
        ((10, 10), (0.3, 0.7), "last", [10, 24]),
    ],
)
def test_a_mix_ends_with_the_first_set_or_the_last(
    sizes: tuple[int, ...], weights: tuple[float, ...], until: Any, expected: list[int]
) -> None:
    mixed = mix(make_units(*sizes), weights, 1, until)
    assert np.bincount(mixed.store).tolist() == expected
    for number, size in enumerate(sizes):
        rows = np.bincount(mixed.first[mixed.store == number], minlength=size)
        if until == "first":
            assert rows.max() == 1, "no row comes twice"
        if until == "last":
            assert rows.min() >= 1, "every row comes"


def test_sets_without_a_weight_stay_whole() -> None:
    mixed = mix(make_units(10, 40, 7), [1.0, 1.0, None], 1, "first")
    assert np.bincount(mixed.store).tolist() == [10, 10, 7]


def test_a_mix_without_end_is_refused() -> None:
    with pytest.raises(DataError, match="until the last set has given all its rows"):
        mix(make_units(10, 10), [1.0, 1e-9], 1, "last")
