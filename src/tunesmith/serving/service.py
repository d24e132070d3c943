"""Who may answer, how many at once, and in what words they are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tunesmith.errors import DataError, RequestError
from tunesmith.inference.engine import Engine, Load, Request, Speech
from tunesmith.inference.generate import Messages, Tools
from tunesmith.inference.manner import Manner
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.tool_calls import ToolFormat
from tunesmith.serving.jobs import Job, Post
from tunesmith.serving.limits import (
    CHARACTERS_PER_SECOND,
    MAX_WAITING,
    SECONDS_TO_TOKENIZE,
    SLOW_WRITERS,
)
from tunesmith.serving.queue import Made, Queue, in_time
from tunesmith.serving.timed import TimedPool
from tunesmith.serving.usual import Usual
from tunesmith.serving.workspace import Workspace, find_workspace


@dataclass(frozen=True)
class Speaker:
    """A served model.

    Attributes:
        name: what clients call it.
        model: what the engine calls it.
        manner: how its answers are parted.
    """

    name: str
    model: str
    speech: Speech
    manner: Manner


class Service(Queue):
    """Answer with an engine.

    Attributes:
        name: what clients call the main model.
        workspace: where adapters may lie that clients name.
        usual: how it answers where a request does not say it.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        max_waiting: int = MAX_WAITING,
        tools: ToolFormat | None = None,
        workspace: Workspace | None = None,
        usual: Usual | None = None,
    ) -> None:
        super().__init__(max_waiting=max_waiting)
        self._writer = TimedPool(1, "template", slow=SLOW_WRITERS)
        self._tokenizer = TimedPool(1, "tokenizer")
        self._tools = tools
        self.usual = usual or Usual()
        self.engine, self.name = engine, name
        self.workspace = workspace or find_workspace()
        self._post = Post()

    @property
    def width(self) -> int:
        """How many answers the engine writes at the same time."""
        return self.engine.width

    def names(self) -> list[str]:
        """List what clients may call the models."""
        return [speaker.name for speaker in self.speakers()]

    def speakers(self) -> list[Speaker]:
        """List the models, the main one first."""
        known = self.engine.models()
        return [
            Speaker(name if place else self.name, name, speech, self._manner(speech))
            for place, (name, speech) in enumerate(known.items())
        ]

    def _manner(self, speech: Speech) -> Manner:
        manner, named = speech.manner, self._tools
        found = manner.tools.name if manner.tools else ""
        return manner if named is None or named.name == found else replace(manner, tools=named)

    def find(self, name: str | None) -> Speaker:
        """Find a model by the name that a request gives it; the main one if it gives none.

        The last part of a run's name is enough if only one has it, as on the command line.

        Raises:
            UnknownModel: if there is none of that name.
        """
        speakers = self.speakers()
        if name is None:
            return speakers[0]
        found = self.full_name(name, [speaker.name for speaker in speakers])
        return next(speaker for speaker in speakers if speaker.name == found)

    def load(self) -> Load:
        """Tell how busy it is, and how full the engine's cache."""
        return replace(super().load(), cache=self.engine.load().cache)

    def check_ready(self) -> None:
        """Refuse if requests are not answered.

        Raises:
            Stopping: if the server is on its way out.
            EngineError: if the engine has stopped.
        """
        super().check_ready()
        self.engine.check()

    def start(self, job: Job, requests: Sequence[Request]) -> None:
        """Let the engine begin to answer."""
        job.start(self.engine, self._post, requests)

    async def render(
        self,
        speaker: Speaker,
        messages: Messages,
        tools: Tools = (),
        options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Tokenize a conversation as the model's template writes it.

        Raises:
            RequestError: if the model only continues text, has no such option, its template
                refuses the messages, or the text is longer than the model takes.
        """
        speech, options = speaker.speech, options or {}
        messages = self.usual.begun(messages)
        if not speech.can_chat:
            raise RequestError(
                "the model has no chat template, so it can only continue text",
                hint="use /v1/completions, or /generate with a prompt",
                where="messages",
            )
        if unknown := sorted(options.keys() - speech.options):
            known = ", ".join(sorted(speech.options)) or "none"
            raise RequestError(
                f"the model's template has no option {unknown[0]}",
                hint=f"it has: {known}",
                where="chat_template_kwargs",
            )
        shown = sum(_length(message.get("media", ())) for message in messages)
        size = sum(map(_length, messages)) + sum(map(_length, tools)) - shown
        _check_size(speech, size, "messages")
        seconds = _seconds_for(size + shown)
        template = speech.template
        if (
            tools
            and template is not None
            and not await in_time(self._writer, lambda: template.writes_tools, seconds, "tools")
        ):
            raise RequestError(
                "the model's chat template writes no tools",
                hint="leave them out, or ask a model whose template does",
                where="tools",
            )
        writing = partial(speech.write, messages, tools, options)
        try:
            tokenizing = await in_time(self._writer, writing, seconds, "messages")
            return await self.tokenize(tokenizing, size + shown, "messages")
        except DataError as problem:
            hint = "send what the model's template can write"
            raise RequestError(problem.message, hint=hint, where="messages") from problem

    async def encode(
        self, speaker: Speaker, text: str, where: str = "prompt", *, opens: bool = True
    ) -> list[int]:
        """Tokenize a plain text, begun as those of the model begin.

        Args:
            opens: whether it is, unless it spells that beginning itself.

        Raises:
            RequestError: if it is longer than the model takes.
        """
        speech = speaker.speech
        _check_size(speech, len(text), where)
        tokens = await self.tokenize(lambda: speech.encode(text), len(text), where)
        if not opens or not tokens:
            return tokens
        opening = [*speech.opening]
        begun = tokens if tokens[: len(opening)] == opening else [*opening, *tokens]
        return [*begun, *speech.closing]

    async def tokenize(self, made: Callable[[], Made], size: int, where: str) -> Made:
        """Do what needs a tokenizer, which serves one at a time, off the event loop.

        Time in which others are served does not count, nor does slower work keep it waiting.

        Args:
            size: how many characters are read.

        Raises:
            RequestError: if it takes too long.
        """
        return await in_time(self._tokenizer, made, _seconds_for(size), where)

    def request(self, speaker: Speaker, prompt: Sequence[int], sampling: Sampling) -> Request:
        """Put together what the engine is asked.

        Raises:
            RequestError: if there is nothing to go on from, no room for an answer, or a token that
                the model does not have.
        """
        speech = speaker.speech
        if not prompt:
            raise RequestError(
                "the prompt is empty", hint="send some text to continue", where="prompt"
            )
        if len(prompt) >= speech.longest:
            raise RequestError(
                f"the prompt has {len(prompt):,} tokens, the model takes {speech.longest:,} with "
                "its answer",
                hint="shorten the messages",
                where="messages",
            )
        check_tokens(speech, prompt, "prompt")
        check_tokens(speech, sampling.logit_bias, "logit_bias")
        room = speech.longest - len(prompt)
        within = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        return Request(prompt, within, speaker.model)

    def close(self) -> None:
        """Free the engine."""
        super().close()
        self._writer.close()
        self._tokenizer.close()
        self.engine.close()


def choose_sampling(speech: Speech, usual: Usual, options: Mapping[str, Any]) -> Sampling:
    """Take the usual way of sampling, but for the options that are given.

    Raises:
        RequestError: if one means nothing.
    """
    given = {name: value for name, value in options.items() if value is not None}
    chosen = replace(usual.sampled(speech.defaults), **given)
    chosen.check()
    return chosen


def several(request: Request, count: int) -> list[Request]:
    """Ask for several answers, each drawn for itself, and repeatably if the first one is."""
    seed, requests = request.sampling.seed, [request]
    for place in range(1, count):
        drawn = seed if seed is None else (seed + place) % (1 << 63)
        requests.append(replace(request, sampling=replace(request.sampling, seed=drawn)))
    return requests


def check_tokens(speech: Speech, tokens: Sequence[int] | Mapping[int, Any], where: str) -> None:
    """Refuse ids that are no tokens of a model.

    Raises:
        RequestError: naming one.
    """
    odd = next((token for token in tokens if not 0 <= token < speech.num_tokens), None)
    if odd is not None:
        raise RequestError(
            f"there is no token {odd}",
            hint=f"ids are 0 to {speech.num_tokens - 1}",
            where=where,
        )


LONGEST_TOKEN = 256
"""Characters; longer ones are found in runs of blanks only."""


def _check_size(speech: Speech, size: int, where: str) -> None:
    """Refuse what can never fit before any work is done for it."""
    if size > speech.longest * LONGEST_TOKEN:
        raise RequestError(
            f"the prompt has {size:,} characters, the model takes {speech.longest:,} tokens "
            "with its answer",
            hint="shorten it",
            where=where,
        )


def _seconds_for(size: int) -> float:
    """Return how long writing or tokenizing so many characters may take."""
    return SECONDS_TO_TOKENIZE + size / CHARACTERS_PER_SECOND


def _length(value: Any) -> int:
    """Count the characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_length, value.values()))
    return sum(map(_length, value)) if isinstance(value, list | tuple) else 0
