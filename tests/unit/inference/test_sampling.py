"""How answers are sampled: what is refused, and what the makers of a model chose."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.errors import ModelError, RequestError
from tunesmith.inference.load import choose_sampling
from tunesmith.inference.sampling import Sampling, default_sampling
from tunesmith.models.chat import ChatModel, load_chat_model

BAD: list[tuple[str, Any, str]] = [
    ("max_tokens", 0, "a number from 1"),
    ("max_tokens", -5, "a number from 1"),
    ("temperature", -0.1, "0 to 10"),
    ("temperature", 10.5, "0 to 10"),
    ("temperature", math.nan, "0 to 10"),
    ("temperature", math.inf, "0 to 10"),
    ("top_p", 0.0, "a number above 0, up to 1"),
    ("top_p", 1.01, "a number above 0, up to 1"),
    ("top_p", math.nan, "a number above 0, up to 1"),
    ("top_k", -1, "0 for all tokens, or how many"),
    ("repetition_penalty", 0.0, "0.1 to 10; 1 is none"),
    ("repetition_penalty", -1.0, "0.1 to 10; 1 is none"),
    ("repetition_penalty", 11.0, "0.1 to 10; 1 is none"),
    ("repetition_penalty", math.nan, "0.1 to 10; 1 is none"),
    ("seed", -1, "a number from 0 to 2**63 - 1"),
    ("seed", 2**63, "a number from 0 to 2**63 - 1"),
]
GOOD: list[tuple[str, Any]] = [
    ("max_tokens", 1),
    ("temperature", 0.0),
    ("temperature", 10.0),
    ("top_p", 1.0),
    ("top_p", 1e-6),
    ("top_k", 0),
    ("top_k", 10**9),
    ("repetition_penalty", 0.1),
    ("repetition_penalty", 10.0),
    ("seed", None),
    ("seed", 0),
    ("seed", 2**63 - 1),
    ("stop", ("x",)),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return load_chat_model(tiny.make_model(tmp_path_factory.mktemp("models") / "model"))


def declare(folder: Path, **fields: Any) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(fields), "utf-8")
    return folder


@pytest.mark.parametrize(("name", "value", "wanted"), BAD)
def test_a_value_that_means_nothing_is_refused_by_name(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(RequestError) as caught:
        replace(Sampling(), **{name: value}).check()
    assert caught.value.message == f"{name} cannot be {value!r}"
    assert caught.value.hint == f"write {wanted}"
    assert caught.value.where == name


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(RequestError, match=r"stop cannot be \['end', ''\]"):
        Sampling(stop=("end", "")).check()


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_values_at_the_edges_are_accepted(name: str, value: Any) -> None:
    replace(Sampling(), **{name: value}).check()


def test_a_model_that_declares_nothing_takes_the_likeliest_token(tmp_path: Path) -> None:
    assert default_sampling(tmp_path) == Sampling()


def test_what_the_makers_chose_is_the_default(tmp_path: Path) -> None:
    declare(
        tmp_path, do_sample=True, temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05
    )
    assert default_sampling(tmp_path) == Sampling(
        temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05
    )


def test_what_they_left_out_has_no_effect(tmp_path: Path) -> None:
    assert default_sampling(declare(tmp_path, do_sample=True)) == Sampling(temperature=1.0)
    assert default_sampling(declare(tmp_path, do_sample=True, top_p=None)).top_p == 1.0
    assert default_sampling(declare(tmp_path, do_sample=True, temperature=0)).temperature == 0


def test_settings_of_draws_mean_nothing_to_a_model_that_does_not_draw(tmp_path: Path) -> None:
    declare(tmp_path, temperature=0.6, top_k=20, repetition_penalty=1.1)
    assert default_sampling(tmp_path) == Sampling(repetition_penalty=1.1)
    declare(tmp_path, do_sample=False, temperature=0.6)
    assert default_sampling(tmp_path) == Sampling()


@pytest.mark.parametrize(
    "fields",
    [
        {"do_sample": True, "temperature": "hot"},
        {"do_sample": True, "top_p": 7},
        {"do_sample": True, "top_k": -3},
        {"repetition_penalty": [1]},
    ],
    ids=range(4),
)
def test_what_makers_cannot_mean_is_refused_with_its_file(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="own way of sampling cannot be used") as caught:
        default_sampling(declare(tmp_path, **fields))
    assert caught.value.where == str(tmp_path / "generation_config.json")
    assert caught.value.hint == "mend or delete the file"


def test_options_that_are_given_replace_the_model_s_own(model: ChatModel) -> None:
    declare(model.folder, do_sample=True, temperature=0.6, top_k=20)
    chosen = choose_sampling(model, {"temperature": 0.0, "top_k": None, "stop": ("x",)})
    assert chosen == Sampling(temperature=0.0, top_k=20, stop=("x",))
    (model.folder / "generation_config.json").unlink()


def test_options_that_mean_nothing_are_refused_when_chosen(model: ChatModel) -> None:
    with pytest.raises(RequestError, match="top_p cannot be 2"):
        choose_sampling(model, {"top_p": 2})
