"""How the next token is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.errors import ModelError, RequestError
from tunesmith.models.inspect import read_config


@dataclass(frozen=True)
class Sampling:
    """Options of one answer.

    Attributes:
        max_tokens: longest answer, at least 1.
        temperature: 0 takes the likeliest token, always the same; above, draws.
        top_p: draw from the likeliest tokens that together have this probability, (0, 1].
        top_k: draw from so many likeliest tokens; 0 for all.
        repetition_penalty: above 1, tokens that were already written become less likely.
        seed: makes draws repeatable.
        stop: texts at which an answer ends; they are not part of it.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            RequestError: naming the option.
        """
        self._refuse("max_tokens", self.max_tokens, self.max_tokens >= 1, "a number from 1")
        self._refuse("temperature", self.temperature, 0 <= self.temperature <= 10, "0 to 10")
        self._refuse("top_p", self.top_p, 0 < self.top_p <= 1, "a number above 0, up to 1")
        self._refuse("top_k", self.top_k, self.top_k >= 0, "0 for all tokens, or how many")
        penalty = self.repetition_penalty
        self._refuse("repetition_penalty", penalty, 0.1 <= penalty <= 10, "0.1 to 10; 1 is none")
        seeded = self.seed is None or 0 <= self.seed < 1 << 63
        self._refuse("seed", self.seed, seeded, "a number from 0 to 2**63 - 1")
        self._refuse("stop", list(self.stop), all(self.stop), "texts that are not empty")

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
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
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
