"""Choose the engine that answers, by its name or by what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeGuard

from tunesmith.errors import RequestError
from tunesmith.hardware import PrecisionOption
from tunesmith.inference.batching.build import Built, build_engine
from tunesmith.inference.generate import BATCH_ROWS
from tunesmith.inference.own_model import OwnModel
from tunesmith.models.chat import Subject, find_subject, load_subject
from tunesmith.models.encoder import load_encoder
from tunesmith.models.gguf_file import find_gguf, find_gguf_adapter
from tunesmith.models.pooling import is_embedder

EngineName = Literal["own", "generate", "llama.cpp", "vllm", "remote"]
Name = str | Path | Subject
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "pure_bf16": "bfloat16"}
"""What vLLM calls them."""


@dataclass(frozen=True)
class Engines:
    """Which engine answers, and how.

    Attributes:
        name: `auto` takes llama.cpp for a GGUF, and our own for the rest.
        adapters: further runs, or GGUF adapters for llama.cpp, by the names clients call them.
        rows: answers written at the same time; None for what suits.
        precision: numbers that our own and vLLM count in, and whose cache llama.cpp keeps.
        url: where the paths of a remote server begin.
        key: sent to it; none if empty.
    """

    name: str = "auto"
    adapters: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    precision: PrecisionOption = "auto"
    url: str = ""
    key: str = ""


def choose_engine(name: Name, how: Engines) -> Built:
    """Load what answers.

    Args:
        name: a run, a model, a GGUF, or what a remote server calls its model.

    Raises:
        RequestError: if an option means nothing to the engine.
        TunesmithError: if the engine cannot be had, or cannot serve it.
    """
    chosen = which_engine(name, how.name)
    if chosen != "remote" and (how.url or how.key):
        raise RequestError(
            f"the engine {chosen} asks no other server",
            hint="add --engine remote, or leave --remote-url and --remote-key-file out",
            where="--remote-url",
        )
    return ENGINES[chosen](name, how)


def which_engine(name: Name, wanted: str = "auto") -> EngineName:
    """Say which engine answers.

    Raises:
        RequestError: if there is none of that name, or it cannot read what is served.
    """
    gguf = not isinstance(name, Subject) and find_gguf(name) is not None
    if wanted == "auto":
        return "llama.cpp" if gguf else "own"
    if not _is_known(wanted):
        raise RequestError(
            f"there is no engine {wanted}",
            hint=f"choose auto, {', '.join(ENGINES)}",
            where="--engine",
        )
    if gguf != (wanted == "llama.cpp") and wanted != "remote":
        raise RequestError(
            f"the engine {wanted} reads {'no GGUF' if gguf else 'GGUF files only'}",
            hint="leave --engine out, which takes the one that fits",
            where="--engine",
        )
    return wanted


def _is_known(name: str) -> TypeGuard[EngineName]:
    return name in ENGINES


def _own(name: Name, how: Engines) -> Built:
    subject = find_subject(name)
    if only_embeds(subject):
        return _embedding(subject, how)
    built = build_engine(subject, precision=how.precision, rows=how.rows)
    for called, run in how.adapters.items():
        built.engine.add(called, run)
    return built


def only_embeds(subject: Subject) -> bool:
    """Whether a model makes points of texts, and writes nothing."""
    return subject.adapter is None and subject.run is None and is_embedder(subject.base)


def _embedding(subject: Subject, how: Engines) -> Built:
    from tunesmith.inference.embedding import EmbeddingEngine

    if how.rows is not None or how.adapters:
        raise RequestError(
            "an embedding model writes no answers, with adapters or without",
            hint="leave it out, or serve it as a model that writes with --engine generate",
            where="--adapter" if how.adapters else "--max-active",
        )
    engine = EmbeddingEngine(load_encoder(subject.name, subject.base, how.precision))
    return Built(engine, "embedding", "an embedding model: points of texts, and no answers")


def _generate(name: Name, how: Engines) -> Built:
    model = load_subject(find_subject(name), how.precision)
    engine = OwnModel(model, rows=how.rows or BATCH_ROWS)
    for called, run in how.adapters.items():
        engine.add(called, run)
    return Built(engine, "generate", "transformers writes, in batches")


def _llama_cpp(name: Name, how: Engines) -> Built:
    from tunesmith.inference.llama_cpp import SLOTS, LlamaCpp, LlamaCppOptions

    assert not isinstance(name, Subject)
    file = find_gguf(name)
    assert file is not None  # which_engine has seen it
    if how.precision not in ("auto", "fp32"):
        raise _without_precision("the numbers of a GGUF are those of its file")
    adapters = {called: find_gguf_adapter(path) for called, path in how.adapters.items()}
    cache: Literal["f16", "f32"] = "f32" if how.precision == "fp32" else "f16"
    options = LlamaCppOptions(adapters, slots=how.rows or SLOTS, cache=cache)
    return Built(LlamaCpp(file, options), "llama.cpp", f"llama.cpp serves {file.name}")


def _vllm(name: Name, how: Engines) -> Built:
    from tunesmith.inference.vllm import WIDTH, Vllm, VllmOptions

    adapters = {called: find_subject(run) for called, run in how.adapters.items()}
    options = VllmOptions(
        adapters=adapters, rows=how.rows or WIDTH, arguments=("--dtype", DTYPES[how.precision])
    )
    engine = Vllm(find_subject(name), options)
    return Built(engine, "vllm", "vLLM serves the folder, in a process of its own")


def _remote(name: Name, how: Engines) -> Built:
    from tunesmith.inference.remote import Remote, RemoteOptions

    if not how.url:
        raise RequestError(
            "no remote server is named",
            hint="write where its paths begin: --remote-url http://127.0.0.1:8000/v1",
            where="--remote-url",
        )
    if how.precision != "auto":
        raise _without_precision("a remote server counts as it was told to")
    if isinstance(name, Subject):
        raise RequestError(
            "a remote server has names of its own for its models",
            hint="name the model as the server does",
            where="--engine remote",
        )
    engine = Remote(RemoteOptions(how.url, how.key, str(name)), width=how.rows)
    for called, run in how.adapters.items():
        engine.add(called, run)
    return Built(engine, "remote", "the server at the URL answers")


def _without_precision(why: str) -> RequestError:
    return RequestError(why, hint="leave --precision out", where="--precision")


ENGINES: dict[EngineName, Callable[[Name, Engines], Built]] = {
    "own": _own,
    "generate": _generate,
    "llama.cpp": _llama_cpp,
    "vllm": _vllm,
    "remote": _remote,
}
