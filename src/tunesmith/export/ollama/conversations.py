"""Conversations in which a template must say the same in Ollama as in the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.export.ollama.go_template import Spelled

Message = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Talk:
    """A conversation that asks for an answer.

    Attributes:
        thinking: whether thoughts are asked for; None if that is not said.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool | None = None


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _says(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def _tool(name: str) -> Mapping[str, Any]:
    place = {"type": "string", "description": "a town"}
    parameters = {"type": "object", "properties": {"place": place}, "required": ["place"]}
    function = {"name": name, "description": "Ask for it.", "parameters": parameters}
    return {"type": "function", "function": function}


def _call(name: str, place: str) -> Mapping[str, Any]:
    return {
        "id": "call00001",
        "type": "function",
        "function": {"name": name, "arguments": {"place": place}},
    }


def _result(text: str) -> Message:
    return {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": text}


RULE: Message = {"role": "system", "content": "Answer in one line.\nBe kind."}
HELLO, AGAIN = _user("Good morning"), _user("And now\n你好?")
ANSWER = _says("It is {open}: 9 to 5.")
BOTH = (_tool("weather"), _tool("time"))
CALLED = _says("", tool_calls=[_call("weather", "Kiel")])
TWICE = _says("I look.", tool_calls=[_call("weather", "Kiel"), _call("time", "Bonn")])
THOUGHT = _says("9 to 5.", reasoning_content="They ask for hours.")

TALKS: tuple[Talk, ...] = (
    Talk((HELLO,)),
    Talk((RULE, HELLO)),
    Talk((HELLO, ANSWER, AGAIN)),
    Talk((RULE, HELLO, ANSWER, AGAIN, _says("Yes."), _user("Thanks"))),
    Talk((HELLO,), BOTH),
    Talk((RULE, HELLO), BOTH[:1]),
    Talk((HELLO, CALLED, _result("rain")), BOTH),
    Talk((RULE, HELLO, TWICE, _result("sun"), _result("noon")), BOTH),
    Talk((RULE, HELLO, CALLED, _result("sun"), _says("Sun."), AGAIN), BOTH),
    Talk((HELLO,), thinking=True),
    Talk((HELLO,), thinking=False),
    Talk((RULE, HELLO, THOUGHT, AGAIN), thinking=True),
    Talk((RULE, HELLO, THOUGHT, AGAIN)),
)


@dataclass
class Joined:
    """A message as Ollama hands it to a template."""

    role: str
    content: str
    thinking: str = ""
    calls: list[Any] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """Return it by the names that templates use."""
        return {
            "Role": self.role,
            "Content": self.content,
            "Thinking": self.thinking,
            "ToolCalls": self.calls,
        }


def as_ollama(talk: Talk) -> dict[str, Any]:
    """Return what Ollama hands to a template: messages of one role that follow are joined."""
    joined: list[Joined] = []
    for message in talk.messages:
        role, content = message["role"], message["content"]
        if joined and joined[-1].role == role != "tool":
            joined[-1].content += "\n\n" + content
        else:
            thinking = message.get("reasoning_content", "")
            joined.append(Joined(role, content, thinking, _calls(message)))
    system = [message["content"] for message in talk.messages if message["role"] == "system"]
    return {
        "System": "\n\n".join(system),
        "Messages": [message.fields() for message in joined],
        "Tools": [Spelled(tool) for tool in talk.tools],
        "Response": "",
        "Think": bool(talk.thinking),
        "ThinkLevel": "",
        "IsThinkSet": talk.thinking is not None,
    }


def _calls(message: Message) -> list[Any]:
    calls: Sequence[Any] = message.get("tool_calls", ())
    functions = [call["function"] for call in calls]
    return [
        {"Function": {"Name": one["name"], "Arguments": Spelled(one["arguments"])}}
        for one in functions
    ]
