"""Ask llama.cpp, in a process of its own, what it would say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.errors import ExportError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NUM_LIKELIEST = 256
"""Tokens compared in each place."""
LISTEN = Path(__file__).with_name("listen.py")
"""Run by its path: the packages above it would load torch."""
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        texts: to be tokenized.
        conversations: bodies of chat requests, to be rendered.
        pairs: prompts and answers, of which each token is scored.
        ends: prompts after which the answer is over.
    """

    texts: Sequence[str] = ()
    conversations: Sequence[dict[str, Any]] = ()
    pairs: Sequence[Pair] = ()
    ends: Sequence[list[int]] = ()


@dataclass(frozen=True)
class Likeliest:
    """The likeliest tokens in one place, best first."""

    ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Heard:
    """What llama.cpp says, in the order of the questions."""

    tokens: list[list[int]]
    prompts: list[str]
    likeliest: list[list[Likeliest]]
    stops: list[bool]


def ask(
    model: Path,
    questions: Questions,
    tokenizer: PreTrainedTokenizerFast,
    adapter: Path | None = None,
) -> Heard:
    """Let llama.cpp load a file and answer, with keys and values kept in fp32.

    Raises:
        MissingPackage: if xllamacpp is not installed.
        ExportError: if llama.cpp cannot read the file.
    """
    import torch

    require("xllamacpp", extra="gguf")
    longest = max((len(prompt) + len(answer) for prompt, answer in questions.pairs), default=0)
    order = {
        "model": str(model),
        "adapter": str(adapter or ""),
        "context": longest + 2,
        "threads": torch.get_num_threads(),
        "plain_token": _plain_token(tokenizer),
        "num_likeliest": min(NUM_LIKELIEST, len(tokenizer)),
        "texts": questions.texts,
        "conversations": questions.conversations,
        "pairs": questions.pairs,
        "ends": questions.ends,
    }
    found = _run(order, str(model))
    likeliest = [[Likeliest(**place) for place in places] for places in found["likeliest"]]
    return Heard(found["tokens"], found["prompts"], likeliest, found["stops"])


def _plain_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """Find a token that is a whole character."""
    vocab = tokenizer.get_vocab()
    return next((vocab[text] for text in (*"aeiou0", "▁") if text in vocab), 0)


def _run(order: dict[str, Any], where: str) -> Any:
    with TemporaryDirectory(prefix="tunesmith-") as folder:
        asked, answered = Path(folder, "order.json"), Path(folder, "answers.json")
        asked.write_bytes(orjson.dumps(order))
        command = [sys.executable, "-P", str(LISTEN), str(asked), str(answered)]
        with subprocess.Popen(  # noqa: S603  it ends when its input does, whatever happens to us
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode("utf-8", "replace")
            failed = process.wait()
        if failed or not answered.is_file():
            raise ExportError(
                f"llama.cpp cannot use the file: {_reason(said)}",
                hint="use --format safetensors; please report it",
                where=where,
            )
        return orjson.loads(answered.read_bytes())


def _reason(said: str) -> str:
    """Find the line that tells why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if " E " in line or line.startswith("llama.cpp: ")]
    return (errors or lines or ["it ended without a word"])[0]
