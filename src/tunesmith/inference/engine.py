"""Whoever answers: an engine takes requests and hands the pieces of answers back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.errors import RequestError
from tunesmith.inference.generate import Answer, Finish, Messages, Tools
from tunesmith.inference.manner import PLAIN, Manner
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent

if TYPE_CHECKING:
    import torch

    from tunesmith.inference.structured import Outline
    from tunesmith.templates import Template

UNKNOWN = -1
"""Id of a token of which an engine elsewhere tells only that it was written."""


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        id: may be UNKNOWN.
        logprob: its log-probability in nats; None unless it was asked for.
        likeliest: the likeliest tokens in its place and their log-probabilities, best first.
    """

    id: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What is certain of an answer since the last piece.

    Attributes:
        tokens: the tokens written since then; their text may come with a later piece.
        finish: why the answer ended; None for all but the last piece.
        counted: tokens of the prompt and of the answer, said with the last piece by an engine
            elsewhere that counts for itself.
        reused: tokens of the prompt that were kept from texts before, said with the last piece by
            an engine that keeps some.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None
    counted: tuple[int, int] | None = None
    reused: int | None = None


Tokenize = Callable[[], list[int]]
"""Tokenizes what was written before."""
Hear = Callable[[Piece | Exception], None]
"""Called from the engine's thread, never at the same time for one request, and quick."""


class Form(Protocol):
    """The form one answer must have, and how far it got; called from the engine's thread.

    Engines that choose tokens here ask it; those elsewhere are told theirs: `Sent`.
    """

    def mask(self) -> torch.Tensor:
        """Tell which tokens may come next, bool [vocab]; the ids past its end may not."""

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""

    def is_over(self) -> bool:
        """Whether nothing may follow but the end."""


@dataclass(frozen=True)
class Request:
    """An answer to be written.

    Attributes:
        prompt: token ids.
        model: which of the engine's models answers; the first if empty.
        form: what the answer must look like, made for this request by the model's speech; None
            for anything.
        keep: special tokens that are spelled in the text, as whoever reads it parts it by them.
    """

    prompt: Sequence[int]
    sampling: Sampling
    model: str = ""
    form: Form | Sent | None = None
    keep: frozenset[int] = frozenset()


class Work(Protocol):
    """An answer in work."""

    def cancel(self) -> None:
        """Stop within a step; nothing more is heard."""


class Speech(Protocol):
    """How one model is spoken with.

    Attributes:
        longest: tokens of prompt and answer together.
        stop_ids: tokens that end an answer.
        defaults: the model's own way of sampling.
        can_chat: whether it has a template for conversations.
        options: what the template can be told besides messages and tools.
        num_tokens: how many tokens there are.
        manner: how it marks thoughts and calls of tools, where its texts are ours to part.
        template: what writes its conversations, where we do it.
        opening: tokens that begin a plain text, where the tokenizer itself puts some before it.
        closing: tokens that end a whole one, for models that read texts and go on with none.
    """

    longest: int
    stop_ids: tuple[int, ...]
    defaults: Sampling
    can_chat: bool
    options: frozenset[str]
    num_tokens: int
    manner: Manner = PLAIN
    template: Template | None = None
    opening: Sequence[int] = ()
    closing: Sequence[int] = ()

    def render(self, messages: Messages, tools: Tools, options: Mapping[str, Any]) -> list[int]:
        """Write a conversation as the model's template does; tokenize it.

        Args:
            options: what the template is told besides, such as `enable_thinking`.
        """
        return self.write(messages, tools, options)()

    def write(self, messages: Messages, tools: Tools, options: Mapping[str, Any]) -> Tokenize:
        """Write a conversation, and return what tokenizes it.

        How long writing takes is up to the template, so it keeps no other from writing.
        """

    def encode(self, text: str) -> list[int]:
        """Tokenize a text, without what begins it."""

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of tokens."""

    def spell(self, token: int) -> bytes:
        """Return what a token writes, which may be a part of a character."""

    def forms(self, outline: Outline, count: int) -> Sequence[Form | Sent]:
        """Make the forms of so many answers; this may take long.

        Raises:
            RequestError: if answers cannot be held to it, naming the field.
        """


@dataclass(frozen=True)
class Load:
    """How busy an engine is.

    Attributes:
        running: answers that are being written.
        waiting: answers that wait for their turn.
        cache: the part of its cache that is in use, 0 to 1; None if it does not tell.
    """

    running: int = 0
    waiting: int = 0
    cache: float | None = None


class Writer(Protocol):
    """Answers many prompts with the weights that it has at that moment."""

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt; the same draws for the same prompts, sampling and weights.

        Args:
            prompts: token ids; one that comes several times is answered several times.

        Raises:
            NoOdds: if the model expects what is not a number.
        """


class Engine(Writer, Protocol):
    """Answers many requests with the weights that it has at that moment.

    Attributes:
        width: how many answers it writes at the same time at most.
    """

    width: int

    def models(self) -> Mapping[str, Speech]:
        """Return the models that answer, by the names clients call them; the first is the main."""

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer; whoever hears is told its pieces, or what went wrong."""

    def load(self) -> Load:
        """Tell how busy it is, as far as it knows."""
        return Load()

    def check(self) -> None:
        """Refuse if it answers nothing any more, as far as it knows.

        Raises:
            EngineError: with the reason.
        """
        return

    def check_writes(self) -> None:
        """Refuse if it writes no answers at all.

        Raises:
            RequestError: saying what it does.
        """
        return

    def embed(self, prompts: Sequence[Sequence[int]], model: str = "") -> list[list[float]]:
        """Return the point of each prompt, not normalized: the mean of the last hidden states.

        Embedding models make it in their own way.

        Raises:
            RequestError: if it cannot.
        """
        raise RequestError(
            "the engine makes no embeddings", hint="serve a model folder with --engine own"
        )

    def add(self, name: str, run: str) -> None:
        """Let another adapter over the same base answer under a name.

        Raises:
            TunesmithError: if it cannot, or the run is none, or trained on another base.
        """
        raise RequestError("the engine takes no adapters", hint="serve one adapter at a time")

    def remove(self, name: str) -> None:
        """Let an adapter that was added answer no further request.

        Raises:
            RequestError: if there is none of that name.
        """
        raise RequestError("the engine takes no adapters", hint="serve one adapter at a time")

    def close(self) -> None:
        """End all work and free the weights."""
