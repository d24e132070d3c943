"""What methods share that learn from answers which the policy writes while it learns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.batches import join, split_update, to_device
from tunesmith.methods.learned import predict
from tunesmith.methods.method import Batch, Joining, Method, Row
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.methods.rewards import Sample
from tunesmith.recipe.method import GRPO, PPO
from tunesmith.recipe.rewards import Rewards

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

Columns = Mapping[str, "torch.Tensor"]
Look = Callable[["torch.nn.Module", Batch], Columns]
Memory = dict[str, float]
"""What a method remembers from one rollout to the next; it is kept with checkpoints."""


@dataclass(frozen=True)
class Writing:
    """How the policy answers questions, and how long it learns from its answers.

    Attributes:
        group_size: answers to each question.
        max_tokens: longest answer.
        temperature: how freely they are drawn.
        rows: answers written at the same time.
        iterations: times that the same answers are learned from.
        minibatches: updates that each of these times is split into.
        redraws: times that answers which are all worth the same make room for others.
    """

    group_size: int
    max_tokens: int
    temperature: float
    rows: int
    iterations: int
    minibatches: int = 1
    redraws: int = 0

    @property
    def updates(self) -> int:
        """Count the updates that learn from the same answers."""
        return self.iterations * self.minibatches


@dataclass(frozen=True)
class Judged:
    """A rollout made ready to learn from.

    Attributes:
        rows: with all that the loss needs.
        figures: what is worth watching of all processes' answers.
    """

    rows: list[Row]
    figures: Mapping[str, float] = field(default_factory=dict)


class OnlineMethod(Method):
    """A method whose rows are questions, and which learns from the policy's answers to them.

    A rollout is the answers to the questions of an update: each a row with input_ids, labels,
    reward, and cut, whether it was cut for its length; group_size rows in turn share a question.
    What `observe` returns is added to each row, `judge` adds what the loss needs besides, and then
    `collate`, `count` and `loss` see them as they see rows of a file.
    """

    options: GRPO | PPO

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(kind="prompt", history=False)

    @property
    @abstractmethod
    def writing(self) -> Writing:
        """How the policy answers."""

    @property
    def rewards(self) -> Rewards:
        """What the answers are worth."""
        return self.options.rewards

    @property
    def asks_reference(self) -> bool:
        """Whether rows carry what the model before training says of their answers."""
        return self.options.beta > 0

    def own_rewards(self, rows: Sequence[Row]) -> dict[str, list[float]]:
        """Reward answers for what only the method looks at; by name, [rows] each."""
        return {}

    @abstractmethod
    def observe(self, model: torch.nn.Module, batch: Batch) -> Columns:
        """Note what the policy that wrote the answers says of each learned token, [learned]."""

    @abstractmethod
    def judge(self, rows: Sequence[Row], memory: Memory, ranks: Ranks = ALONE) -> Judged:
        """Compare the rewards of a rollout, whole groups of it, and make rows to learn from.

        Args:
            memory: may be changed.
            ranks: the processes that share the rollout; each judges its rows, were it none.
        """


class Given(Protocol):
    """An answer as an engine gives it."""

    @property
    def text(self) -> str:
        """What a person reads."""

    @property
    def written(self) -> tuple[int, ...]:
        """Its tokens, the one that ends it included."""

    @property
    def finish(self) -> str:
        """Why it ended; `length` if it was cut."""


def make_sample(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Mapping[str, Any]],
    prompt: Sequence[int],
    given: Given,
    reference: str | None,
) -> Sample:
    """Describe an answer to those that judge it.

    Args:
        prompt: token ids of the question as the model read it.
        reference: how the data answers it.
    """
    return Sample(
        messages=messages,
        prompt=str(tokenizer.decode(list(prompt))),
        completion=given.text,
        written=str(tokenizer.decode(list(given.written))),
        completion_ids=given.written,
        reference=reference,
        cut=given.finish == "length",
    )


def join_answers_of(rows: Sequence[Row], how: Joining, numbers: Sequence[str] = ()) -> Batch:
    """Join rows of a rollout into one batch.

    Args:
        numbers: numbers of a row, where it has them; what is known of each token is joined anyway.

    Returns:
        what `join` does, owner and num_answers too; and by name [rows] or [learned].
    """
    import torch

    batch = join(rows, how)
    for name in numbers:
        if name in rows[0]:
            batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
    for name in rows[0].get("tokens", ()):
        known = [number for row in rows for number in row["tokens"][name]]
        batch[name] = torch.tensor(known, dtype=torch.float32)
    return batch


def token_logps(model: torch.nn.Module, batch: Batch, temperature: float) -> torch.Tensor:
    """Compute log p of each learned token, as it is drawn at a temperature, in fp32, [learned]."""
    return -predict(model, batch).token_losses(temperature)


def num_written(row: Row) -> int:
    """Count the tokens of the answer of a row."""
    asked: int = row["asked"]
    return len(row["labels"]) - asked


def observe_rows(
    model: torch.nn.Module,
    rows: Sequence[Row],
    look: Look,
    *,
    how: Joining,
    tokens: int,
) -> list[Row]:
    """Add to rows what is noted of each of their learned tokens.

    Draws no random number and changes no weight.

    Args:
        look: tells [learned] numbers by name of a batch.
        tokens: most tokens of a batch.
    """
    import torch

    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]["input_ids"]))
    sizes = [len(rows[row]["input_ids"]) for row in order]
    found = list(rows)
    with torch.no_grad():
        for part in split_update(sizes, tokens=tokens, flat=how.flat) if rows else ():
            chosen = [rows[row] for row in order[part]]
            noted = look(model, to_device(join_answers_of(chosen, how), device))
            counts = [_num_learned(row) for row in chosen]
            for name, values in noted.items():
                parts = torch.split(values.cpu(), counts)
                for at, one in zip(order[part], parts, strict=True):
                    told = {**found[at].get("tokens", {}), name: one.tolist()}
                    found[at] = {**found[at], "tokens": told}
    return found


def _num_learned(row: Row) -> int:
    return sum(label != UNLEARNED for label in row["labels"][1:])
