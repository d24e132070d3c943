"""What answers are worth: rules, functions of a person, reward models, servers on this machine."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import TrainingError, TunesmithError
from tunesmith.methods.rewards import rules
from tunesmith.methods.rewards.endpoint import ask_scores, check_address
from tunesmith.methods.rewards.function import find_file, load_function
from tunesmith.methods.rewards.sample import Sample
from tunesmith.recipe.rewards import Endpoint, Function, Reward, ScoredBy
from tunesmith.templates.parts import spell_places

if TYPE_CHECKING:
    import torch

Judge = Callable[[Sequence[Sample]], Any]
"""Judges several answers at once: a number each."""
RULES: dict[str, Callable[[Any, Sample], float]] = {
    "exact_match": rules.exact_match,
    "number": rules.number_match,
    "regex": rules.pattern,
    "length": rules.length,
    "json": rules.valid_json,
    "language": rules.language,
}
TAKEN = ("deviation", "overlong", "cut_penalty")
"""With them `reward_deviation` and the rewards of methods would be two measures."""


@dataclass(frozen=True)
class Rewards:
    """All that answers are judged by.

    Attributes:
        names: one each, by which it is logged.
        weights: what each is multiplied by, fp32 [rewards].
    """

    names: tuple[str, ...]
    weights: torch.Tensor
    judges: tuple[Judge, ...]

    def score(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Judge samples by every reward, not weighted yet.

        Returns:
            fp32 on the CPU, [samples, rewards].

        Raises:
            TrainingError: naming the reward and the sample, if one gives no number.
        """
        import torch

        columns = [
            _numbers(name, judge, samples)
            for name, judge in zip(self.names, self.judges, strict=True)
        ]
        return torch.tensor(columns, dtype=torch.float32).T.contiguous()

    def total(self, scores: torch.Tensor) -> torch.Tensor:
        """Weigh and add up what `score` returns, [samples]."""
        # a product would be computed in 16 bits under autocast
        return (scores * self.weights.to(scores.device)).sum(dim=1)


def build_rewards(options: Sequence[Reward], *, device: torch.device) -> Rewards:
    """Make ready all that answers are judged by.

    Args:
        device: where reward models compute.

    Raises:
        RecipeError: if a function or an address cannot be used.
        ModelError: if a reward model cannot be loaded.
    """
    import torch

    return Rewards(
        names=name_rewards(options),
        weights=torch.tensor([each.weight for each in options]),
        judges=tuple(_build(each, device) for each in options),
    )


def name_rewards(options: Sequence[Reward]) -> tuple[str, ...]:
    """Name rewards by their kinds, functions by their own names; a second one gets a number."""
    names = [
        each.function.rpartition(":")[2] if isinstance(each, Function) else each.kind
        for each in options
    ]
    seen = Counter(TAKEN)
    for place, name in enumerate(names):
        seen[name] += 1
        names[place] = f"{name}_{seen[name]}" if seen[name] > 1 else name
    return tuple(names)


def check_rewards(options: Sequence[Reward]) -> None:
    """Refuse what cannot judge before anything is loaded or written.

    Raises:
        RecipeError: if a function or an address cannot be used.
        ModelError: if there is no such reward model.
    """
    from tunesmith.methods.rewards.model import find_judge

    for each in options:
        if isinstance(each, Function):
            load_function(each)
        elif isinstance(each, Endpoint):
            check_address(each)
        elif isinstance(each, ScoredBy):
            find_judge(each)


def describe_rewards(options: Sequence[Reward]) -> dict[str, str]:
    """Hash the files that rewards depend on, by the names of the rewards."""
    from tunesmith.methods.rewards.model import judge_sha256

    hashed = {}
    for name, each in zip(name_rewards(options), options, strict=True):
        if isinstance(each, Function):
            hashed[name] = hashlib.sha256(find_file(each).read_bytes()).hexdigest()
        elif isinstance(each, ScoredBy):
            hashed[name] = judge_sha256(each)
    return hashed


def _build(options: Reward, device: torch.device) -> Judge:
    if isinstance(options, Function):
        return load_function(options)
    if isinstance(options, Endpoint):
        check_address(options)
        return lambda samples: ask_scores(options, samples)
    if isinstance(options, ScoredBy):
        from tunesmith.methods.rewards.model import ModelJudge

        return ModelJudge(options, device)
    rule = RULES[options.kind]
    return lambda samples: [rule(options, sample) for sample in samples]


def _numbers(name: str, judge: Judge, samples: Sequence[Sample]) -> list[float]:
    """Let a reward judge, and check that it gives a number for each sample."""
    try:
        found = judge(samples)
        if isinstance(found, Iterator):
            found = list(found)
    except TunesmithError:
        raise
    except (Exception, SystemExit) as problem:
        raise _failed(name, judge, samples) from problem
    try:
        numbers = [float(number) for number in found]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last from tensors
        numbers = []
    if len(numbers) != len(samples):
        raise TrainingError(
            f"the reward {name} did not give one number for each of {len(samples)} answers, "
            f"but {_spell(found)}",
            hint="let it return a list of numbers, one for each completion, in their order",
            where=name,
        )
    for number, sample in zip(numbers, samples, strict=True):
        if not math.isfinite(number):
            raise TrainingError(
                f"the reward {name} gave {number} for the answer {_spell(sample.completion)}",
                hint="let it return a number for every answer, 0 where it has nothing to say",
                where=name,
            )
    return numbers


def _failed(name: str, judge: Judge, samples: Sequence[Sample]) -> TrainingError:
    """Find the first sample that a reward fails on, and say where."""
    culprit, why = samples[0], "it fails on several answers at once only"
    for sample in samples:
        try:
            found = judge([sample])
            list(found if isinstance(found, Iterator) else ())
        except (Exception, SystemExit) as problem:  # noqa: BLE001
            culprit, why = sample, f"{type(problem).__name__}: {problem}"
            break
    question = culprit.messages[-1]["content"] if culprit.messages else culprit.prompt
    question = spell_places(question)
    return TrainingError(
        f"the reward {name} failed: {why}; at the answer {_spell(culprit.completion)} "
        f"to {_spell(question)}",
        hint="mend it, then resume the run with --accept-changes; let it take any text, "
        "empty ones too",
        where=name,
    )


def _spell(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


__all__ = [
    "Rewards",
    "Sample",
    "build_rewards",
    "check_rewards",
    "describe_rewards",
    "name_rewards",
]
