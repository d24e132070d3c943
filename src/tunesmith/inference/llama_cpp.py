"""A GGUF as an engine: llama.cpp's own server, in a process of its own, through `xllamacpp`."""

from __future__ import annotations

import importlib.util
import json
import re
import secrets
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tunesmith.errors import ModelError, RequestError, require
from tunesmith.hardware import GIB, memory_gib, num_cores
from tunesmith.inference.elsewhere.child import Child
from tunesmith.inference.elsewhere.gguf_speech import GgufSpeech
from tunesmith.inference.elsewhere.likelihood import Likelihood, token_logp
from tunesmith.inference.elsewhere.wire import Address
from tunesmith.inference.elsewhere.writing import (
    Open,
    check_request,
    fields_of,
    held,
    unknown_model,
    write_all,
)
from tunesmith.inference.engine import (
    UNKNOWN,
    Engine,
    Hear,
    Load,
    Piece,
    Request,
    Speech,
    Token,
    Work,
)
from tunesmith.inference.generate import Answer, Finish
from tunesmith.inference.sampling import COLDEST, Sampling
from tunesmith.models.gguf_file import name_of_gguf
from tunesmith.models.gguf_header import read_gguf_header
from tunesmith.settings import environment_offline, read_settings

SERVER = Path(__file__).parent / "elsewhere" / "llama_server.py"
NAME = "llama.cpp"
SECONDS_TO_LOAD = 600
LISTENING = re.compile(r"listening (http://\S+)")
LONGEST, SLOTS = 8192, 4
BYTES = {"f16": 2, "f32": 4}
LARGEST_SEED = (1 << 32) - 1
"""llama.cpp's seeds are of 32 bits, and the last one means none."""
KNOWN = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "logprobs",
)
"""Not the penalties on what stands in the answer: llama.cpp counts the prompt's tokens too."""
ORDER = ("penalties", "temperature", "top_k", "top_p", "min_p")
"""As `generate` does it; llama.cpp's own way is to divide by the temperature last."""


@dataclass(frozen=True)
class LlamaCppOptions:
    """How a GGUF is served.

    Attributes:
        adapters: files of GGUF adapters by the names clients call them.
        slots: answers written at the same time.
        longest: tokens of prompt and answer together; as the model was trained, up to 8,192,
            if 0.
        cache: numbers that keys and values are kept in; f32 takes twice the memory, and writes
            the same tokens as fp32 elsewhere.
        threads: as many as torch would take if 0.
    """

    adapters: Mapping[str, Path] = field(default_factory=dict)
    slots: int = SLOTS
    longest: int = 0
    cache: Literal["f16", "f32"] = "f16"
    threads: int = 0


