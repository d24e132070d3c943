"""Rewards that a person wrote in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.methods.rewards.test_rules import CPU, sample
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.methods.rewards import build_rewards, check_rewards, describe_rewards, name_rewards
from tunesmith.recipe.load import find_paths
from tunesmith.recipe.rewards import Function


def written(folder: Path, text: str) -> Function:
    (folder / "mine.py").write_text(text)
    return Function(function=f"{folder}/mine.py:polite")


def score(option: Function, *answers: str) -> list[float]:
    samples = [sample(answer, "the reference") for answer in answers]
    found: list[float] = build_rewards([option], device=CPU).score(samples)[:, 0].tolist()
    return found


def test_it_is_given_what_it_names(tmp_path: Path) -> None:
    option = written(
        tmp_path,
        "def polite(completions, references, *, cut, messages):\n"
        "    assert references == ['the reference'] * 2 and cut == [False] * 2\n"
        "    assert messages[0][0]['content'] == 'what?'\n"
        "    return ['please' in text for text in completions]\n",
    )
    assert score(option, "please", "no") == [1.0, 0.0]
    assert build_rewards([option], device=CPU).names == ("polite",)


def test_it_may_take_all_and_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_mine.py").write_text("WORD = 'please'\n")
    option = written(
        tmp_path,
        "from beside_mine import WORD\n"
        "def polite(**given):\n"
        "    assert sorted(given) == "
        "['completion_ids', 'completions', 'cut', 'messages', 'references']\n"
        "    return [len(ids) for ids in given['completion_ids']]\n",
    )
    assert score(option, "abcd", "") == [2.0, 0.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def rude(): ...", "no function polite in mine.py"),
        ("polite = 3", "no function polite in mine.py"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def polite(completions, prompts): ...", "asks for prompts, which it is not given"),
        ("def polite(completions, /): ...", "asks for completions"),
        ("raise SystemExit(2)", "cannot be run: SystemExit: 2"),
        ("async def polite(completions): ...", "async function"),
        ("polite = max", "nobody knows what the reward takes"),
    ],
)
def test_what_cannot_judge_is_refused_before_anything_runs(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        check_rewards([written(tmp_path, text)])


def test_its_file_may_hold_dataclasses(tmp_path: Path) -> None:
    option = written(
        tmp_path,
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Rule:\n"
        "    word: str = 'please'\n"
        "def polite(completions):\n"
        "    return (Rule().word in text for text in completions)\n",
    )
    assert score(option, "please", "no") == [1.0, 0.0]


def test_a_reward_is_not_named_as_a_measure_is() -> None:
    option = Function(function="rewards.py:deviation")
    assert name_rewards([option, option]) == ("deviation_2", "deviation_3")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no file .*gone\.py"):
        check_rewards([Function(function=f"{tmp_path}/gone.py:polite")])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[1 / (text != 'bad') for text in completions]", "ZeroDivisionError.*'bad'.*'what\\?'"),
        ("[1]", "one number for each of 2 answers, but \\[1\\]"),
        ("1", "one number for each of 2 answers, but 1"),
        ("[10**400 for text in completions]", "one number for each of 2 answers"),
        ("[None for text in completions]", "one number for each of 2 answers"),
        ("[float('nan') if text == 'bad' else 0 for text in completions]", "gave nan .*'bad'"),
        ("(1 / (text != 'bad') for text in completions)", "ZeroDivisionError.*'bad'"),
        ("__import__('sys').exit(0)", "SystemExit: 0.*'good'"),
        ("__import__('torch').ones(2, 2, 1)", "one number for each of 2 answers"),
        ("1 / (len(completions) < 2)", "several answers at once only"),
    ],
)
def test_what_is_no_number_names_reward_and_answer(tmp_path: Path, body: str, said: str) -> None:
    option = written(tmp_path, f"def polite(completions):\n    return {body}\n")
    with pytest.raises(TrainingError, match=f"(?s)the reward polite .*{said}") as problem:
        score(option, "good", "bad")
    assert problem.value.hint


def test_a_changed_file_is_another_reward(tmp_path: Path) -> None:
    option = written(tmp_path, "def polite(completions): ...")
    before = describe_rewards([option])
    assert list(before) == ["polite"]
    assert describe_rewards([option]) == before
    written(tmp_path, "def polite(completions): pass")
    assert describe_rewards([option]) != before


def test_its_file_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    rewards: list[Any] = [{"function": "mine.py:polite", "weight": 2}, "json"]
    raw = {"method": {"name": "ppo", "rewards": rewards}}
    find_paths(raw, [tmp_path])
    assert rewards[0]["function"] == f"{tmp_path}/mine.py:polite"
