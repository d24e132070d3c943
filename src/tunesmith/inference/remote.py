"""A server elsewhere that speaks as OpenAI's does; used only where a person names it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tunesmith.errors import EngineError, RequestError
from tunesmith.inference.elsewhere.asked import forms_on_wire, seen_by_us
from tunesmith.inference.elsewhere.wire import Address
from tunesmith.inference.elsewhere.writing import (
    Open,
    check_request,
    fields_of,
    held,
    understood,
    unknown_model,
    write_all,
)
from tunesmith.inference.engine import (
    Engine,
    Hear,
    Load,
    Piece,
    Request,
    Speech,
    Tokenize,
    Work,
)
from tunesmith.inference.generate import Answer, Finish, Messages, Tools
from tunesmith.inference.looked import refuse_shown
from tunesmith.inference.manner import Manner
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent
from tunesmith.inference.structured import Outline
from tunesmith.inference.thinking import Thinking
from tunesmith.inference.tool_calls import named_tool_format
from tunesmith.settings import LOOPBACK

NAME, WIDTH = "remote", 64
CONVERSATION = 256
"""Stands before the JSON of a conversation among the bytes that are our tokens for a remote."""
LONGEST = 8 << 20
KNOWN = (
    "max_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
)
"""What every such server takes; it has its own tokens, so biases and log-probabilities are none."""


@dataclass(frozen=True)
class RemoteOptions:
    """Which server is asked.

    Attributes:
        url: where its paths begin, such as `http://127.0.0.1:8000/v1`.
        key: sent with each request; none if empty.
        model: its name there; the first that it lists if empty.
    """

    url: str
    key: str = ""
    model: str = ""


class RemoteSpeech(Speech):
    """Speech of a model whose tokenizer and template are elsewhere: our tokens are bytes.

    Thoughts and calls, which it parts itself, are written into one text and parted again by us.
    """

    longest, num_tokens = LONGEST, CONVERSATION + 1
    stop_ids: tuple[int, ...] = ()
    defaults, can_chat = Sampling(temperature=1.0), True
    options: frozenset[str] = frozenset({"enable_thinking"})
    manner = Manner(named_tool_format("hermes"), Thinking("<think>", "</think>"))

    def write(self, messages: Messages, tools: Tools, options: Mapping[str, Any]) -> Tokenize:
        """Write a conversation as JSON; its bytes are passed on as they are."""
        refuse_shown(messages)
        asked: dict[str, Any] = {"messages": [_on_wire(message) for message in messages]}
        if tools:
            asked["tools"] = list(tools)
        if options:
            asked["chat_template_kwargs"] = dict(options)
        return lambda: [CONVERSATION, *json.dumps(asked, ensure_ascii=False).encode()]

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text."""
        return list(text.encode())

    def forms(self, outline: Outline, count: int) -> Sequence[Sent]:
        """Say what is asked in the words of OpenAI's API, or of vLLM's where that has none."""
        asked = forms_on_wire(outline)
        plain = seen_by_us(outline)
        return [Sent(asked, plain) for _ in range(count)]

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of bytes."""
        return bytes(token for token in tokens if token != CONVERSATION).decode("utf-8", "replace")

    def spell(self, token: int) -> bytes:
        """Return a byte."""
        return bytes([token]) if token != CONVERSATION else b""


class Remote(Engine):
    """One model of a server elsewhere; no other address is ever asked.

    Args:
        width: how many answers are asked for at the same time.

    Raises:
        RequestError: if the URL is none, or would send the key in the clear.
        EngineError: if nothing answers there.
    """

    def __init__(self, options: RemoteOptions, width: int | None = None) -> None:
        self.width, self._open = width or WIDTH, Open()
        self._address = read_url(options.url, options.key)
        self._name = options.model or self._first()
        self._speech = RemoteSpeech()

    def models(self) -> Mapping[str, Speech]:
        """Return the one model."""
        return {self._name: self._speech}

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer."""

        def read(events: Iterable[Any]) -> Iterator[Piece]:
            return held(_pieces(events), request)

        return self._open.start(self._address, self._ask(request), read, hear)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt, several at a time."""
        return write_all(self._write, prompts, sampling, at_once=8)

    def load(self) -> Load:
        """Tell how many answers were asked for."""
        return self._open.load(self.width)

    def close(self) -> None:
        """Nothing is held; answers in work end with this process."""

    def _first(self) -> str:
        listed = self._address.ask("/models").get("data")
        if not listed:
            raise EngineError(
                "the server lists no model",
                hint="name the one to ask",
                where=str(self._address),
            )
        return str(listed[0]["id"])

    def _ask(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Say what is asked: a conversation as it came, or a text to go on from."""
        sampling, prompt = request.sampling, request.prompt
        if request.model not in ("", self._name):
            raise unknown_model(request.model, [self._name])
        limit = check_request(request, LONGEST, KNOWN, NAME)
        asked = {
            "model": self._name,
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "stop": list(sampling.stop),
            "seed": sampling.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        asked = {name: value for name, value in asked.items() if value not in (None, [])}
        asked |= fields_of(request)
        text = self._speech.decode(prompt)
        if prompt[0] == CONVERSATION:
            return "/chat/completions", {**asked, **json.loads(text)}
        return "/completions", {**asked, "prompt": text}

    def _write(self, prompt: Sequence[int], sampling: Sampling) -> Answer:
        with self._address.open(*self._ask(Request(prompt, sampling))) as reply:
            pieces = list(understood(_pieces(reply.events()), self._address))
        if not pieces or pieces[-1].finish is None:
            raise self._address.unreachable("the answer breaks off")
        text, last = "".join(piece.text for piece in pieces), pieces[-1]
        assert last.finish is not None
        asked = last.counted[0] if last.counted else len(prompt)
        return Answer(text, tuple(self._speech.encode(text)), last.finish, asked)


def _on_wire(message: Mapping[str, Any]) -> dict[str, Any]:
    """Write the arguments of calls as text, which OpenAI's API takes and templates do not."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    spelled = [
        {**call, "function": {**call["function"], "arguments": _text(call["function"])}}
        for call in calls
    ]
    return {**message, "tool_calls": spelled}


def _text(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def read_url(url: str, key: str) -> Address:
    """Read where a server is; what is read here is all that is ever connected to.

    Raises:
        RequestError: if it is no plain URL, or the key would go over the network in the clear.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise _refused(url, str(problem)) from None
    if parts.scheme not in ("http", "https") or not host:
        raise _refused(url, "it begins with neither http:// nor https://, or names no host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _refused(url, "it holds more than host, port and path")
    secure = parts.scheme == "https"
    if key and not secure and host not in (LOOPBACK, "localhost", "::1"):
        raise _refused(url, "the key would be sent in the clear; use https://")
    port = port or (443 if secure else 80)
    return Address(host, port, key, parts.path.rstrip("/"), secure)


def _refused(url: str, why: str) -> RequestError:
    return RequestError(
        f"the URL cannot be used: {why}",
        hint="write it as http://127.0.0.1:8000/v1, and the key into a file",
        where=url,
    )


def _pieces(events: Iterable[Any]) -> Iterator[Piece]:
    """Turn chunks into pieces; the last one waits for the count that follows it."""
    finish: Finish | None = None
    counted: tuple[int, int] | None = None
    thinks, calls = False, _Calls()
    for event in events:
        counted = _counted(event) or counted
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {"content": choice.get("text")}
            thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
            said = delta.get("content") or ""
            text = ("" if thinks or not thought else "<think>") + thought
            text += ("</think>" if thinks and said and not thought else "") + said
            thinks = bool(thought) or (thinks and not said)
            calls.take(delta.get("tool_calls") or ())
            if choice.get("finish_reason"):
                finish = "length" if choice["finish_reason"] == "length" else "stop"
            if text:
                yield Piece(text)
    if finish is not None:
        yield Piece(("</think>" if thinks else "") + calls.spell(), (), finish, counted)


def _counted(event: Mapping[str, Any]) -> tuple[int, int] | None:
    usage = event.get("usage")
    return (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


class _Calls:
    """Calls of tools as they come in parts, spelled once they are whole."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._arguments: dict[int, str] = {}

    def take(self, parts: Iterable[Mapping[str, Any]]) -> None:
        for part in parts:
            at, function = part.get("index", 0), part.get("function") or {}
            self._names[at] = self._names.get(at, "") + (function.get("name") or "")
            self._arguments[at] = self._arguments.get(at, "") + (function.get("arguments") or "")

    def spell(self) -> str:
        return "".join(
            f'\n<tool_call>\n{{"name": {json.dumps(name)}, '
            f'"arguments": {self._arguments[at] or "{}"}}}\n</tool_call>'
            for at, name in sorted(self._names.items())
        )
