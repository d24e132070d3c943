"""The prompts that an export is compared on: the run's own, or some of ours."""

from __future__ import annotations

from typing import Any

from tunesmith.data.tokens import encode
from tunesmith.export.order import Order
from tunesmith.export.parity import read_probes
from tunesmith.inference.looked import encode_messages
from tunesmith.models.reader import Reader, find_reader

QUESTIONS = (
    "What can you do?",
    "Write two sentences about a river.",
    "List three numbers and add them up.",
    "Translate to French: good morning.",
    "How does a bicycle stay upright?",
    "你好，请介绍一下你自己。",
    "用一句话说明什么是机器学习。",
    "def add(a, b):",
)


def probes_of(order: Order) -> list[dict[str, Any]]:
    """Return the prompts of the run; of what others trained nobody knows the rows.

    Raises:
        ExportError: if the run kept none.
    """
    if order.run is not None:
        return read_probes(order.run)
    reader = find_reader(order.subject.base, order.subject.template)
    return [_probe(question, reader) for question in QUESTIONS]


def _probe(question: str, reader: Reader) -> dict[str, Any]:
    if reader.template is None:
        return {"text": question, "ids": encode(reader.tokenizer, question)}
    messages = [{"role": "user", "content": question}]
    ids = encode_messages(reader.tokenizer, reader.template, reader.senses, messages, ())
    return {"messages": messages, "ids": list(ids)}
