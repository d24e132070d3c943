"""Chat templates in the manner of well-known families, each written for these tests."""

from __future__ import annotations

QWEN_TOOLS = r"""
{{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n" }}
{{- "You are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
{%- for tool in tools %}{{ "\n" }}{{ tool | tojson }}{% endfor %}
{{- "\n</tools>\n\nFor each function call, return a json object with function name and " }}
{{- "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n" }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}' }}
{{- "\n</tool_call><|im_end|>\n" }}
"""
QWEN_CALLS = r"""
{%- for call in message.tool_calls or [] %}
    {{- "\n" if message.content or not loop.first }}
    {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
    {{- (call.function.arguments | tojson) + '}\n</tool_call>' }}
{%- endfor %}
{{- "<|im_end|>\n" }}
"""
QWEN_RESULT = r"""
{%- if loop.first or loop.previtem.role != "tool" %}{{ "<|im_start|>user" }}{% endif %}
{{- "\n<tool_response>\n" + message.content + "\n</tool_response>" }}
{%- if loop.last or loop.nextitem.role != "tool" %}{{ "<|im_end|>\n" }}{% endif %}
"""
QWEN25 = (
    r"""
{%- set default = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." %}
{%- set first = messages[0].content if messages[0].role == "system" else default %}
{{- "<|im_start|>system\n" + first }}
{%- if tools %}{{ "\n\n" }}"""
    + QWEN_TOOLS
    + r"""{%- else %}{{ "<|im_end|>\n" }}{% endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- "<|im_start|>assistant\n" + message.content }}"""
    + QWEN_CALLS
    + r"""{%- elif message.role == "tool" %}"""
    + QWEN_RESULT
    + r"""{%- elif not (loop.first and message.role == "system") %}
        {{- "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}
"""
)
QWEN3 = (
    r"""
{%- if tools %}
    {{- "<|im_start|>system\n" }}
    {%- if messages[0].role == "system" %}{{ messages[0].content + "\n\n" }}{% endif %}"""
    + QWEN_TOOLS
    + r"""
{%- elif messages[0].role == "system" %}
    {{- "<|im_start|>system\n" + messages[0].content + "<|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(query=-1) %}
{%- for message in messages %}
    {%- if message.role == "user" %}{% set ns.query = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- "<|im_start|>assistant\n" }}
        {%- if loop.index0 > ns.query and (loop.last or message.reasoning_content) %}
            {{- "<think>\n" + (message.reasoning_content or "") + "\n</think>\n\n" }}
        {%- endif %}
        {{- message.content }}"""
    + QWEN_CALLS
    + r"""{%- elif message.role == "tool" %}"""
    + QWEN_RESULT
    + r"""{%- elif not (loop.first and message.role == "system") %}
        {{- "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\n" }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- "<think>\n\n</think>\n\n" }}
    {%- endif %}
{%- endif %}
"""
)
LLAMA3 = r"""
{%- for message in messages %}
    {%- if loop.first %}{{ bos_token }}{% endif %}
    {{- "<|start_header_id|>" + message.role + "<|end_header_id|>\n\n" }}
    {{- (message.content | trim) + "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\n\n" }}
{%- endif %}
"""
NO_TOOLS = r"""
{%- if tools or messages[-1].role == "tool" %}{{ raise_exception("no tools") }}{% endif %}
"""
ALTERNATE = r"""
{%- set first = messages[0].role == "system" %}
{%- set rest = messages[1:] if first else messages %}
{%- for message in rest %}
    {%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL = (
    NO_TOOLS
    + ALTERNATE
    + r"""
{{- bos_token }}
{%- for message in rest %}
    {%- if message.role == "user" %}
        {{- "[INST] " }}
        {%- if first and loop.last %}{{ messages[0].content + "\n\n" }}{% endif %}
        {{- message.content + "[/INST]" }}
    {%- else %}
        {{- " " + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
)
GEMMA = (
    NO_TOOLS
    + ALTERNATE
    + r"""
{{- bos_token }}
{%- for message in rest %}
    {%- set role = "model" if message.role == "assistant" else message.role %}
    {{- "<start_of_turn>" + role + "\n" }}
    {%- if first and loop.first %}{{ messages[0].content + "\n\n" }}{% endif %}
    {{- (message.content | trim) + "<end_of_turn>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<start_of_turn>model\n" }}{% endif %}
"""
)
GLM4 = (
    NO_TOOLS
    + r"""
{{- "[gMASK]<sop>" }}
{%- for message in messages %}
    {{- "<|" + message.role + "|>\n" + message.content }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|assistant|>" }}{% endif %}
"""
)
PHI3 = r"""
{%- for message in messages if message.role in ("system", "user", "assistant") %}
    {{- "<|" + message.role + "|>\n" + message.content + "<|end|>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|assistant|>\n" }}{% else %}{{ eos_token }}{% endif %}
"""
LLAMA2 = r"""
{%- set system = messages[0].content if messages[0].role == "system" else "" %}
{%- for message in (messages[1:] if system else messages) %}
    {%- if (message.role == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("user and assistant take turns") }}
    {%- endif %}
    {%- if message.role == "user" %}
        {{- bos_token + "[INST] " }}
        {{- "<<SYS>>\n" + system + "\n<</SYS>>\n\n" if system and loop.first }}
        {{- message.content.strip() + " [/INST]" }}
    {%- else %}
        {{- " " + message.content.strip() + " " + eos_token }}
    {%- endif %}
{%- endfor %}
"""
SOURCES = {
    "qwen2.5": QWEN25,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "mistral-v3": MISTRAL,
    "gemma": GEMMA,
    "glm4": GLM4,
    "phi3": PHI3,
    "llama2": LLAMA2,
}
ENDS = {
    "qwen2.5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral-v3": "</s>",
    "gemma": "<end_of_turn>",
    "glm4": "<|user|>",
    "phi3": "<|end|>",
    "llama2": "</s>",
}
