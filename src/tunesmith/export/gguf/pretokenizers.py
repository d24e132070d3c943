"""Which of llama.cpp's ways to cut text into words is a tokenizer's own; a guess would be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from tunesmith.errors import ExportError

BY_REGEXES: dict[str, str] = {
    "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e": "qwen2",
    "00431aed57e696b747435f734d1e3b9b1bfd931a121fb5cac7129e97c181e9ba": "qwen35",
    "d98f9631be1e9607a9848c26c1f9eac1aa9fc21ac6ba82a2fc0741af9780a48f": "llama-bpe",
    "1d64a9a8eaf9f1bd80331984d81fdd514e7feafe8df83a525dd31472f275699a": "tekken",
    "2d1b8dc11e89af71459b36004f698ab3693f59fd84f63e8ec2b49564ab857420": "gpt-4o",
    "03df5c5863ad70781dcfdef491ead25140f895fe8010964be0daefe27be32b02": "deepseek-llm",
}
"""By the SHA-256 of all regular expressions that a tokenizer splits at, one after another."""
WITHOUT_REGEX = {(): "gpt-2", ("Digits",): "smollm"}
"""By the steps before the one that cuts as GPT-2 did."""
WHOLE_WORDS = ("llama-bpe", "tekken")
"""Where a word that is in the vocabulary is taken whole, whatever merges say."""
FROM_PARTS = {"llama-bpe": "glm4"}
"""What cuts alike and puts each word together."""


def name_pretokenizer(tokenizer: Mapping[str, Any]) -> str:
    """Name how a byte-level tokenizer cuts text.

    Args:
        tokenizer: the content of tokenizer.json.

    Raises:
        ExportError: listing what is known, if it is none of these.
    """
    steps = list(_steps(tokenizer.get("pre_tokenizer")))
    splits = [step["pattern"].get("Regex", "") for step in steps if step["type"] == "Split"]
    digest = sha256("".join(splits).encode()).hexdigest()
    name = BY_REGEXES.get(digest) if splits else _without_regex(steps)
    if name is not None and bool(tokenizer["model"].get("ignore_merges")) != (name in WHOLE_WORDS):
        name = FROM_PARTS.get(name)
    if name is None:
        raise ExportError(
            "llama.cpp is not known to cut text as this tokenizer does"
            + (f" (SHA-256 of its regular expressions: {digest})" if splits else ""),
            hint="use --format safetensors; known are " + ", ".join(known_names()),
            where="tokenizer.json: pre_tokenizer",
        )
    return name


def known_names() -> list[str]:
    """List what is recognised, by llama.cpp's names."""
    names = {*BY_REGEXES.values(), *WITHOUT_REGEX.values(), *FROM_PARTS.values()}
    return sorted(names)


def _without_regex(steps: list[Mapping[str, Any]]) -> str | None:
    if not steps or steps[-1]["type"] != "ByteLevel" or not steps[-1].get("use_regex", True):
        return None
    before = tuple(step["type"] for step in steps[:-1])
    if any(step["type"] == "Digits" and not step.get("individual_digits") for step in steps):
        return None
    return None if steps[-1].get("add_prefix_space") else WITHOUT_REGEX.get(before)


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if step is None:
        return
    if step["type"] == "Sequence":
        for inner in step["pretokenizers"]:
            yield from _steps(inner)
    else:
        yield step
