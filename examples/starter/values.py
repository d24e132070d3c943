"""Draw random names, numbers and phrases, so that an answer has to be copied."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
HELD_OUT_SHARE = 8
"""One value in so many is kept from training and used for the held-out prompts only."""
COMMON_CHARACTERS = "".join(
    bytes([row, cell]).decode("gb2312", "ignore")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF)
)
"""The 3,755 characters of the first level of GB 2312."""

Lists = dict[str, list[str]]


def read_words(language: str) -> Lists:
    """Read the word lists of a language: a line is `name: word, word, ...`."""
    lists: Lists = {}
    for line in (HERE / f"words_{language}.txt").read_text("utf-8").splitlines():
        name, colon, words = line.partition(": ")
        if colon:
            lists.setdefault(name, []).extend(w.strip() for w in words.split(","))
    return lists


def is_held_out(value: str) -> bool:
    """Tell whether a value belongs to the held-out prompts; the same on every machine."""
    return zlib.crc32(value.strip().lower().encode()) % HELD_OUT_SHARE == 0


@dataclass
class Values:
    """Random values of one language.

    Attributes:
        random: the source of all choices.
        language: `en` or `zh`.
        words: word lists by name.
        held_out: draw only values that training never sees, instead of the others.
    """

    random: Random
    language: str
    words: Lists
    held_out: bool = False

    def draw(self, kind: str) -> str:
        """Draw a value of a kind such as `person`, `price` or a word list's name."""
        makers = CHINESE if self.language == "zh" else ENGLISH
        for _ in range(60):
            value = makers[kind](self) if kind in makers else self.word(kind)
            if kind in self.words or is_held_out(value) == self.held_out:
                return value
        return value

    def word(self, kind: str) -> str:
        """Draw a word of a list; `+` joins lists."""
        return " ".join(self.random.choice(self.words[part]) for part in kind.split("+"))

    def number(self, low: int, high: int) -> str:
        """Draw a number; small ones as often as large ones."""
        return str(self.random.randint(low, self.random.choice([high, max(low + 3, high // 10)])))

    def digits(self, *sizes: int, join: str = "-") -> str:
        """Draw groups of digits."""
        groups = ("".join(self.random.choices("0123456789", k=size)) for size in sizes)
        return join.join(groups)

    def code(self) -> str:
        """Draw a code such as E42 or KX-907."""
        letters = "".join(
            self.random.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=self.random.randint(1, 3))
        )
        return letters + self.random.choice(["", "-"]) + self.digits(self.random.randint(2, 4))


def made_up(values: Values, *, most: int = 3) -> str:
    """Make up an English-looking word from syllables."""
    random, words = values.random, values.words
    count = random.choices([1, 2, 3], [3, 6, 1])[0]
    parts = [
        random.choice(words["onset"]) + random.choice(words["nucleus"])
        for _ in range(min(count, most))
    ]
    return ("".join(parts) + random.choice(words["coda"])).capitalize()


def english_name(values: Values) -> str:
    """Draw a first name: known or made up."""
    return values.word("first") if values.random.random() < 0.4 else made_up(values)


def english_person(values: Values) -> str:
    """Draw a person's name, with or without a family name or title."""
    kind = values.random.random()
    if kind < 0.5:
        return english_name(values)
    last = values.word("last") if values.random.random() < 0.4 else made_up(values)
    if kind < 0.6:
        return f"{values.word('title')} {last}"
    return f"{english_name(values)} {last}"


def english_shop(values: Values) -> str:
    """Draw a shop's or company's name."""
    random = values.random
    shape = random.choice(["{n}'s {k}", "{a} {t} {k}", "{m} {k}", "{m}", "the {a} {t}", "{m} {t}"])
    return shape.format(
        n=english_name(values),
        k=values.word("shop_kind").capitalize(),
        a=values.word("adjective").capitalize(),
        t=values.word("thing").capitalize(),
        m=made_up(values),
    )


def english_time(values: Values) -> str:
    """Draw a time of day."""
    hour, minute = values.random.randint(1, 12), values.random.choice(["00", "15", "30", "45"])
    half = values.random.choice(["am", "pm"])
    return values.random.choice([f"{hour}:{minute} {half}", f"{hour} {half}", f"{hour}:{minute}"])


def english_hours(values: Values) -> str:
    """Draw opening hours."""
    shape = values.random.choice(["{a} to {b}", "{a} to {b}", "{a}-{b}", "{a} until {b}"])
    return shape.format(a=english_time(values), b=english_time(values))


def english_price(values: Values) -> str:
    """Draw a price."""
    whole = values.number(1, 900)
    shapes = [f"${whole}.{values.digits(2)}", f"${whole}", f"{whole} dollars", f"{whole} euros"]
    return values.random.choice(shapes)


def english_count(values: Values) -> str:
    """Draw a number, in digits or as a word."""
    return values.number(2, 5000) if values.random.random() < 0.75 else values.word("number")


def english_date(values: Values) -> str:
    """Draw a date, a day or a year."""
    random, month, day = values.random, values.word("month"), values.random.randint(1, 28)
    year = random.randint(1500, 2030)
    return random.choice(
        [f"{month} {day}", f"{day} {month}", f"{month} {year}", f"{month} {day}, {year}"]
    )


def english_phrase(values: Values) -> str:
    """Draw one to three words that need not make sense together."""
    kind = values.random.random()
    if kind < 0.3:
        return made_up(values).lower()
    if kind < 0.6:
        return values.word("adjective+thing")
    return values.word("thing") if kind < 0.8 else values.word("color+material+thing")


ANYTHING = ("phrase", "phrase", "name", "place", "code", "price", "count", "date", "word", "color")
"""Kinds of values that any property may have."""

ENGLISH: dict[str, Callable[[Values], str]] = {
    "person": english_person,
    "name": english_name,
    "shop": english_shop,
    "place": lambda v: v.word("city") if v.random.random() < 0.35 else made_up(v),
    "word": made_up,
    "address": lambda v: f"{v.number(1, 400)} {made_up(v)} {v.word('street')}",
    "time": english_time,
    "hours": english_hours,
    "price": english_price,
    "count": english_count,
    "age": lambda v: v.number(5, 99),
    "year": lambda v: str(v.random.randint(1200, 2035)),
    "date": english_date,
    "phone": lambda v: v.random.choice([v.digits(3, 4), v.digits(3, 3, 4), v.digits(8)]),
    "code": lambda v: v.code(),
    "measure": lambda v: f"{v.number(2, 900)} {v.word('unit')}",
    "minutes": lambda v: f"{v.number(2, 90)} {v.word('span')}",
    "email": lambda v: f"{made_up(v).lower()}@{made_up(v).lower()}.com",
    "dish": lambda v: v.word("food_adjective+food") if v.random.random() < 0.6 else v.word("food"),
    "object": lambda v: v.random.choice(["a ", "the ", "a "]) + v.word("adjective+thing"),
    "foods": lambda v: f"{v.word('ingredient')} and {v.word('ingredient')}",
    "phrase": english_phrase,
    "percent": lambda v: f"{v.number(1, 99)}%",
    "creature": lambda v: v.word("animal") if v.random.random() < 0.7 else made_up(v).lower(),
    "product": lambda v: f"{made_up(v)} {v.word('thing')}",
    "event": lambda v: f"the {made_up(v)} {v.word('occasion')}",
    "machine": lambda v: v.code(),
    "anything": lambda v: v.draw(v.random.choice(ANYTHING)),
}


def characters(values: Values, low: int, high: int) -> str:
    """Draw common Chinese characters that need not make sense together."""
    size = values.random.randint(low, high)
    return "".join(values.random.choice(COMMON_CHARACTERS) for _ in range(size))


def chinese_person(values: Values) -> str:
    """Draw a Chinese person's name, a nickname or a transcribed foreign name."""
    kind = values.random.random()
    if kind < 0.65:
        return values.word("surname") + characters(values, 1, 2)
    if kind < 0.85:
        return values.word("nick") + values.word("surname")
    return "".join(values.random.choices(values.words["sound"], k=values.random.randint(2, 4)))


def chinese_shop(values: Values) -> str:
    """Draw the name of a shop or company."""
    shape = values.random.choice(["{p}{c}{k}", "{c}{k}", "{c}{k}", "{n}{k}"])
    return shape.format(
        p=chinese_place(values),
        c=characters(values, 2, 3),
        k=values.word("shop_kind"),
        n=chinese_person(values),
    )


def chinese_place(values: Values) -> str:
    """Draw a place: a real city, or made up."""
    if values.random.random() < 0.3:
        return values.word("city")
    return characters(values, 1, 3) + values.word("place_end")


def chinese_time(values: Values) -> str:
    """Draw a time of day."""
    hour = values.random.randint(1, 12)
    clock = f"{values.random.randint(0, 23)}:{values.random.choice(['00', '15', '30', '45'])}"
    spoken = values.word("half") + str(hour) + values.random.choice(["点", "点半", "点"])
    return values.random.choice([clock, spoken])


def chinese_hours(values: Values) -> str:
    """Draw opening hours."""
    join = values.random.choice(["到", "至", "-"])
    return f"{chinese_time(values)}{join}{chinese_time(values)}"


def chinese_price(values: Values) -> str:
    """Draw a price."""
    whole = values.number(1, 999)
    return values.random.choice(
        [f"{whole}元", f"{whole}元", f"{whole}块钱", f"{whole}.{values.digits(1)}元"]
    )


def chinese_date(values: Values) -> str:
    """Draw a date."""
    random = values.random
    day = f"{random.randint(1, 12)}月{random.randint(1, 28)}日"
    return random.choice([day, f"{random.randint(1600, 2030)}年{day}", values.word("weekday")])


def chinese_phrase(values: Values) -> str:
    """Draw a word or phrase."""
    kind = values.random.random()
    if kind < 0.4:
        return characters(values, 2, 5)
    return values.word("thing") if kind < 0.6 else values.word("adjective") + values.word("thing")


CHINESE: dict[str, Callable[[Values], str]] = {
    "person": chinese_person,
    "name": chinese_person,
    "shop": chinese_shop,
    "place": chinese_place,
    "word": lambda v: characters(v, 2, 4),
    "address": lambda v: f"{characters(v, 2, 3)}{v.word('street')}{v.number(1, 300)}号",
    "time": chinese_time,
    "hours": chinese_hours,
    "price": chinese_price,
    "count": lambda v: v.number(2, 5000) if v.random.random() < 0.8 else v.word("number"),
    "age": lambda v: v.number(3, 99),
    "year": lambda v: f"{v.random.randint(1200, 2035)}年",
    "date": chinese_date,
    "phone": lambda v: v.random.choice([v.digits(3, 8), v.digits(11), v.digits(8), v.digits(3, 4)]),
    "code": lambda v: v.code(),
    "measure": lambda v: v.number(2, 900) + v.word("unit"),
    "minutes": lambda v: v.number(2, 90) + v.word("span"),
    "email": lambda v: f"{v.code().lower()}@{v.code().lower()}.com",
    "dish": lambda v: (
        v.word("food_adjective") + v.word("food")
        if v.random.random() < 0.6
        else characters(v, 1, 3) + v.word("food")
    ),
    "object": lambda v: v.word("article") + v.word("adjective") + v.word("thing"),
    "foods": lambda v: f"{v.word('ingredient')}和{v.word('ingredient')}",
    "phrase": chinese_phrase,
    "percent": lambda v: f"{v.number(1, 99)}%",
    "creature": lambda v: v.word("animal") if v.random.random() < 0.7 else characters(v, 2, 3),
    "product": lambda v: characters(v, 2, 3) + v.word("thing"),
    "event": lambda v: characters(v, 2, 3) + v.word("occasion"),
    "machine": lambda v: v.code(),
    "anything": lambda v: v.draw(v.random.choice(ANYTHING)),
}
