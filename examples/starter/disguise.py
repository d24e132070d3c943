"""Put other words in the place of a passage's own, so that any word at all has to be copied."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from passages import Passage
from values import COMMON_CHARACTERS, Values, made_up

WORD = re.compile(r"(?<![A-Za-z0-9@.'-])[a-z]{3,}(?![A-Za-z0-9@'-]|\.[a-z])")
CHARACTER = re.compile(r"[\u4e00-\u9fff]")
LETTERS = "eeeeaaaaiiioootttnnnssrrrhhllddccuummppggbbffyywwkvxzjq"


def disguise(passage: Passage, values: Values) -> Passage:
    """Exchange about half of the words, or a third of the characters, alike in text and answers."""
    random, chinese = values.random, values.language == "zh"
    pattern, kept = CHARACTER if chinese else WORD, set(values.words["kept"])
    share = random.choice((0.2, 0.4)) if chinese else random.choice((0.3, 0.6, 0.9))
    draw = draw_character if chinese else draw_word
    found = sorted(set(pattern.findall(passage.text)) - kept)
    stems = dict.fromkeys(word if chinese else stem(word) for word in found)
    changed = {old: draw(values) for old in stems if random.random() < share}

    def exchange(match: re.Match[str]) -> str:
        word = match.group()
        base = word if chinese else stem(word)
        return changed[base] + word[len(base) :] if base in changed else word

    change: Callable[[str], str] = lambda text: pattern.sub(exchange, text)  # noqa: E731
    asked = [
        replace(
            each,
            question=change(each.question),
            answer=change(each.answer),
            fact=change(each.fact),
        )
        for each in passage.asked
    ]
    return Passage(change(passage.text), asked)


def stem(word: str) -> str:
    """Leave out an ending that a word's forms differ in."""
    for ending in ("ed", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending)
    return word


def draw_character(values: Values) -> str:
    """Draw any common Chinese character."""
    return values.random.choice(COMMON_CHARACTERS)


def draw_word(values: Values) -> str:
    """Draw a word: of any list, a common one, made up of syllables, or of letters."""
    random = values.random
    kind = random.random()
    if kind < 0.6:
        return random.choice(values.words["common"])
    if kind < 0.75:
        return made_up(values).lower()
    if kind < 0.85:
        return random.choice(values.words["common"]) + random.choice(values.words["common"])
    return "".join(random.choices(LETTERS, k=random.randint(3, 10)))
