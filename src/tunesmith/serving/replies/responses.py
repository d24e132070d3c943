"""Responses in OpenAI's later form: items instead of messages, told by many small events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.serving.message import Delta
from tunesmith.serving.note import Note
from tunesmith.serving.schema.responses import ResponsesRequest

Plain = dict[str, Any]
PARTS = {"message": "output_text", "reasoning": "reasoning_text"}
"""What the one part of an item is called."""
MARKS = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
"""How ids of items begin."""


@dataclass
class Items:
    """What an answer consists of, while it is written.

    Attributes:
        done: the items, the last of which may still grow.
    """

    done: list[Plain] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _logprobs: list[Plain] = field(default_factory=list)
    _open: Any = None

    def push(self, delta: Delta, logprobs: list[Plain]) -> Iterator[Plain]:
        """Add what a message gained; yield the events that tell it."""
        if thought := delta.get("reasoning_content"):
            yield from self._write("reasoning", thought, [])
        if text := delta.get("content"):
            yield from self._write("message", text, logprobs)
        for call in delta.get("tool_calls", ()):
            yield from self._call(call)

    def end(self) -> Iterator[Plain]:
        """Close the last item; yield the events that tell it."""
        if self._open is None:
            return
        item, text = self.done[-1], "".join(self._texts)
        kind, self._open = item["type"], None
        item["status"] = "completed"
        place = self._place()
        if kind == "function_call":
            item["arguments"] = text
            yield {"type": "response.function_call_arguments.done", **place, "arguments": text}
        else:
            part = item["content"][0]
            part["text"], place = text, {**place, "content_index": 0}
            done: Plain = {"type": f"response.{PARTS[kind]}.done", **place, "text": text}
            if kind == "message":
                part["logprobs"] = done["logprobs"] = self._logprobs
            yield done
            yield {"type": "response.content_part.done", **place, "part": {**part}}
        yield {
            "type": "response.output_item.done",
            "output_index": place["output_index"],
            "item": {**item},
        }

    def cut(self) -> None:
        """Mark the last item as one that did not come to its end."""
        if self.done:
            self.done[-1]["status"] = "incomplete"

    def _write(self, kind: str, text: str, logprobs: list[Plain]) -> Iterator[Plain]:
        if self._open != kind:
            yield from self.end()
            yield from self._begin(kind)
        self._texts.append(text)
        self._logprobs += logprobs
        told = {"content_index": 0, "delta": text}
        if kind == "message":
            told["logprobs"] = logprobs
        yield {"type": f"response.{PARTS[kind]}.delta", **self._place(), **told}

    def _begin(self, kind: str) -> Iterator[Plain]:
        part: Plain = {"type": PARTS[kind], "text": ""}
        item: Plain = {"id": _new_id(kind), "type": kind, "status": "in_progress", "content": []}
        if kind == "message":
            part |= {"annotations": [], "logprobs": []}
            item["role"] = "assistant"
        else:
            item["summary"] = []
        yield self._add(kind, item)
        item["content"] = [part]
        place = {**self._place(), "content_index": 0}
        yield {"type": "response.content_part.added", **place, "part": {**part}}

    def _call(self, call: Plain) -> Iterator[Plain]:
        function = call.get("function", {})
        if self._open != call["index"]:
            yield from self.end()
            item = {
                "id": _new_id("function_call"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": call["id"],
                "name": function["name"],
                "arguments": "",
            }
            yield self._add(call["index"], item)
        if text := function.get("arguments"):
            self._texts.append(text)
            kind = "response.function_call_arguments.delta"
            yield {"type": kind, **self._place(), "delta": text}

    def _add(self, opened: Any, item: Plain) -> Plain:
        self._open, self._texts, self._logprobs = opened, [], []
        self.done.append(item)
        index = len(self.done) - 1
        return {"type": "response.output_item.added", "output_index": index, "item": {**item}}

    def _place(self) -> Plain:
        return {"output_index": len(self.done) - 1, "item_id": self.done[-1]["id"]}


@dataclass(frozen=True)
class ResponseReply:
    """One response under one id."""

    body: ResponsesRequest
    model: str
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def spell(
        self, status: str, items: Items, note: Note | None = None, error: Plain | None = None
    ) -> Plain:
        """Spell the whole response as it is now.

        Args:
            note: counts the tokens, once the answer is over.
        """
        body = self.body
        text = body.text.model_dump(exclude_none=True) if body.text else {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self.model,
            "output": [{**item} for item in items.done],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {
                "effort": body.reasoning.effort if body.reasoning else None,
                "summary": None,
            },
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}} | text,
            "tool_choice": body.model_dump(include={"tool_choice"})["tool_choice"] or "auto",
            "tools": [
                {"description": None, "parameters": None, "strict": None} | tool.model_dump()
                for tool in body.tools or ()
            ],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None if note is None else _usage(note),
            "user": body.user,
        }


def _usage(note: Note) -> Plain:
    return {
        "input_tokens": note.prompt_tokens,
        "input_tokens_details": {"cached_tokens": note.reused or 0, "cache_write_tokens": 0},
        "output_tokens": note.written,
        "output_tokens_details": {"reasoning_tokens": note.thought or 0},
        "total_tokens": note.prompt_tokens + note.written,
    }


def _new_id(kind: str) -> str:
    return f"{MARKS[kind]}_{uuid.uuid4().hex}"
