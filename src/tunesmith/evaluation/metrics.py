"""Compare answers with what was expected, in any language."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
WIDE_TO_NARROW = str.maketrans("\uff0c\uff1f\uff01\uff1a\uff1b\u3000", ",?!:; ")


def words(text: str) -> list[str]:
    """Split a text into lower-case words; Chinese and Japanese into characters, as is usual."""
    return WORDS.findall(text.lower().translate(WIDE_TO_NARROW))


def rouge_l(answer: str, expected: str) -> float:
    """Measure the longest common subsequence of words as F1, from 0 to 1 (Lin 2004)."""
    from rapidfuzz.distance import LCSseq

    given, wanted = words(answer), words(expected)
    if not given or not wanted:
        return float(given == wanted)
    common = LCSseq.similarity(given, wanted)
    return 2.0 * common / (len(given) + len(wanted))


def bleu(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Measure BLEU of all answers together, 0 to 100; Chinese is split into characters."""
    from sacrebleu.metrics import BLEU

    chinese = any(CHINESE.search(text) for text in expected)
    metric = BLEU(tokenize="zh" if chinese else "13a", effective_order=True)
    return float(metric.corpus_score(list(answers), [list(expected)]).score)


def chrf(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Measure chrF of all answers together, 0 to 100 (Popovic 2015)."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(answers), [list(expected)]).score)


def exact_match(answer: str, expected: str) -> bool:
    """Whether an answer is the expected one but for case, space and width of punctuation."""
    return words(answer) == words(expected)


def holds_fact(answer: str, facts: Sequence[str]) -> bool:
    """Whether an answer contains one of several spellings of a fact."""
    said = "".join(words(answer))
    return any("".join(words(fact)) in said for fact in facts)
