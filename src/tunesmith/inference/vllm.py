"""vLLM as an engine: its own server, in a process and an environment of its own."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import EngineError, ModelError, RequestError
from tunesmith.inference.elsewhere.child import Child, free_port
from tunesmith.inference.elsewhere.token_speech import TokenSpeech, without_weights
from tunesmith.inference.elsewhere.wire import Address
from tunesmith.inference.elsewhere.writing import (
    Open,
    check_request,
    fields_of,
    held,
    unknown_model,
    write_all,
)
from tunesmith.inference.engine import Engine, Hear, Load, Piece, Request, Speech, Token, Work
from tunesmith.inference.generate import Answer, Finish
from tunesmith.inference.sampling import COLDEST, MOST_LOGPROBS, Sampling
from tunesmith.inference.text_stream import TextStream
from tunesmith.models.adapter import check_base
from tunesmith.models.beneath import NOTHING
from tunesmith.models.chat import Subject, find_subject
from tunesmith.models.inspect import ADAPTER, read_config
from tunesmith.settings import LOOPBACK, environment_offline, read_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MODULE, NAME, BASE = "vllm.entrypoints.openai.api_server", "vllm", "base"
SECONDS_TO_LOAD, SECONDS_TO_ASK = 900, 5
WIDTH = 256
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for."""
KNOWN = tuple(vars(Sampling()))
FORMS = '{"backend": "guidance"}'
"""The library that our own engine has: its grammars mean the same, whoever holds to them."""


@dataclass(frozen=True)
class VllmOptions:
    """How vLLM is started.

    Attributes:
        python: of the environment that holds it; TUNESMITH_VLLM_PYTHON if None.
        adapters: further runs by the names clients call them.
        rows: answers written at the same time.
        seconds: how long it may take until it answers.
        arguments: what vLLM is told besides, as its command line takes it.
    """

    python: Path | None = None
    adapters: Mapping[str, Subject] = field(default_factory=dict)
    rows: int = WIDTH
    seconds: float = SECONDS_TO_LOAD
    arguments: Sequence[str] = ()


