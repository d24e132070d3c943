"""Whoever answers: an engine takes requests and hands the pieces of answers back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.inference.generate import Answer, Finish, Messages, Tools
from tunesmith.inference.sampling import Sampling

if TYPE_CHECKING:
    import torch

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
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None
    counted: tuple[int, int] | None = None


Hear = Callable[[Piece | Exception], None]
"""Called from the engine's thread, never at the same time for one request, and quick."""


class Form(Protocol):
    """The form one answer must have, and how far it got; called from the engine's thread."""

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
        form: what the answer must look like, made for this request; None for anything.
    """

    prompt: Sequence[int]
    sampling: Sampling
    model: str = ""
    form: Form | None = None


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
    """

    longest: int
    stop_ids: tuple[int, ...]
    defaults: Sampling
    can_chat: bool

    def render(self, messages: Messages, tools: Tools, options: Mapping[str, Any]) -> list[int]:
        """Write a conversation as the model's template does; tokenize it.

        Args:
            options: what the template is told besides, such as `enable_thinking`.
        """

    def encode(self, text: str) -> list[int]:
        """Tokenize a text to be continued."""

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of tokens."""


class Engine(Protocol):
    """Answers many requests with the weights that it has at that moment."""

    def models(self) -> Mapping[str, Speech]:
        """Return the models that answer, by the names clients call them; the first is the main."""

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer; whoever hears is told its pieces, or what went wrong."""

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt; the same draws for the same prompts, sampling and weights.

        Args:
            prompts: token ids; one that comes several times is answered several times.
        """

    def close(self) -> None:
        """End all work and free the weights."""
