"""Conversations that show how a template writes answers and calls."""

from __future__ import annotations

PROBE = "tunesmithprobe"

TOOL = {
    "type": "function",
    "function": {
        "name": PROBE,
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    },
}
CALL = {"type": "function", "id": "call00001", "function": {"name": PROBE, "arguments": {}}}
QUESTION = {"role": "user", "content": "question"}
CALLED = (QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]})
RESULT = {"role": "tool", "content": "result", "tool_call_id": "call00001", "name": PROBE}
CALLED_TWICE = (CALLED, (*CALLED, RESULT))
