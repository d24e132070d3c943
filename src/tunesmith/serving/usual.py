"""How a server answers where a request does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.inference.generate import Messages
from tunesmith.inference.sampling import Sampling
from tunesmith.serving.limits import LONGEST_ANSWER


@dataclass(frozen=True)
class Usual:
    """What whoever serves a model says of its answers.

    Attributes:
        sampling: options in place of the model's own, by the names of `Sampling`.
        system: the system prompt of conversations that have none.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""

    def sampled(self, own: Sampling) -> Sampling:
        """Replace a model's own way of sampling."""
        return replace(own, **{"max_tokens": LONGEST_ANSWER, **self.sampling})

    def begun(self, messages: Messages) -> Messages:
        """Let a conversation begin with the system prompt, unless it has one."""
        if not self.system or (messages and messages[0]["role"] == "system"):
            return messages
        return [{"role": "system", "content": self.system}, *messages]
