"""Messages of a conversation as OpenAI's clients send them."""

from __future__ import annotations

import re
from base64 import b64decode
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from tunesmith.errors import RequestError
from tunesmith.serving.limits import MAX_PARTS
from tunesmith.serving.schema.sampling import AnyOf, Body, Nothing, Words, by_type
from tunesmith.templates import PLACES

SOUNDS = {
    "wav": re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE", re.DOTALL),
    "flac": re.compile(rb"fLaC"),
    "ogg": re.compile(rb"OggS"),
    "aiff": re.compile(rb"FORM....AIF", re.DOTALL),
}
"""How files of sounds begin; an mp3 has no beginning that all share."""


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: Words


class ImageAddress(Body):
    """Where an image lies: in the address itself."""

    url: Words
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Body):
    """An image among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageAddress


class VideoAddress(Body):
    """Where a video lies: in the address itself."""

    url: Words


class VideoPart(Body):
    """A video among the parts of a message, as vLLM takes them."""

    type: Literal["video_url"]
    video_url: VideoAddress


class SoundContent(Body):
    """What a file of a sound holds, in base64."""

    data: Words
    format: Literal["wav", "mp3"]

    def check(self, where: str) -> None:
        """Refuse what begins as another kind of file; what it is in truth would be read.

        Raises:
            RequestError: naming both kinds.
        """
        try:
            head = b64decode(self.data[:16])
        except ValueError:
            return  # whoever decodes all of it says so
        found = next((kind for kind, begins in SOUNDS.items() if begins.match(head)), "")
        if found != self.format and (found or self.format == "wav"):
            raise RequestError(
                f"the sound is said to be {self.format}, and begins as {found or 'something else'}",
                hint=f'write "format": "{found}"' if found == "wav" else "send it as wav or mp3",
                where=f"{where}.input_audio.format",
            )


class SoundPart(Body):
    """A sound among the parts of a message."""

    type: Literal["input_audio"]
    input_audio: SoundContent


Part = Annotated[
    Annotated[TextPart, Tag("TextPart")]
    | Annotated[ImagePart, Tag("ImagePart")]
    | Annotated[VideoPart, Tag("VideoPart")]
    | Annotated[SoundPart, Tag("SoundPart")],
    by_type(TextPart, ImagePart, VideoPart, SoundPart),
    AnyOf(),
]


class CalledFunction(Body):
    """What an answer called."""

    name: Words
    arguments: Words


class ToolCall(Body):
    """A call that an answer made, sent back as it came."""

    id: Words | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Words | list[Part] | None = Field(default=None)
    name: Words | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MAX_PARTS)
    tool_call_id: Words | None = None
    reasoning_content: Words | None = None
    refusal: None = None
    annotations: Nothing = None
    audio: None = None
    function_call: None = None
    """Empty fields of an answer that a client sends back as it got it."""

    def plain(self, where: str = "messages") -> dict[str, Any]:
        """Return it as chat templates take it.

        Raises:
            RequestError: if a field does not belong to its role.
        """
        self._check(where)
        parts = [] if isinstance(self.content, str) else self.content or []
        for part in parts:
            if isinstance(part, SoundPart):
                part.input_audio.check(f"{where}.content")
        shown = [_show(part) for part in parts]
        texts = [PLACES[kind] if kind else words for kind, words in shown]
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.content if isinstance(self.content, str) else "".join(texts),
        }
        if media := [(kind, address) for kind, address in shown if kind]:
            message["media"] = [[kind, self._address(kind, at, where), ""] for kind, at in media]
        if self.reasoning_content:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            message["tool_calls"] = [self._plain_call(call, where) for call in self.tool_calls]
        return message

    def _address(self, kind: str, url: str, where: str) -> str:
        """Refuse what would have to be fetched, or what an answer shows."""
        if self.role == "assistant":
            raise RequestError(
                f"an answer shows no {kind}", hint="leave it out", where=f"{where}.content"
            )
        if url[:5].lower() != "data:":
            raise RequestError(
                f"{kind}s come as data: addresses alone, and nothing is fetched for a client",
                hint=f'send "data:{kind}/...;base64,..."',
                where=f"{where}.content",
            )
        return url

    def _plain_call(self, call: ToolCall, where: str) -> dict[str, Any]:
        """Read the arguments, which templates write as the model would."""
        function = {"name": call.function.name, "arguments": read_arguments(call, where)}
        return {"id": call.id or "", "type": "function", "function": function}

    def _check(self, where: str) -> None:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise RequestError(
                f"{where}.content is missing",
                hint="see /docs for what is needed",
                where=f"{where}.content",
            )
        owners = {
            "tool_calls": ("assistant", self.tool_calls),
            "reasoning_content": ("assistant", self.reasoning_content),
            "tool_call_id": ("tool", self.tool_call_id),
        }
        for name, (owner, given) in owners.items():
            if given and self.role != owner:
                raise RequestError(
                    f"a message of the role {self.role} has no {name}",
                    hint=f"only messages of the role {owner} have it",
                    where=f"{where}.{name}",
                )


def _show(part: TextPart | ImagePart | VideoPart | SoundPart) -> tuple[str, str]:
    """Return the kind of what a part shows, and its address; or no kind, and a text."""
    match part:
        case TextPart():
            return "", part.text
        case ImagePart():
            return "image", part.image_url.url
        case VideoPart():
            return "video", part.video_url.url
        case SoundPart():
            return "audio", f"data:;base64,{part.input_audio.data}"


def read_arguments(call: ToolCall, where: str) -> dict[str, Any]:
    """Read the arguments of a call.

    Raises:
        RequestError: if they are no JSON object.
    """
    import orjson

    try:
        found = orjson.loads(call.function.arguments or "{}")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise RequestError(
            f"the arguments of the call of {call.function.name!r} are no JSON object",
            hint="send the call back as it came",
            where=f"{where}.tool_calls",
        )
    return found


def plain_messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as chat templates take them, results in the order of their calls.

    Most templates write no ids: there the order alone tells which call a result is of.

    Raises:
        RequestError: if a field does not belong to its role, or a result is of no call.
    """
    plain = [message.plain(f"messages.{place}") for place, message in enumerate(messages)]
    numbers, called = count(), dict[str, int]()
    ordered: list[dict[str, Any]] = []
    results: list[tuple[int, dict[str, Any]]] = []
    for place, message in enumerate(plain):
        answered = message.get("tool_call_id")
        if answered is not None and answered not in called:
            raise RequestError(
                f"no call before it has the id {answered!r}",
                hint="send the answer that called, then its results",
                where=f"messages.{place}.tool_call_id",
            )
        if answered is not None:
            results.append((called[answered], message))
            continue
        ordered += [*_sorted(results), message]
        results.clear()
        called |= {call["id"]: next(numbers) for call in message.get("tool_calls", ())}
    return [*ordered, *_sorted(results)]


def _sorted(results: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [message for _, message in sorted(results, key=lambda pair: pair[0])]
