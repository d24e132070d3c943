"""Compare answers with what was expected, in any language."""

from __future__ import annotations

import re
from collections.abc import Sequence

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
ONE_A_WORD = f"[{HAN}\u3040-\u30ff\uac00-\ud7af]"
WORDS = re.compile(rf"{ONE_A_WORD}|(?:(?!{ONE_A_WORD})\w)+|[^\w\s]")
CHINESE = re.compile(f"[{HAN}]")
NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {
    0x3000: " ",
    0x3002: ". ",
    0xFF0C: ", ",
}
"""Full-width letters, digits and punctuation; a Chinese stop or comma never parts a number."""

LETTER = rf"(?!{ONE_A_WORD})[^\W\d_]"
NUMERAL = "(?<![周期拜])[〇零一二两三四五六七八九十百千万亿]"  # 周一十点 is ten on a Monday
WHOLE = {
    r"\d": (r"(?<!\d)(?<!\d[.,])", r"(?!\d)(?![.,]\d)"),
    NUMERAL: (f"(?<!{NUMERAL})", f"(?!{NUMERAL})"),
    LETTER: (f"(?<!{LETTER})", f"(?!{LETTER})"),
}
"""What must not stand before and after a fact that begins or ends with such a sign."""


def narrow(text: str) -> str:
    """Write a text in lower case and with narrow signs."""
    return text.translate(NARROW).lower()


def words(text: str) -> list[str]:
    """Split a text into lower-case words; Chinese and Japanese into characters, as is usual."""
    return WORDS.findall(narrow(text))


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
    """Whether an answer contains one of several spellings of a fact.

    Case, space and width of punctuation do not matter. A word or number is not found inside another
    one: an answer of 19 does not hold 9, nor does 9.50, and `know` does not hold `no`.
    """
    said = narrow(answer)
    return any(_spelled(parts).search(said) for fact in facts if (parts := words(fact)))


def _spelled(parts: Sequence[str]) -> re.Pattern[str]:
    before, after = _guards(parts[0][0])[0], _guards(parts[-1][-1])[1]
    return re.compile(before + r"\s*".join(map(re.escape, parts)) + after)


def _guards(sign: str) -> tuple[str, str]:
    return next((found for kind, found in WHOLE.items() if re.match(kind, sign)), ("", ""))
