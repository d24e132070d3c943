"""Answers that a model writes, and whether they are the right ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tunesmith.evaluation.metrics import exact_match, narrow
from tunesmith.evaluation.suites.prompts import Posed, Way
from tunesmith.evaluation.suites.questions import Question
from tunesmith.inference.generate import BATCH_ROWS, Answer
from tunesmith.inference.sampling import Sampling

NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
ENDS = {"number": ("\nQuestion:", "\n问题："), "text": ("\n",)}
"""Where the answer of a model that only goes on with a text is over: a number's has lines."""


Write = Callable[[Sequence[Sequence[int]], Sampling], list[Answer]]
"""Answers several prompts."""


@dataclass(frozen=True)
class Written:
    """Answers, and the tokens of questions and answers together."""

    texts: list[str]
    num_tokens: int


def write_answers(
    write: Write, posed: Sequence[Posed], way: Way, done: Callable[[int], None]
) -> Written:
    """Let a model answer questions that fit, by its likeliest tokens.

    Args:
        done: called with how many more questions are answered.
    """
    stop = () if way.chat else ENDS[way.kind]
    sampling = Sampling(max_tokens=way.max_tokens, stop=stop)
    order = sorted(range(len(posed)), key=lambda place: len(posed[place].prompt))
    texts, computed = [""] * len(posed), 0
    for start in range(0, len(order), BATCH_ROWS):
        chosen = order[start : start + BATCH_ROWS]
        given = write([posed[place].prompt for place in chosen], sampling)
        for place, one in zip(chosen, given, strict=True):
            texts[place] = one.text
            computed += one.num_prompt_tokens + len(one.tokens)
        done(len(chosen))
    return Written(texts, computed)


def is_right(question: Question, said: str, way: Way) -> bool:
    """Whether an answer is the expected one: the same number, or the same words."""
    if way.kind == "text":
        return exact_match(said, question.answer)
    number = find_number(said)
    return number is not None and number == find_number(question.answer)


def find_number(text: str) -> Decimal | None:
    """Find the number that an answer ends in: the first after ####, else the last one.

    Commas that part thousands, signs of money and of percent, and zeros at the end do not matter.
    """
    said = narrow(text).replace("−", "-")
    _, marked, after = said.rpartition("####")
    found = NUMBER.findall(re.sub(r"(?<=-)\s*[$€£¥]\s*", "", after if marked else said))
    if not found:
        return None
    return Decimal(found[0 if marked else -1].replace(",", ""))
