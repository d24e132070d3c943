"""Numbers found in answers, intervals and choices, against values worked by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from tunesmith.data.rows import Place
from tunesmith.evaluation.suites.lines import strip_letters
from tunesmith.evaluation.suites.measure import choose
from tunesmith.evaluation.suites.prompts import Way
from tunesmith.evaluation.suites.questions import Question
from tunesmith.evaluation.suites.tally import count, wilson
from tunesmith.evaluation.suites.written import find_number, is_right


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = 18 dollars.\n#### 18", "18"),
        ("#### 1,234,567", "1234567"),
        ("#### $1,080.50", "1080.5"),
        ("#### -3", "-3"),
        ("#### −3", "-3"),
        ("#### -$3", "-3"),
        ("#### 18.00", "18"),
        ("#### 18.", "18"),
        ("#### 25%", "25"),
        ("#### .5 of it", "0.5"),
        ("####18 and then 20", "18"),
        ("#### 5\n#### 7", "7"),
        ("The answer is 42, as 6 times 7 is.", "7"),
        ("It costs 3 and in all 1,200 dollars.", "1200"),
        ("答案是１２。", "12"),
        ("#### eighteen", None),
        ("", None),
        ("none at all", None),
        ("1,2 and 3", "3"),
        ("10-4", "-4"),
    ],
)
def test_the_number_of_an_answer_is_found(text: str, number: str | None) -> None:
    assert find_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("said", "right"), [("so 1,000", True), ("#### 1000.0", True), ("1001", False), ("", False)]
)
def test_numbers_are_compared_and_not_their_spelling(said: str, right: bool) -> None:
    way = Way("number", "letter", 0, chat=True, max_tokens=8)
    question = Question(Place("f", 1, 1), "?", (), "all of it\n#### 1000")
    assert is_right(question, said, way) is right


def test_texts_are_compared_but_for_case_and_space() -> None:
    way = Way("text", "letter", 0, chat=True, max_tokens=8)
    question = Question(Place("f", 1, 1), "?", (), "The Conch")
    assert is_right(question, " the  conch", way)
    assert not is_right(question, "the conch sings", way)


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    [
        # z = 1.96: (8 + 1.9208 -+ 1.96 sqrt(8 * 2 / 10 + 0.9604)) / (10 + 3.8416)
        (8, 10, 0.49016, 0.94332),
        # symmetric: 0.5 -+ 1.96 sqrt(25 + 0.9604) / 103.8416
        (50, 100, 0.40383, 0.59617),
        # none right: 0 to 3.8416 / 13.8416
        (0, 10, 0.0, 0.27754),
        (10, 10, 0.72246, 1.0),
        (1, 1, 0.20654, 1.0),
    ],
)
def test_wilsons_interval_is_the_one_worked_by_hand(
    right: int, number: int, low: float, high: float
) -> None:
    assert wilson(right, number) == pytest.approx((low, high), abs=2e-5)


def test_wilsons_bounds_are_where_the_test_of_a_share_just_holds() -> None:
    for bound in wilson(13, 40):
        distance = abs(13 / 40 - bound) / math.sqrt(bound * (1 - bound) / 40)
        assert distance == pytest.approx(1.959964, abs=1e-6)


def test_right_answers_are_counted() -> None:
    found = count("law", [True, False, True, True])
    assert (found.num_questions, found.num_right, found.accuracy) == (4, 3, 0.75)
    assert found.low < 0.75 < found.high


def test_whole_texts_are_chosen_by_the_byte() -> None:
    question = Question(Place("f", 1, 1), "?", ("ab", "四个", "abcdefgh"), "A")
    assert choose(question, [-4.0, -9.0, -10.0], "letter") == 0
    assert choose(question, [-4.0, -9.0, -10.0], "text") == 2
    assert choose(question, [-4.0, -6.0, -16.0], "text") == 1


@pytest.mark.parametrize(
    ("options", "stripped"),
    [
        (["(A)one", "(B) two"], ("one", "two")),
        (["A．一", "B. 二", "C、三"], ("一", "二", "三")),
        (["（A）一", "(B)(A) and more"], ("一", "(A) and more")),
        (["A one", "B two"], ("one", "two")),
        (["A man walks", "The man"], ("A man walks", "The man")),
        (["(A)one", "(C)two"], ("one", "two")),
        (["A", "B"], ("A", "B")),
        (["(A)", "(B)x"], ("(A)", "x")),
    ],
)
def test_letters_before_options_are_taken_away(
    options: list[str], stripped: tuple[str, ...]
) -> None:
    assert strip_letters(options) == stripped
