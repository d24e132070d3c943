"""Answer with a loaded model, whatever its architecture, through transformers' `generate`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.errors import ModelError, RequestError
from tunesmith.inference.looked import encode_messages, looked_arguments
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.text_stream import TextStream
from tunesmith.inference.told import Streamer, add_to_logits, stop_if, write_config

if TYPE_CHECKING:
    import torch

    from tunesmith.models.chat import ChatModel
    from tunesmith.templates import Template

Finish = Literal["stop", "length"]
Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]
NONE: Mapping[str, Any] = {}
BATCH_ROWS = 16


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        tokens: ids of the answer, without the token that ended it.
        finish: `stop` if the model or a stop text ended it, `length` if it was cut.
        end: the token that ended it, if one did.
    """

    text: str
    tokens: tuple[int, ...]
    finish: Finish
    num_prompt_tokens: int
    end: int | None = None

    @property
    def written(self) -> tuple[int, ...]:
        """All tokens as the model wrote them."""
        return self.tokens if self.end is None else (*self.tokens, self.end)


class Stream:
    """An answer while it is written: iterate over it for pieces of text.

    Attributes:
        tokens: what was written so far.
        finish: why it ended; None until then.
    """

    def __init__(
        self, model: ChatModel, prompt: Sequence[int], sampling: Sampling, limit: int
    ) -> None:
        self.num_prompt_tokens = len(prompt)
        self.tokens: list[int] = []
        self.finish: Finish | None = None
        self._stop_ids = model.stop_ids
        self._text = TextStream(model.tokenizer, sampling.stop)
        self._tokens = _Tokens(model, prompt, sampling, limit)
        self._pieces = self._write()

    def __iter__(self) -> Iterator[str]:
        """Yield pieces of text as they become certain."""
        return self._pieces

    @property
    def num_tokens(self) -> int:
        """Count the tokens written so far."""
        return len(self.tokens)

    def cancel(self) -> None:
        """Stop writing after the token in work."""
        self._tokens.cancel()

    def close(self) -> None:
        """Stop writing, and wait until the model is free for others."""
        self._tokens.close()

    def _write(self) -> Iterator[str]:
        try:
            for token in self._tokens:
                if token in self._stop_ids:
                    self.finish = "stop"
                    break
                self.tokens.append(token)
                if piece := self._text.push(token):
                    yield piece
                if self._text.stopped:
                    break
            if rest := self._text.end():
                yield rest
            self.finish = "stop" if self._text.stopped else self.finish or "length"
        finally:
            self.close()


def encode_prompt(
    model: ChatModel, messages: Messages, tools: Tools = (), options: Mapping[str, Any] = NONE
) -> list[int]:
    """Write messages, and the tools they may call, as the model's template does; tokenize them.

    Args:
        options: what the template is told besides, such as `enable_thinking`.

    Raises:
        ModelError: if the model has no chat template.
        DataError: if the template refuses the messages.
        RequestError: if what they show cannot be read.
    """
    read = (model.tokenizer, template_of(model), model.senses)
    return encode_messages(*read, messages, tools, options)


def template_of(model: ChatModel) -> Template:
    """Return a model's chat template.

    Raises:
        ModelError: if it has none.
    """
    if model.template is None:
        raise ModelError(
            "the model has no chat template, so it can only continue text",
            hint="name another model, or a template with model.template in the recipe",
            where=model.name,
        )
    return model.template


def answer(
    model: ChatModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    rows: int = BATCH_ROWS,
) -> list[Answer]:
    """Answer several prompts, several at a time; each draws for itself, equal ones too.

    Args:
        prompts: token ids of each.
        rows: how many at a time.

    Raises:
        RequestError: if a prompt is longer than the model takes.
    """
    sampling = sampling or Sampling()
    _check(sampling)
    limits = [min(sampling.max_tokens, check_room(model, prompt)) for prompt in prompts]
    answers: dict[int, Answer] = {}
    with _seeded(sampling.seed):
        for limit, places in _batches(prompts, limits, rows):
            written = generate(model, [prompts[place] for place in places], sampling, limit)
            for place, tokens in zip(places, written, strict=True):
                answers[place] = _finish(model, prompts[place], tokens, sampling)
    return [answers[place] for place in range(len(prompts))]


def _batches(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], rows: int
) -> Iterator[tuple[int, list[int]]]:
    """Put prompts together that have the same room for an answer, those of like length first."""
    order = sorted(range(len(prompts)), key=lambda place: (limits[place], len(prompts[place])))
    for limit, group in groupby(order, key=limits.__getitem__):
        alike = list(group)
        for start in range(0, len(alike), rows):
            yield limit, alike[start : start + rows]


