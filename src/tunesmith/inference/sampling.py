"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunesmith.errors import ModelError, RequestError
from tunesmith.models.inspect import read_config

COLDEST = 1e-5
"""Logits divided by a lower temperature are no numbers any more; it is 0 as good as."""
MOST_LOGPROBS = 20
"""As many as OpenAI's service tells."""


@dataclass(frozen=True)
class Sampling:
    """Options of one answer.

    Attributes:
        max_tokens: longest answer, at least 1.
        temperature: 0 takes the likeliest token, always the same; above, draws.
        top_p: draw from the likeliest tokens that together have this probability, (0, 1].
        top_k: draw from so many likeliest tokens; 0 for all.
        min_p: draw from tokens at least so likely beside the likeliest, [0, 1]; 0 for all.
        repetition_penalty: above 1, tokens of the prompt and the answer become less likely.
        presence_penalty: taken once from the logits of tokens that stand in the answer, -2 to 2.
        frequency_penalty: taken from a token's logit each time it stands in the answer, -2 to 2.
        logit_bias: what is added to the logits of tokens, by their ids, -100 to 100.
        seed: makes draws repeatable.
        stop: texts at which an answer ends; they are not part of it.
        logprobs: tell of each token its log-probability and so many of the likeliest in its
            place, as the model gives them before any other option; None to tell none.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def check(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            RequestError: naming the option.
        """
        self._refuse("max_tokens", self.max_tokens, self.max_tokens >= 1, "a number from 1")
        self._refuse("temperature", self.temperature, 0 <= self.temperature <= 10, "0 to 10")
        self._refuse("top_p", self.top_p, 0 < self.top_p <= 1, "a number above 0, up to 1")
        self._refuse("top_k", self.top_k, self.top_k >= 0, "0 for all tokens, or how many")
        self._refuse("min_p", self.min_p, 0 <= self.min_p <= 1, "0 for all tokens, up to 1")
        self._check_penalties()
        seeded = self.seed is None or 0 <= self.seed < 1 << 63
        self._refuse("seed", self.seed, seeded, "a number from 0 to 2**63 - 1")
        self._refuse("stop", list(self.stop), all(self.stop), "texts that are not empty")
        told = self.logprobs is None or 0 <= self.logprobs <= MOST_LOGPROBS
        self._refuse("logprobs", self.logprobs, told, f"how many, 0 to {MOST_LOGPROBS}")

    def _check_penalties(self) -> None:
        penalty = self.repetition_penalty
        self._refuse("repetition_penalty", penalty, 0.1 <= penalty <= 10, "0.1 to 10; 1 is none")
        for name, value in (
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ):
            self._refuse(name, value, -2 <= value <= 2, "-2 to 2; 0 is none")
        for token, bias in self.logit_bias.items():
            fine = token >= 0 and -100 <= bias <= 100
            self._refuse(
                "logit_bias", {token: bias}, fine, "ids of tokens, and -100 to 100 of each"
            )

    def _refuse(self, name: str, value: object, fine: bool, wanted: str) -> None:
        if not fine:
            raise RequestError(f"{name} cannot be {value!r}", hint=f"write {wanted}", where=name)


def default_sampling(folder: Path) -> Sampling:
    """Read how a model's makers mean it to be sampled, from generation_config.json.

    Raises:
        ModelError: if they wrote what means nothing.
    """
    path = folder / "generation_config.json"
    declared = read_config(path) if path.is_file() else {}
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    chosen = {name: declared[name] for name in names if declared.get(name) is not None}
    if not declared.get("do_sample"):
        chosen = {name: chosen[name] for name in chosen if name == "repetition_penalty"}
    elif "temperature" not in chosen:
        chosen["temperature"] = 1.0
    try:
        sampling = replace(Sampling(), **chosen)
        sampling.check()
    except (RequestError, TypeError) as problem:
        raise ModelError(
            f"the model's own way of sampling cannot be used: {problem}",
            hint="mend or delete the file",
            where=str(path),
        ) from None
    return sampling
