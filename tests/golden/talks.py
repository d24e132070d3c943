"""Conversations with tools, and the texts that families of models write for them."""

from __future__ import annotations

from typing import Any

QUESTION = {"role": "user", "content": "Where is the shop?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_shop",
            "description": "Find a shop",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "例如 北京"}},
                "required": ["city"],
            },
        },
    }
]
SPECIALS = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "[gMASK]",
    "<sop>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<turn|>",
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def call(number: int, city: str) -> dict[str, Any]:
    function = {"name": "find_shop", "arguments": {"city": city}}
    return {"type": "function", "id": f"call{number:05d}", "function": function}


def asked(*cities: str, says: str = "", **more: Any) -> dict[str, Any]:
    calls = [call(number, city) for number, city in enumerate(cities, 1)]
    return {"role": "assistant", "content": says, **more, "tool_calls": calls}


def result(number: int, content: str) -> dict[str, Any]:
    found = {"tool_call_id": f"call{number:05d}", "name": "find_shop"}
    return {"role": "tool", "content": content, **found}


def said(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


TALKS: dict[str, list[dict[str, Any]]] = {
    "one call": [
        {"role": "system", "content": "Be kind."},
        QUESTION,
        asked("北京"),
        result(1, '{"street": "Am Hof", "open": true}'),
        said("It is at Am Hof."),
        {"role": "user", "content": "Thanks"},
        said("You are welcome."),
    ],
    "two calls": [QUESTION, asked("Rom", "Ulm"), result(1, "A"), result(2, "B"), said("A and B.")],
    "a call after a text": [QUESTION, asked("Rom", says="I look."), result(1, "A"), said("At A.")],
    "a thought before a call": [
        QUESTION,
        asked("Rom", reasoning_content="which town"),
        result(1, "A"),
        said("At A.", reasoning_content="so it is A"),
    ],
    "a call at the end": [QUESTION, asked("Rom")],
    "tools and no call": [QUESTION, said("Which town?")],
}

# Written for these tests as Mistral's behave: calls and results as JSON, ids of nine characters.
MISTRAL = """\
{{- bos_token }}
{%- set last = (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}
{%- for message in messages %}
{%- if message.role == 'user' %}
    {%- if tools and message is sameas last %}
        {{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {{- '[INST] ' + message.content + '[/INST]' }}
{%- elif message.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in message.tool_calls %}
        {%- if call.id | length != 9 %}
            {{- raise_exception('ids have nine characters') }}
        {%- endif %}
        {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}
        {{- ', ' if not loop.last else '' }}
    {%- endfor %}
    {{- ']' + eos_token }}
{%- elif message.role == 'assistant' %}
    {{- ' ' + message.content + eos_token }}
{%- elif message.role == 'tool' %}
    {{- '[TOOL_RESULTS] {"content": ' + (message.content | tojson) }}
    {{- ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"""

# As GLM-4's behave: no token ends a turn but the one that opens the next; a call is a turn's name.
GLM4 = """\
{{- '[gMASK]<sop>' }}
{%- if tools %}{{- '<|system|>\\n' }}{%- for tool in tools %}
    {{- '## ' + tool.function.name + '\\n' + (tool.function | tojson(indent=4)) + '\\n' }}
{%- endfor %}{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
    {%- for call in message.tool_calls %}
        {{- '<|assistant|>' + call.function.name + '\\n' + (call.function.arguments | tojson) }}
    {%- endfor %}
{%- elif message.role == 'tool' %}
    {{- '<|observation|>\\n' + message.content }}
{%- else %}
    {{- '<|' + message.role + '|>\\n' + message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"""