def stream_answer(model: ChatModel, prompt: Sequence[int], sampling: Sampling) -> Stream:
    """Answer one prompt piece by piece; the work is done in a thread of its own.

    Raises:
        RequestError: at once, if the prompt is longer than the model takes.
    """
    _check(sampling)
    limit = min(sampling.max_tokens, check_room(model, prompt))
    return Stream(model, prompt, sampling, limit)


def _check(sampling: Sampling) -> None:
    """Refuse options that mean nothing, or nothing here."""
    sampling.check()
    if sampling.logprobs is not None:
        raise RequestError(
            "the text of an answer alone tells no log-probabilities",
            hint="leave logprobs out, or ask an engine",
            where="logprobs",
        )


class _Tokens:
    """Token ids as a thread of its own makes them; what goes wrong there is raised here."""

    def __init__(
        self, model: ChatModel, prompt: Sequence[int], sampling: Sampling, limit: int
    ) -> None:
        self._made: queue.Queue[int | BaseException | None] = queue.Queue()
        self._cancelled = threading.Event()
        work = (model, prompt, sampling, limit)
        self._worker = threading.Thread(target=self._work, args=work, daemon=True)

    def __iter__(self) -> Iterator[int]:
        self._worker.start()
        while isinstance(made := self._made.get(), int):
            yield made
        if made is not None:
            raise made

    def cancel(self) -> None:
        """End the work after the token in work; if it has not begun, it never will."""
        self._cancelled.set()

    def close(self) -> None:
        """End the work and wait for its end."""
        self.cancel()
        if self._worker.ident is not None:
            self._worker.join()

    def _work(
        self, model: ChatModel, prompt: Sequence[int], sampling: Sampling, limit: int
    ) -> None:
        listener = {
            "streamer": Streamer(self._made.put),
            "stopping_criteria": stop_if(self._cancelled.is_set),
        }
        try:
            if not self._cancelled.is_set():
                with _seeded(sampling.seed):
                    generate(model, [prompt], sampling, limit, listener)
            self._made.put(None)
        except BaseException as problem:  # noqa: BLE001  handed over to whoever reads the tokens
            self._made.put(problem)


def _finish(
    model: ChatModel, prompt: Sequence[int], tokens: list[int], sampling: Sampling
) -> Answer:
    text, kept, spelled = TextStream(model.tokenizer, sampling.stop), [], ""
    end = None
    for token in tokens:
        if token in model.stop_ids:
            end = token
            break
        kept.append(token)
        spelled += text.push(token)
        if text.stopped:  # what was written behind it is no part of the answer
            break
    spelled += text.end()
    finish: Finish = "stop" if end is not None or text.stopped else "length"
    return Answer(spelled, tuple(kept), finish, len(prompt), end)


def check_room(model: ChatModel, prompt: Sequence[int]) -> int:
    """Return how many tokens may be written before the model's longest text is full.

    Raises:
        RequestError: if there is room for none, or nothing to go on from.
    """
    if not prompt:
        raise RequestError("the prompt is empty", hint="send some text to continue", where="prompt")
    longest = max_positions(model)
    if len(prompt) >= longest:
        raise RequestError(
            f"the prompt has {len(prompt):,} tokens, the model takes {longest:,} with its answer",
            hint="shorten the messages",
            where="messages",
        )
    return longest - len(prompt)


def max_positions(model: ChatModel) -> int:
    """Return the longest text the model takes, prompt and answer together."""
    from tunesmith.models.inner import inner_model
    from tunesmith.models.rope import longest_text

    return longest_text(inner_model(model.model).config) or 1 << 30


def generate(
    model: ChatModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    limit: int,
    more: Mapping[str, Any] = NONE,
) -> list[list[int]]:
    """Write on from prompts padded on the left; return what was written, ended rows padded.

    Args:
        more: what else transformers is told, such as who hears each token.
    """
    import torch

    width = max(map(len, prompts))
    pad = model.stop_ids[0] if model.stop_ids else 0
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    device = next(model.model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    options: dict[str, Any] = {
        "generation_config": write_config(sampling, limit, model.stop_ids, pad, unwritten(model)),
        "logits_processor": add_to_logits(sampling, width),
        **more,
    }
    with torch.no_grad(), _only_our_options(model.model):
        shown = looked_arguments(model, prompts, ids, mask)
        written = model.model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, **shown, **options
        )
    rows: list[list[int]] = written[:, width:].tolist()
    return rows


def unwritten(model: ChatModel) -> list[int]:
    """List the tokens that stand for something shown, which an answer never does."""
    return [] if model.senses is None else sorted(model.senses.ids)


@contextmanager
def _only_our_options(model: torch.nn.Module) -> Iterator[None]:
    """Hide the model's generation_config, of which `generate` would add what we do not name.

    Of what its makers chose, `default_sampling` has taken what servers take.
    """
    from transformers import GenerationConfig

    from tunesmith.models.inner import inner_model

    inner = inner_model(model)
    theirs = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = theirs


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
