"""How likely a token is: llama.cpp tells that of what it writes, so it is made to write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.inference.elsewhere.gguf_speech import GgufSpeech
from tunesmith.inference.elsewhere.wire import Address

SURE = 1e9
"""A bias that nothing outweighs; likelihoods are told as they are without it."""


@dataclass(frozen=True)
class Likelihood:
    """How likely tokens are.

    Attributes:
        logp: sum of their log-probabilities in nats.
        num_tokens: tokens that were computed, those that were known left out.
    """

    logp: float = 0.0
    num_tokens: int = 0

    def __add__(self, other: Likelihood) -> Likelihood:
        """Add what follows."""
        return Likelihood(self.logp + other.logp, self.num_tokens + other.num_tokens)


def token_logp(
    address: Address, body: Mapping[str, Any], token: int, speech: GgufSpeech
) -> Likelihood:
    """Ask for the log-probability of the one token that is written.

    Of a token that is a part of a character nothing is told; it is looked for among all others.

    Raises:
        EngineError: if llama.cpp does not tell it.
    """
    told = _ask(address, body, token)
    computed = _computed(told)
    if not told.get("completion_probabilities"):
        told = _ask(address, {**body, "n_probs": speech.num_tokens}, speech.whole_token)
        computed += _computed(told)
    (place,) = told.get("completion_probabilities") or [{"id": None, "top_logprobs": ()}]
    found = [each["logprob"] for each in (place, *place["top_logprobs"]) if each["id"] == token]
    if not found:
        raise address.unreachable(f"it does not tell how likely the token {token} is")
    return Likelihood(float(found[0]), computed)


def _ask(address: Address, body: Mapping[str, Any], token: int) -> Any:
    return address.ask("/completion", {**body, "logit_bias": [[token, SURE]]})


def _computed(told: Mapping[str, Any]) -> int:
    return int(told["timings"]["prompt_n"])