class Vllm(Engine):
    """vLLM with one base, and adapters over it.

    Raises:
        ModelError: if vLLM could not serve the model as it was trained.
        EngineError: if there is no vLLM, or it does not come up.
    """

    takes_adapters = True

    def __init__(self, subject: Subject, options: VllmOptions | None = None) -> None:
        self.options = options or VllmOptions()
        self.width, self._subject, self._open = self.options.rows, subject, Open()
        over = {} if subject.adapter is None else {subject.name: subject}
        self._adapters = {**over, **self.options.adapters}
        for each in (subject, *self.options.adapters.values()):
            _check(each, subject.base)
        self._base = BASE if over else subject.name
        self._names = [*over, self._base, *self.options.adapters]
        self._child, self._address, longest = self._start()
        try:
            bare = without_weights(replace(subject, name=self._base, adapter=None))
            self._speech = TokenSpeech(bare, longest=longest)
        except BaseException:
            self._child.close()
            raise
        self._tokenizer = copy.deepcopy(bare.tokenizer)  # for decoding only, in many threads

    def models(self) -> Mapping[str, Speech]:
        """Return the run first, if an adapter was named, then the base, then further adapters."""
        return dict.fromkeys(self._names, self._speech)

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer; vLLM lets it wait until there is room."""
        limit = check_request(request, self._speech.longest, KNOWN, NAME)
        asked = {**self._body(request, limit), **fields_of(request), "stream": True}

        def read(events: Iterable[Any]) -> Iterator[Piece]:
            return held(self._pieces(events, request), request)

        return self._open.start(self._address, ("/v1/completions", asked), read, hear)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt, many at a time."""
        return write_all(self._write, prompts, sampling, at_once=min(self.width, 64))

    def load(self) -> Load:
        """Tell how many answers it writes, and how many wait."""
        return self._open.load(self.width)

    def add(self, name: str, run: str) -> None:
        """Let another adapter over the same base answer under a name."""
        subject = find_subject(run)
        if subject.adapter is None:
            raise RequestError(f"{run} has no adapter", hint="name a run that trained one")
        _check(subject, self._subject.base)
        if name in self._names:
            raise RequestError(f"there is a model {name} already", hint="choose another name")
        if not self._adapters:
            raise RequestError(
                "vLLM was started without room for adapters",
                hint="serve it with one adapter at least",
            )
        asked = {"lora_name": name, "lora_path": str(subject.adapter)}
        self._address.tell("/v1/load_lora_adapter", asked)
        self._adapters[name] = subject
        self._names.append(name)

    def remove(self, name: str) -> None:
        """Let an adapter answer no further request."""
        if name not in self._adapters:
            raise unknown_model(name, self._adapters)
        self._address.tell("/v1/unload_lora_adapter", {"lora_name": name})
        self._names.remove(name)
        del self._adapters[name]

    def check(self) -> None:
        """Refuse if it has ended."""
        self._child.check()

    def close(self) -> None:
        """End vLLM."""
        self._child.close()

    def _start(self) -> tuple[Child, Address, int]:
        python = self.options.python or read_settings().vllm_python
        if python is None:
            raise EngineError(
                "vLLM needs an environment of its own, and none is named",
                hint="make one with `python -m venv` and `pip install vllm`, and set "
                "TUNESMITH_VLLM_PYTHON to its bin/python",
                where="--engine vllm",
            )
        address = Address(LOOPBACK, free_port(), secrets.token_urlsafe(32))
        environment = environment_offline(
            VLLM_API_KEY=address.key,
            VLLM_NO_USAGE_STATS="1",
            VLLM_DO_NOT_TRACK="1",
            VLLM_ALLOW_RUNTIME_LORA_UPDATING="1" if self._adapters else "0",
        )
        child = Child(
            python,
            [MODULE, *self._arguments(address.port)],
            environment=environment,
            serves=str(self._subject.base),
        )
        asked = replace(address, seconds=SECONDS_TO_ASK)
        longest = child.wait_until(lambda: self._longest(asked), self.options.seconds)
        return child, replace(address, said=lambda: child.lines), longest

    def _arguments(self, port: int) -> list[str]:
        told = {
            "--model": str(self._subject.base.absolute()),
            "--served-model-name": self._base,
            "--host": LOOPBACK,
            "--port": str(port),
            "--max-num-seqs": str(self.width),
            "--max-logprobs": str(MOST_LOGPROBS),
            "--generation-config": "vllm",
            "--structured-outputs-config": FORMS,
        }
        plain = ("disable-uvicorn-access-log", "disable-log-stats", "disable-fastapi-docs")
        arguments = [part for pair in told.items() for part in pair]
        arguments += [f"--{each}" for each in plain]
        if self._adapters:
            rank = max(_rank(each) for each in self._adapters.values())
            arguments += ["--enable-lora", "--max-lora-rank", str(rank)]
            arguments += ["--max-loras", str(max(4, len(self._adapters))), "--lora-modules"]
            arguments += [f"{name}={each.adapter}" for name, each in self._adapters.items()]
        return [*arguments, *self.options.arguments]

    def _longest(self, address: Address) -> int | None:
        """Return how long a text it takes once it answers."""
        try:
            listed = address.ask("/v1/models")["data"]
        except (EngineError, RequestError):
            return None
        known = {each["id"]: each for each in listed}
        return int(known[self._base]["max_model_len"]) if self._base in known else None

    def _body(self, request: Request, limit: int) -> dict[str, Any]:
        """Say how to answer, all of it; texts to stop at we find ourselves, as everywhere."""
        sampling, model = request.sampling, request.model or self._names[0]
        if model not in self._names:
            raise unknown_model(model, self._names)
        return {
            "model": model,
            "prompt": list(request.prompt),
            "max_tokens": limit,
            "temperature": sampling.temperature if sampling.temperature >= COLDEST else 0.0,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()},
            "seed": sampling.seed,
            "logprobs": sampling.logprobs,
            "stop_token_ids": sorted(self._ends(request)),
            "ignore_eos": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def _ends(self, request: Request) -> Collection[int]:
        """List the tokens that end an answer; one of a form ends with the tokenizer's own."""
        end = self._tokenizer.eos_token_id
        own = {int(end)} if fields_of(request) and end is not None else set()
        return {*self._speech.stop_ids, *own}

    def _write(self, prompt: Sequence[int], sampling: Sampling) -> Answer:
        request = Request(prompt, sampling)
        limit = check_request(request, self._speech.longest, KNOWN, NAME)
        told = self._address.ask("/v1/completions", self._body(request, limit))
        (piece,) = self._pieces([told], request)
        assert piece.finish is not None
        tokens = tuple(token.id for token in piece.tokens)
        ids = told["choices"][0]["token_ids"]
        ended = len(ids) > len(tokens) and ids[len(tokens)] in self._speech.stop_ids
        end = ids[len(tokens)] if ended else None
        return Answer(piece.text, tokens, piece.finish, len(prompt), end)

    def _pieces(self, events: Iterable[Any], request: Request) -> Iterator[Piece]:
        """Turn vLLM's events into pieces."""
        tokenizer: PreTrainedTokenizerFast = self._tokenizer
        stream = TextStream(tokenizer, request.sampling.stop, request.keep)
        ends = self._ends(request)
        for choice in (choice for event in events for choice in event["choices"]):
            text, tokens = "", []
            finish: Finish | None = None
            for token in _tokens(choice, request.sampling.logprobs):
                if token.id in ends:
                    finish = "stop"
                    break
                tokens.append(token)
                text += stream.push(token.id)
                if stream.stopped:
                    finish = "stop"
                    break
            if choice["finish_reason"] is not None:
                finish = finish or _finish(choice["finish_reason"])
            if finish is not None:
                yield Piece(text + stream.end(), tuple(tokens), finish)
                return
            if tokens:
                yield Piece(text, tuple(tokens))