class LlamaCpp(Engine):
    """llama.cpp with one GGUF, and adapters for it.

    Attributes:
        speech: of the model and all adapters.

    Raises:
        MissingPackage: if `xllamacpp` is not installed.
        ModelError: if the file is no GGUF that a text model can be read from.
        EngineError: if llama.cpp cannot load it.
        RequestError: if an adapter is called as the model is.
    """

    def __init__(self, path: Path, options: LlamaCppOptions | None = None, name: str = "") -> None:
        self.options = options or LlamaCppOptions()
        header = read_gguf_header(path)
        name = name or name_of_gguf(path)
        if name in self.options.adapters:
            raise RequestError(
                f"the model is called {name} too",
                hint="write --adapter with another name",
                where="--adapter",
            )
        if importlib.util.find_spec("xllamacpp") is None:
            require("xllamacpp", extra="gguf")
        self.width = self.options.slots
        self._names = (name, *self.options.adapters)
        self._open = Open()
        longest = self._longest(header, path)
        self._check_memory(header, longest, path)
        self._child, self._address = self._start(path, longest)
        try:
            self.speech = GgufSpeech(header, self._names[0], self._address, longest)
        except BaseException:
            self._child.close()
            raise

    def models(self) -> Mapping[str, Speech]:
        """Return the model, then its adapters."""
        return dict.fromkeys(self._names, self.speech)

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer; llama.cpp lets it wait until a slot is free."""
        sampling = request.sampling
        limit = check_request(request, self.speech.longest, KNOWN, NAME)
        asked = self._body(request.prompt, sampling, limit, request.model)
        kept = [self.speech.spell(token).decode() for token in sorted(request.keep)]
        asked |= {"stream": True, "preserved_tokens": kept, **fields_of(request)}

        def read(events: Iterable[Any]) -> Iterator[Piece]:
            return held(_pieces(events, sampling.logprobs, self.speech.stop_ids), request)

        return self._open.start(self._address, ("/completion", asked), read, hear)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt, as many at a time as there are slots."""
        return write_all(self._write, prompts, sampling, at_once=self.options.slots)

    def likelihood(self, prompt: Sequence[int], answer: Sequence[int]) -> Likelihood:
        """Tell how likely each token of an answer is, of what went before it."""
        found, before = Likelihood(), list(prompt)
        for token in answer:
            body = self._body(before, Sampling(logprobs=1), 1, "")
            found += token_logp(self._address, body, token, self.speech)
            before.append(token)
        return found

    def load(self) -> Load:
        """Tell how many answers it writes, and how many wait."""
        return self._open.load(self.width)

    def check(self) -> None:
        """Refuse if it has ended."""
        self._child.check()

    def close(self) -> None:
        """End llama.cpp."""
        self._child.close()

    def _write(self, prompt: Sequence[int], sampling: Sampling) -> Answer:
        limit = check_request(Request(prompt, sampling), self.speech.longest, KNOWN, NAME)
        told = self._address.ask("/completion", self._body(prompt, sampling, limit, ""))
        tokens = tuple(told["tokens"])
        end = tokens[-1] if told["stop_type"] == "eos" else None
        kept = tokens if end is None else tokens[:-1]
        return Answer(told["content"], kept, _finish(told), len(prompt), end)

    def _longest(self, header: Mapping[str, Any], path: Path) -> int:
        trained = header.get(f"{header.get('general.architecture')}.context_length")
        if not isinstance(trained, int):
            raise ModelError(
                "the GGUF does not say how long a text its model takes",
                hint="name a GGUF of a language model, not of an adapter or a projector",
                where=str(path),
            )
        return min(self.options.longest or LONGEST, trained)

    def _check_memory(self, header: Mapping[str, Any], longest: int, path: Path) -> None:
        """Refuse what has no room for its keys and values, all of which are taken at once."""
        tokens = self.options.slots * longest
        needed = tokens * _numbers_of_token(header) * BYTES[self.options.cache] / GIB
        if needed > memory_gib():
            raise ModelError(
                f"keys and values of {self.options.slots} answers of {longest:,} tokens take "
                f"{needed:.1f} GiB, and {memory_gib():.1f} are free",
                hint="serve with a smaller --max-active, or end what holds memory",
                where=str(path),
            )

    def _start(self, path: Path, longest: int) -> tuple[Child, Address]:
        key = secrets.token_urlsafe(32)
        told = {
            "path": str(path.absolute()),
            "adapters": [str(file.absolute()) for file in self.options.adapters.values()],
            "slots": self.options.slots,
            "longest": longest,
            "cache": self.options.cache,
            "threads": self.options.threads or read_settings().threads or num_cores(),
            "key": key,
        }
        child = Child(
            Path(sys.executable),
            [str(SERVER)],
            environment=environment_offline(),
            serves=str(path),
            told=json.dumps(told),
        )
        address = child.wait_until(lambda: _listening(child.lines), SECONDS_TO_LOAD)
        where = urlsplit(address)
        assert where.hostname is not None
        assert where.port is not None
        return child, Address(where.hostname, where.port, key, said=lambda: child.lines)

    def _body(
        self, prompt: Sequence[int], sampling: Sampling, limit: int, model: str
    ) -> dict[str, Any]:
        """Say how to answer, all of it: what is left out would be llama.cpp's own choice."""
        if model and model not in self._names:
            raise unknown_model(model, self._names)
        biases = [[token, bias] for token, bias in sampling.logit_bias.items()]
        adapters = [
            {"id": number, "scale": float(name == model)}
            for number, name in enumerate(self._names[1:])
        ]
        return {
            "prompt": list(prompt),
            "n_predict": limit,
            "temperature": sampling.temperature if sampling.temperature >= COLDEST else 0.0,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": self.speech.longest,
            "samplers": ORDER,
            "seed": LARGEST_SEED if sampling.seed is None else sampling.seed % LARGEST_SEED,
            "stop": list(sampling.stop),
            "logit_bias": biases,
            "n_probs": 0 if sampling.logprobs is None else max(1, sampling.logprobs),
            "lora": adapters,
            "return_tokens": True,
        }


def _numbers_of_token(header: Mapping[str, Any]) -> int:
    """Count the numbers that a token leaves behind in all layers."""
    kind = header["general.architecture"]
    layers, heads = header.get(f"{kind}.block_count", 0), header.get(f"{kind}.attention.head_count")
    kept = header.get(f"{kind}.attention.head_count_kv", heads) or 0
    width = header.get(f"{kind}.embedding_length", 0) // (heads if isinstance(heads, int) else 1)
    both = sum(header.get(f"{kind}.attention.{each}_length", width) for each in ("key", "value"))
    return int(sum(kept) if isinstance(kept, tuple) else kept * layers) * int(both)


def _listening(lines: Iterable[str]) -> str | None:
    """Find the address; llama.cpp may have begun a line of its own before."""
    found = (LISTENING.search(line) for line in lines)
    return next((match.group(1) for match in found if match), None)


def _finish(told: Mapping[str, Any]) -> Finish:
    return "length" if told.get("stop_type") == "limit" else "stop"


def _pieces(
    events: Iterable[Any], logprobs: int | None, stop_ids: Collection[int]
) -> Iterator[Piece]:
    """Turn llama.cpp's events into pieces.

    It tells no tokens of a character that later tokens finish, only that there are some. Tokens
    without text wait for the next event, which may say that the last of them ended the answer.
    """
    held: list[Token] = []
    count, over = 0, False
    for event in events:
        if event["stop"] or over:
            ended = over or event.get("stop_type") == "eos"
            unknown = 0 if over else event["tokens_predicted"] - count
            told = (*held[: -1 if ended else None], *[Token(UNKNOWN)] * unknown)
            yield Piece(event["content"] if event["stop"] else "", told, _finish(event))
            return
        skipped = event["tokens_predicted"] - count - len(event["tokens"])
        count = event["tokens_predicted"]
        held += [*[Token(UNKNOWN)] * skipped, *_tokens(event, logprobs)]
        over = bool(held) and held[-1].id in stop_ids
        if event["content"] and not over:
            yield Piece(event["content"], tuple(held))
            held = []


def _tokens(event: Mapping[str, Any], logprobs: int | None) -> list[Token]:
    told = event.get("completion_probabilities")
    if logprobs is None or not told:
        return [Token(token) for token in event["tokens"]]
    return [
        Token(
            each["id"],
            each["logprob"],
            tuple((one["id"], one["logprob"]) for one in each["top_logprobs"][:logprobs]),
        )
        for each in told
    ]
