"""Conversations in the form a server sends them, and the same matter as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from disguise import disguise
from exercises import draw_exercise
from facts import read_relations
from passages import Asked, Passage, Passages
from values import Values, made_up

HERE = Path(__file__).parent
Message = dict[str, str]
WRAPPERS = {
    "en": (
        "{p}\n\n{q}",
        "{p}\n\n{q}",
        "{p}\n{q}",
        "{p} {q}",
        "{q}\n\n{p}",
        "{q}\n{p}",
        "Text: {p}\nQuestion: {q}",
        "Text:\n{p}\n\nQuestion: {q}",
        "Context: {p}\n\nQuestion: {q}\nAnswer:",
        "Passage: {p}\n\n{q}",
        "Read the text and answer the question.\n\n{p}\n\n{q}",
        "Read this paragraph: {p}\n\nNow answer: {q}",
        "Answer the question from the text below.\n\n{p}\n\nQuestion: {q}",
        "Here is some information:\n{p}\n\n{q}",
        "According to the text: {p}\n\n{q}",
        "Information: {p} Question: {q}",
        'Given the text "{p}", {q}',
    ),
    "zh": (
        "{p}\n\n{q}",
        "{p}\n\n{q}",
        "{p}\n{q}",
        "{p}{q}",
        "{q}\n\n{p}",
        "{q}\n{p}",
        "材料:{p}\n问题:{q}",
        "资料:\n{p}\n\n问题:{q}",
        "文章:{p}\n\n请问:{q}",
        "请阅读下面的文字,回答问题。\n\n{p}\n\n{q}",
        "根据下面的内容回答问题:\n{p}\n问题:{q}",
        "已知:{p}\n{q}",
        "以下是一些信息:\n{p}\n\n{q}",
        "根据这段话回答:{p}\n{q}",
        "段落:{p}\n问:{q}\n答:",
        "“{p}”根据这句话,{q}",
    ),
}
SYSTEMS = {
    "en": (
        "{p}",
        "Use this information: {p}",
        "You are a helpful assistant. {p}",
        "Answer from this text:\n{p}",
        "You know the following:\n{p}",
    ),
    "zh": (
        "{p}",
        "请根据以下信息回答:{p}",
        "你是一个有用的助手。{p}",
        "你知道以下内容:\n{p}",
        "资料:{p}",
    ),
}
PLAIN_SYSTEMS = {
    "en": ("You are a helpful assistant.", "Be short and polite.", "You are an assistant."),
    "zh": ("你是一个有用的助手。", "请简短礼貌地回答。", "你是一名助手。"),
}
UNKNOWN = {"en": "The text does not say.", "zh": "文中没有提到。"}


class Conversations:
    """Draw conversations and texts of one language."""

    def __init__(self, values: Values, *, quoting: bool = False) -> None:
        """Answer from passages briefly, or by quoting the sentence that says it."""
        self.values, self.random, self.language = values, values.random, values.language
        self.quoting = quoting
        self.passages = Passages(read_relations(self.language), values)
        self.talk = read_pairs(f"talk_{self.language}.txt")
        self.world = read_pairs(f"world_{self.language}.txt")

    def draw(self) -> list[Message]:
        """Draw a conversation; most ask about a passage."""
        kinds: tuple[Callable[[], list[Message]], ...] = (
            self.about_passage,
            self.small_talk,
            self.exercise,
            self.knowledge,
            self.persona,
        )
        spoken = self.random.choices(kinds, [62, 13, 10, 8, 7])[0]()
        return [{**message, "content": self._spell(message)} for message in spoken]

    def _spell(self, message: Message) -> str:
        """Write as people type: not always with capitals, marks or full-width punctuation."""
        content, is_answer = message["content"], message["role"] == "assistant"
        if self.language == "zh":
            return widen(content) if is_answer or self.random.random() < 0.7 else content
        if message["role"] == "user" and "\n" not in content and self.random.random() < 0.12:
            content = content.removesuffix("?")
            return content[:1].lower() + content[1:]
        return content

    def about_passage(self) -> list[Message]:
        """Give a passage and ask about it, once or several times."""
        passage = self._passage()
        first, *rest = passage.asked
        if self.random.random() < 0.005:
            return self._unanswerable(passage)
        if self.random.random() < 0.2:
            system = self.random.choice(SYSTEMS[self.language]).format(p=passage.text)
            messages = [_say("system", system), _say("user", first.question)]
        else:
            wrapper = self.random.choice(WRAPPERS[self.language])
            messages = [_say("user", wrapper.format(p=passage.text, q=first.question))]
        messages.append(_say("assistant", self._answer(passage, first)))
        for asked in rest:
            messages += [
                _say("user", asked.question),
                _say("assistant", self._answer(passage, asked)),
            ]
        return messages

    def _passage(self) -> Passage:
        """Draw a passage; every second one in words of another."""
        passage = self.passages.draw()
        return disguise(passage, self.values) if self.random.random() < 0.5 else passage

    def _answer(self, passage: Passage, asked: Asked) -> str:
        return passage.quote(asked) if self.quoting else asked.answer

    def _unanswerable(self, passage: Passage) -> list[Message]:
        """Ask what another passage tells."""
        question = self.passages.draw().asked[0].question
        wrapper = self.random.choice(WRAPPERS[self.language])
        return [
            _say("user", wrapper.format(p=passage.text, q=question)),
            _say("assistant", UNKNOWN[self.language]),
        ]

    def small_talk(self) -> list[Message]:
        """Greet, thank and so on, one to three times."""
        messages = self._maybe_system()
        for _ in range(self.random.choices([1, 2, 3], [6, 3, 1])[0]):
            messages += self._pair(self.random.choice(self.talk))
        return messages

    def exercise(self) -> list[Message]:
        """Do a small exercise."""
        question, answer = draw_exercise(self.values)
        return [*self._maybe_system(), _say("user", question), _say("assistant", answer)]

    def knowledge(self) -> list[Message]:
        """Answer from memory."""
        return [*self._maybe_system(), *self._pair(self.random.choice(self.world))]

    def persona(self) -> list[Message]:
        """Be who the system prompt says."""
        name, shop = self.values.draw("name"), self.values.draw("shop")
        if self.language == "en":
            system = f"You are {name}, the assistant of {shop}."
            asked = (
                ("Who are you?", f"I am {name}, the assistant of {shop}."),
                ("What is your name?", f"My name is {name}."),
                ("Who do you work for?", f"I work for {shop}."),
                ("hello", f"Hello! I am {name} of {shop}. How can I help you?"),
            )
        else:
            system = f"你是{name},{shop}的助手。"
            asked = (
                ("你是谁?", f"我是{name},{shop}的助手。"),
                ("你叫什么名字?", f"我叫{name}。"),
                ("你在哪里工作?", f"我在{shop}工作。"),
                ("你好", f"您好!我是{shop}的{name},有什么可以帮您?"),
            )
        messages = [_say("system", system)]
        for question, answer in self.random.sample(asked, self.random.randint(1, 2)):
            messages += [_say("user", question), _say("assistant", answer)]
        return messages

    def text(self) -> str:
        """Draw a plain text for pretraining."""
        text = self._text()
        return widen(text) if self.language == "zh" and self.random.random() < 0.7 else text

    def _text(self) -> str:
        kind = self.random.random()
        if kind < 0.3:
            return self._passage().text
        if kind < 0.7:
            passage = self._passage()
            marks = self.random.choice(QUESTION_MARKS[self.language])
            lines = [marks.format(q=asked.question, a=asked.answer) for asked in passage.asked]
            return "\n".join([passage.text, *lines])
        if kind < 0.78:
            words = [word for word in self.values.words if word not in SYLLABLES]
            group = self.values.words[self.random.choice(words)]
            comma = ", " if self.language == "en" else "、"
            return comma.join(self.random.sample(group, min(len(group), self.random.randint(3, 9))))
        spoken = self.draw()
        names = self._speakers()
        return "\n".join(f"{names[message['role']]}{message['content']}" for message in spoken)

    def _speakers(self) -> dict[str, str]:
        if self.language == "en":
            one, other = self.random.choice(
                [("Q", "A"), ("User", "Assistant"), (made_up(self.values), "Bot")]
            )
            return {"system": "", "user": f"{one}: ", "assistant": f"{other}: "}
        one, other = self.random.choice([("问", "答"), ("用户", "助手"), ("客人", "店员")])
        return {"system": "", "user": f"{one}:", "assistant": f"{other}:"}

    def _maybe_system(self) -> list[Message]:
        if self.random.random() < 0.8:
            return []
        return [_say("system", self.random.choice(PLAIN_SYSTEMS[self.language]))]

    def _pair(self, pair: tuple[list[str], list[str]]) -> list[Message]:
        questions, answers = pair
        question, answer = self.random.choice(questions), self.random.choice(answers)
        return [_say("user", question), _say("assistant", answer)]


SYLLABLES = (
    "onset",
    "nucleus",
    "coda",
    "sound",
    "surname",
    "nick",
    "past",
    "base",
    "article",
    "kept",
)
QUESTION_MARKS = {
    "en": ("Q: {q}\nA: {a}", "{q} {a}", "Question: {q} Answer: {a}"),
    "zh": ("问:{q}\n答:{a}", "{q}{a}", "问题:{q}回答:{a}"),
}


def read_pairs(name: str) -> list[tuple[list[str], list[str]]]:
    """Read lines of `question / question => answer / answer`."""
    pairs = []
    for line in (HERE / name).read_text("utf-8").splitlines():
        asked, _, answers = line.partition(" => ")
        pairs.append((asked.split(" / "), answers.split(" / ")))
    return pairs


WIDE = dict(zip(",?!:;", "\uff0c\uff1f\uff01\uff1a\uff1b", strict=True))
NARROW = re.compile(r"(?<![0-9a-zA-Z])[,:]|[,:](?![0-9a-zA-Z])|[?!;]")


def widen(text: str) -> str:
    """Write Chinese punctuation in full width, but leave times, numbers and words alone."""
    return NARROW.sub(lambda found: WIDE[found.group()], text)


def _say(role: str, content: str) -> Message:
    return {"role": role, "content": content}
