"""Small exercises: arithmetic, lists, words; each a question and its answer."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from values import Values

Pair = tuple[str, str]


def add(v: Values) -> Pair:
    """Add two numbers up to 50."""
    a, b = v.random.randint(0, 50), v.random.randint(0, 50)
    return _sum(v, a, "+", b, a + b)


def subtract(v: Values) -> Pair:
    """Subtract within 50."""
    a = v.random.randint(0, 50)
    b = v.random.randint(0, a)
    return _sum(v, a, "-", b, a - b)


def multiply(v: Values) -> Pair:
    """Multiply within the table."""
    a, b = v.random.randint(1, 10), v.random.randint(1, 10)
    return _sum(v, a, v.random.choice(["x", "*", "×"]), b, a * b)


def _sum(v: Values, a: int, sign: str, b: int, result: int) -> Pair:
    english = [f"What is {a} {sign} {b}?", f"{a} {sign} {b} = ?", f"Compute {a} {sign} {b}."]
    chinese = [f"{a}{sign}{b}等于多少?", f"{a}{sign}{b}=?", f"计算{a}{sign}{b}。"]
    question = v.random.choice(english if v.language == "en" else chinese)
    return question, f"{a} {sign} {b} = {result}"


def larger(v: Values) -> Pair:
    """Compare two numbers."""
    a, b = v.random.sample(range(1000), 2)
    if v.language == "en":
        return f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger."
    return f"{a}和{b}哪个大?", f"{max(a, b)}更大。"


def _some(v: Values, low: int = 2, high: int = 5) -> list[str]:
    kind = v.random.choice(["thing", "animal", "color", "food", "job", "ingredient"])
    return v.random.sample(v.words[kind], v.random.randint(low, high))


def listing(v: Values) -> Pair:
    """Write given words as a list."""
    words = _some(v)
    lines = "\n".join(f"- {word}" for word in words)
    numbered = "\n".join(f"{n}. {word}" for n, word in enumerate(words, 1))
    if v.language == "en":
        joined = ", ".join(words)
        return v.random.choice(
            [
                (f"Make a list of these: {joined}", lines),
                (f"Write as a list: {joined}", lines),
                (f"Number these: {joined}", numbered),
            ]
        )
    joined = "、".join(words)
    return v.random.choice(
        [
            (f"把这些列成清单:{joined}", lines),
            (f"请列出:{joined}", lines),
            (f"给这些编号:{joined}", numbered),
        ]
    )


def examples(v: Values) -> Pair:
    """Name some of a kind."""
    kind = v.random.choice(list(KINDS[v.language]))
    count = v.random.randint(2, 4)
    words = v.random.sample(v.words[kind], count)
    name = KINDS[v.language][kind]
    if v.language == "en":
        return f"Name {SPELLED[count]} {name}.", "\n".join(
            f"{n}. {w}" for n, w in enumerate(words, 1)
        )
    return f"说出{'零一两三四'[count]}种{name}。", "、".join(words) + "。"


SPELLED = {2: "two", 3: "three", 4: "four"}
KINDS = {
    "en": {
        "animal": "animals",
        "color": "colors",
        "food": "foods",
        "job": "jobs",
        "hobby": "hobbies",
    },
    "zh": {"animal": "动物", "color": "颜色", "food": "食物", "job": "职业", "hobby": "爱好"},
}


def pick(v: Values) -> Pair:
    """Give the first, last or n-th of a list."""
    words = _some(v, 3, 5)
    place = v.random.randrange(len(words))
    last = place == len(words) - 1
    if v.language == "en":
        name = "last" if last else ORDINALS[place]
        return (
            f"{', '.join(words)}. What is the {name} word?",
            f"The {name} word is {words[place]}.",
        )
    name = "最后一个" if last else f"第{'一二三四五'[place]}个"
    return f"{'、'.join(words)}。{name}词是什么?", f"{name}词是{words[place]}。"


ORDINALS = ("first", "second", "third", "fourth", "fifth")


def repeat(v: Values) -> Pair:
    """Say what one is told to say."""
    phrase = v.draw(v.random.choice(["phrase", "person", "shop", "code", "place", "product"]))
    if v.language == "en":
        shape = v.random.choice(["Repeat: {}", "Say {}", "Please say: {}", "Repeat after me: {}"])
    else:
        shape = v.random.choice(["请重复:{}", "跟我说:{}", "重复一遍:{}", "请说:{}"])
    return shape.format(phrase), phrase


def count(v: Values) -> Pair:
    """Count the words of a list."""
    words = _some(v, 2, 6)
    if v.language == "en":
        return f"How many words: {', '.join(words)}?", f"There are {len(words)}."
    return f"一共有几个:{'、'.join(words)}?", f"一共有{len(words)}个。"


def introduce(v: Values) -> Pair:
    """Greet somebody by name."""
    name = v.draw("name")
    if v.language == "en":
        return v.random.choice(
            [
                (f"My name is {name}.", f"Hello, {name}! How can I help you?"),
                (f"Hi, I am {name}", f"Hi {name}! What can I do for you?"),
                (f"I'm {name}, nice to meet you", f"Nice to meet you, {name}!"),
            ]
        )
    return v.random.choice(
        [
            (f"我叫{name}。", f"您好,{name}!有什么可以帮您?"),
            (f"你好,我是{name}", f"{name}您好!请问您想了解什么?"),
        ]
    )


EXERCISES: tuple[Callable[[Values], Pair], ...] = (
    add,
    subtract,
    multiply,
    larger,
    listing,
    examples,
    pick,
    repeat,
    repeat,
    count,
    introduce,
)


def draw_exercise(values: Values) -> Pair:
    """Draw an exercise with its answer."""
    random: Random = values.random
    return random.choice(EXERCISES)(values)