def _check(subject: Subject, base: Path) -> None:
    """Refuse what vLLM would serve otherwise than it was trained, or over another base.

    Raises:
        ModelError: saying what.
    """
    from tunesmith.inference.batching.lora import find_more

    more = None if subject.adapter is None else find_more(subject.adapter)
    changed = {
        f"the adapter {more}": more is not None,
        "the base is kept in few bits": subject.quantize is not None,
        "other weights lie beneath the adapter": subject.beneath != NOTHING,
        "several adapters answer together": subject.blend is not None,
    }
    for why, is_so in changed.items():
        if is_so:
            raise ModelError(
                f"vLLM cannot serve it as it was trained: {why}",
                hint="export it first, and serve the exported folder",
                where=subject.name,
            )
    if _turns_by_length(subject.base):
        raise ModelError(
            "vLLM turns the positions of every text as those of the longest, and the model was "
            "trained to turn them by each text's own length: rope_type dynamic",
            hint="serve it with --engine own, or train it with model.rope_scaling.kind: yarn",
            where=subject.name,
        )
    if subject.adapter is not None:
        check_base(subject.adapter, base, foreign=subject.run is None)


def _turns_by_length(base: Path) -> bool:
    """Whether positions turn the slower the longer a text is; the folder may be of older days."""
    config = read_config(base / "config.json")
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    named = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    return any("dynamic" in (each.get("rope_type"), each.get("type")) for each in named)


def _rank(subject: Subject) -> int:
    assert subject.adapter is not None
    config = read_config(subject.adapter / ADAPTER)
    rank = max([config.get("r", 0), *config.get("rank_pattern", {}).values()])
    return next((room for room in RANKS if room >= rank), rank)


def _finish(reason: str) -> Finish:
    if reason not in ("stop", "length"):
        raise EngineError(
            f"vLLM ended an answer: {reason}", hint="see what its log says", where=NAME
        )
    return "stop" if reason == "stop" else "length"


def _tokens(choice: Mapping[str, Any], logprobs: int | None) -> list[Token]:
    told = choice.get("logprobs")
    if logprobs is None or not told:
        return [Token(token) for token in choice.get("token_ids") or ()]
    return [
        Token(token, logprob, _likeliest(likeliest or {}, logprobs))
        for token, logprob, likeliest in zip(
            choice["token_ids"], told["token_logprobs"], told["top_logprobs"], strict=True
        )
    ]


def _likeliest(told: Mapping[str, float], count: int) -> tuple[tuple[int, float], ...]:
    """Read what vLLM spells as `token_id:7`; it adds the token that was taken."""
    pairs = [(int(name.removeprefix("token_id:")), logprob) for name, logprob in told.items()]
    return tuple(sorted(pairs, key=lambda pair: -pair[1])[:count])
