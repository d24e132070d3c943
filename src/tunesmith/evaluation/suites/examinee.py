"""Whoever is asked a benchmark: weights that are loaded here, or a GGUF in llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from tunesmith.data.tokens import PlainText
from tunesmith.evaluation.suites.choices import Likelihoods, choice_logps
from tunesmith.evaluation.suites.prompts import Posed, Reader
from tunesmith.hardware import Precision, choose_device, choose_precision
from tunesmith.inference.elsewhere.likelihood import Likelihood
from tunesmith.inference.generate import Answer, answer, encode_prompt, max_positions
from tunesmith.inference.llama_cpp import SLOTS, LlamaCpp, LlamaCppOptions
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, Subject, load_subject


class Examinee(Reader, Protocol):
    """A model that is asked.

    Attributes:
        precision: what it counts in; `gguf` for the numbers of its file.
    """

    precision: Precision | Literal["gguf"]

    def choose(self, posed: Sequence[Posed], done: Callable[[int], None]) -> Likelihoods:
        """Tell how likely each choice is.

        Args:
            posed: questions that fit.
            done: called with how many more questions are computed.
        """

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer several prompts."""

    def close(self) -> None:
        """Free what it holds."""


class Loaded(Examinee):
    """Weights of this process."""

    def __init__(self, model: ChatModel, precision: Precision) -> None:
        self.precision, self._model = precision, model
        self.longest, self.can_chat = max_positions(model), model.template is not None
        self._plain = PlainText(model.tokenizer)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokenize a conversation as its template writes it."""
        return encode_prompt(self._model, messages)

    def start(self, text: str) -> list[int]:
        """Tokenize the start of a plain text."""
        return self._plain.start(text)

    def go_on(self, text: str) -> list[int]:
        """Tokenize what goes on from another text."""
        return self._plain.go_on(text)

    def choose(self, posed: Sequence[Posed], done: Callable[[int], None]) -> Likelihoods:
        """Compute what questions share once."""
        return choice_logps(self._model.model, posed, done)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer several prompts."""
        return answer(self._model, prompts, sampling)

    def close(self) -> None:
        """Nothing is held that is not freed by itself."""


def load_examinee(subject: Subject) -> Loaded:
    """Load weights: in bf16 where a GPU is fast in it, else in fp32."""
    device = choose_device("auto")
    precision = choose_precision("auto" if device.type == "cuda" else "fp32", device)
    return Loaded(load_subject(subject, precision=precision), precision)


class Gguf(Examinee):
    """A GGUF, with keys and values in f32, as those of weights that are loaded in fp32.

    Args:
        writes: whether it is to write answers, several at a time. Choices come one by one, each
            question from what it shares with the one before.

    Raises:
        TunesmithError: if llama.cpp is not there, or cannot load it.
    """

    precision: Precision | Literal["gguf"] = "gguf"

    def __init__(self, file: Path, *, writes: bool) -> None:
        self._engine = LlamaCpp(file, LlamaCppOptions(slots=SLOTS if writes else 1, cache="f32"))
        self._speech = self._engine.speech
        self.longest, self.can_chat = self._speech.longest, self._speech.can_chat

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokenize a conversation as the file's template writes it."""
        return self._speech.render(messages, (), {})

    def start(self, text: str) -> list[int]:
        """Tokenize the start of a plain text."""
        return self._speech.start(text)

    def go_on(self, text: str) -> list[int]:
        """Tokenize what goes on from another text."""
        return self._speech.go_on(text)

    def choose(self, posed: Sequence[Posed], done: Callable[[int], None]) -> Likelihoods:
        """Ask for one token after the other; llama.cpp keeps what it has read."""
        logps, num_tokens = [], 0
        for one in posed:
            found = [self._engine.likelihood(one.prompt, choice) for choice in one.answers]
            logps.append([each.logp for each in found])
            num_tokens += sum(found, Likelihood()).num_tokens
            done(1)
        return Likelihoods(logps, num_tokens)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer several prompts."""
        return self._engine.write(prompts, sampling)

    def close(self) -> None:
        """End llama.cpp."""
        self._engine.close()
