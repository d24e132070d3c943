"""Body of /v1/responses, read as a chat."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidationError

from tunesmith.errors import RequestError
from tunesmith.serving.limits import MAX_MESSAGES, MAX_PARTS, MAX_TOOLS
from tunesmith.serving.schema.chat import ChatRequest, Effort
from tunesmith.serving.schema.sampling import AnyOf, Body, JsonObject, Nothing, Words, by_type

Plain = dict[str, Any]


class TextPart(Body):
    """A part of a message."""

    type: Literal["input_text", "output_text", "text"]
    text: Words
    annotations: Nothing = None
    logprobs: Any = None

    def chat(self) -> Plain:
        """Return it as a part of a chat."""
        return {"type": "text", "text": self.text}


class ImagePart(Body):
    """An image among the parts of a message: in its address itself."""

    type: Literal["input_image"]
    image_url: Words
    detail: Literal["auto", "low", "high"] | None = None
    file_id: None = None

    def chat(self) -> Plain:
        """Return it as a part of a chat."""
        return {"type": "image_url", "image_url": {"url": self.image_url, "detail": self.detail}}


InputPart = Annotated[
    Annotated[TextPart, Tag("TextPart")] | Annotated[ImagePart, Tag("ImagePart")],
    by_type(TextPart, ImagePart),
    AnyOf(),
]


class MessageItem(Body):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Words | list[InputPart]
    id: Words | None = None
    status: Words | None = None
    phase: None = None

    def chat(self) -> str | list[Plain]:
        """Return what it says as a chat has it: one text, unless it shows something."""
        if isinstance(self.content, str):
            return self.content
        texts = [part.text for part in self.content if isinstance(part, TextPart)]
        if len(texts) == len(self.content):
            return "".join(texts)
        return [part.chat() for part in self.content]


class CallItem(Body):
    """A call that an answer made, sent back as it came."""

    type: Literal["function_call"]
    call_id: Words
    name: Words
    arguments: Words
    id: Words | None = None
    status: Words | None = None


class ResultItem(Body):
    """What a called function returned."""

    type: Literal["function_call_output"]
    call_id: Words
    output: Words | list[TextPart]
    id: Words | None = None
    status: Words | None = None


class ThoughtPart(Body):
    """A part of a thought."""

    type: Literal["reasoning_text"]
    text: Words


class ThoughtItem(Body):
    """What an answer thought, sent back as it came."""

    type: Literal["reasoning"]
    summary: Nothing = None
    content: Annotated[list[ThoughtPart], Field(max_length=MAX_PARTS)] | None = None
    id: Words | None = None
    encrypted_content: None = None
    status: Words | None = None


Item = Annotated[
    Annotated[MessageItem, Tag("MessageItem")]
    | Annotated[CallItem, Tag("CallItem")]
    | Annotated[ResultItem, Tag("ResultItem")]
    | Annotated[ThoughtItem, Tag("ThoughtItem")],
    by_type(MessageItem, CallItem, ResultItem, ThoughtItem),
    AnyOf(),
]


class FunctionTool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: Words
    description: Words | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class NamedFunction(Body):
    """A function that must be called."""

    type: Literal["function"]
    name: Words


class TextOptions(Body):
    """What form the answer has."""

    format: JsonObject | None = None
    verbosity: None = None


class Reasoning(Body):
    """How much the model thinks."""

    effort: Effort | None = None
    summary: None = None


class Obfuscation(Body):
    """What else a stream tells: nothing, whatever is asked."""

    include_obfuscation: bool = False


class ResponsesRequest(Body):
    """Body of /v1/responses."""

    input: Words | Annotated[list[Item], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: Words | None = None
    instructions: Words | None = None
    stream: bool | None = False
    stream_options: Obfuscation | None = None
    max_output_tokens: Annotated[int, Field(le=(1 << 63) - 1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    previous_response_id: Any = None
    conversation: Any = None
    background: bool | None = None
    truncation: Literal["disabled"] | None = None
    store: bool | None = None
    metadata: dict[Words, Words] | None = None
    user: Words | None = None
    safety_identifier: Words | None = None
    prompt_cache_key: Words | None = None
    service_tier: Literal["auto", "default"] | None = None

    def check(self) -> None:
        """Refuse what needs answers that were kept.

        Raises:
            RequestError: naming the field.
        """
        kept = {
            "previous_response_id": self.previous_response_id,
            "conversation": self.conversation,
            "background": self.background,
        }
        for name, given in kept.items():
            if given:
                raise RequestError(
                    f"{name} is not taken: no answer is kept here",
                    hint="send the whole conversation as input",
                    where=name,
                )

    def chat(self) -> ChatRequest:
        """Return it as a chat.

        Raises:
            RequestError: if it is more than a chat holds.
        """
        try:
            return ChatRequest.model_validate(self._as_chat())
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise renamed(RequestError(first["msg"], hint="see /docs", where=where)) from None

    def _as_chat(self) -> Plain:
        tells = self.top_logprobs is not None or bool(self.include)
        return {
            "messages": self._messages(),
            "model": self.model,
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "logprobs": tells or None,
            "top_logprobs": self.top_logprobs,
            "tools": [_as_chat_tool(tool) for tool in self.tools or ()] or None,
            "tool_choice": _as_chat_choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": _as_chat_format(self.text),
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
        }

    def _messages(self) -> list[Plain]:
        messages: list[Plain] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for item in self.input:
            _add(messages, item)
        return messages


CALLED = {
    "max_tokens": "max_output_tokens",
    "logprobs": "top_logprobs",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema.schema": "text.format.schema",
    "messages": "input",
}
"""Fields of chats whose names are others here, or that lie elsewhere."""


def renamed(problem: RequestError) -> RequestError:
    """Name the field that is wrong in a chat as it is called here."""
    old, where = problem.where, problem.where
    whole = max((name for name in CALLED if f"{old}.".startswith(f"{name}.")), key=len, default="")
    if whole == "messages":  # items are counted otherwise than messages
        where = "input"
    elif whole:
        where = CALLED[whole] + old[len(whole) :]
    problem.message = problem.message.replace(old, where) if whole else problem.message
    problem.where = where
    return problem


def _add(messages: list[Plain], item: Item) -> None:
    """Add an item; thoughts, calls and words of one answer become one message."""
    if isinstance(item, ResultItem):
        output = item.output
        text = output if isinstance(output, str) else "".join(part.text for part in output)
        messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text})
        return
    if isinstance(item, MessageItem) and item.role != "assistant":
        messages.append({"role": item.role, "content": item.chat()})
        return
    if not messages or messages[-1]["role"] != "assistant" or _begins(item, messages[-1]):
        messages.append({"role": "assistant", "content": ""})
    answer = messages[-1]
    if isinstance(item, CallItem):
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        answer.setdefault("tool_calls", []).append(call)
    elif isinstance(item, ThoughtItem):
        answer["reasoning_content"] = "".join(part.text for part in item.content or ())
    else:
        answer["content"] = item.chat()


def _begins(item: Item, answer: Plain) -> bool:
    """Whether an item of an answer cannot belong to the one before."""
    if isinstance(item, CallItem):
        return False
    is_thought = isinstance(item, ThoughtItem)
    return bool(answer["content"] or answer.get("tool_calls")) or (
        is_thought and "reasoning_content" in answer
    )


def _as_chat_tool(tool: FunctionTool) -> Plain:
    function = tool.model_dump(exclude_none=True, exclude={"type"})
    return {"type": "function", "function": function}


def _as_chat_choice(choice: str | NamedFunction | None) -> Any:
    """Return a choice of tools as chats have it: the name is deeper inside."""
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _as_chat_format(text: TextOptions | None) -> Plain | None:
    """Return the form of an answer as chats have it: a schema is deeper inside."""
    form = text.format if text else None
    if form is None or form.get("type") != "json_schema":
        return form
    schema = {name: value for name, value in form.items() if name != "type"}
    return {"type": "json_schema", "json_schema": schema}
