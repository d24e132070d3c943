"""Answers of the policy to the questions of updates, as rows to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tunesmith.inference.sampling import Sampling
from tunesmith.methods.averages import Averages
from tunesmith.methods.held_out import split_by_set
from tunesmith.methods.method import Joining, Row
from tunesmith.methods.online import Memory, OnlineMethod, Writing, observe_rows
from tunesmith.methods.ranks import ALONE, Share
from tunesmith.models.roles import Roles
from tunesmith.runs.write import write_bytes
from tunesmith.training.online.answers import Answers, answering
from tunesmith.training.online.asked import with_shown, without_shown
from tunesmith.training.online.figures import figures_of, sum_up
from tunesmith.training.online.groups import in_groups, is_flat
from tunesmith.training.online.reference import build_reference
from tunesmith.training.prepare import Prepared
from tunesmith.training.updates import UpdateBatches

FILE = "rollout.json"
"""Where answers lie that are still learned from after a checkpoint."""


@dataclass(frozen=True)
class Rollout:
    """Answers that are learned from.

    Attributes:
        number: counted from 0; it and the run's seed decide the draws.
        rows: those of this process, the longest first.
    """

    number: int
    rows: list[Row]

    def part(self, update: int, writing: Writing, seed: int) -> list[Row]:
        """Choose what one of the updates learns from, each row once in each time."""
        if writing.minibatches == 1:
            return self.rows
        time, part = divmod(update, writing.minibatches)
        shuffled = np.random.default_rng([seed, self.number, time]).permutation(len(self.rows))
        chosen = np.array_split(shuffled, writing.minibatches)[part]
        return [self.rows[row] for row in sorted(chosen.tolist())]


class Rollouts:
    """The answers of a run, written by its policy as it is at that moment.

    Args:
        method: what learns from them.
        watched: gets what is measured of each rollout.
    """

    def __init__(
        self,
        prepared: Prepared,
        roles: Roles,
        how: Joining,
        *,
        method: OnlineMethod,
        watched: Averages,
    ) -> None:
        self.method, self.recipe = method, prepared.recipe
        self.train, self.validation = prepared.splits.train, prepared.splits.validation
        self.ranks, self.how, self.watched = prepared.ranks, how, watched
        self.policy, self.answers = roles.policy, Answers(roles, method)
        self.reference = build_reference(prepared, roles, method)
        assert self.recipe.compute.tokens_per_batch is not None  # settled before the run began
        self.tokens = self.recipe.compute.tokens_per_batch
        self.kept: Rollout | None = None
        self.memory: Memory = {}

    def update(self, step: int, questions: Sequence[int]) -> dict[str, Any]:
        """Make the batches of an update, of new answers or of those that are still learned from.

        Args:
            step: updates before this one.
            questions: numbers of the training rows that it asks, of all processes.

        Returns:
            what `UpdateBatches` does.
        """
        import torch

        number, update = divmod(step, self.method.writing.updates)
        if self.kept is None or self.kept.number != number:
            ours = questions[self.ranks.rank :: self.ranks.count]
            self.kept = Rollout(number, self._roll_out(number, ours))
        rows = self.kept.part(update, self.method.writing, self.recipe.run.seed)
        batches = UpdateBatches(self.method, self.how, self.tokens, ALONE)(rows)
        num_tokens = self.ranks.total(torch.tensor(batches["num_tokens"]))
        return {**batches, "num_tokens": int(num_tokens)}

    def measure(self, give_up: Callable[[], bool]) -> dict[str, float] | None:
        """Answer each held-out question with the likeliest tokens, and average the rewards.

        Returns:
            those of a set after its name too; None if it gave up.
        """
        questions = self.validation
        assert questions is not None
        share, gave_up = Share(self.ranks, give_up), False
        averages = {name: Averages() for name in ("", *questions.sets)}
        for each in averages.values():
            each.add(figures_of([], self.answers.names))
        parts = split_by_set(questions, self.recipe.evaluate.batch_size)
        sampling = Sampling(max_tokens=self.method.writing.max_tokens)
        for name, asked in [(name, one) for name, part in parts.items() for one in share.of(part)]:
            gave_up = gave_up or give_up()
            if gave_up:
                break
            rows = self.answers.to(questions, asked, sampling)
            for key in {"", name}:
                averages[key].add(figures_of(rows, self.answers.names))
        if self.ranks.any(gave_up):
            return None
        found = {name: each.take(self.ranks) for name, each in averages.items()}
        more = {
            f"{name}_{key}": value for name in questions.sets for key, value in found[name].items()
        }
        return {**found[""], **more}

    def save(self, folder: Path, step: int) -> None:
        """Keep what the method remembers, and answers that updates after this one learn from."""
        kept = self.kept if step % self.method.writing.updates else None
        content: dict[str, Any] = {"memory": self.memory}
        if kept is not None:
            content |= {"number": kept.number, "rows": without_shown(kept.rows)}
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / FILE, orjson.dumps(content))

    def restore(self, folder: Path) -> None:
        """Take up what was remembered, and the answers that a checkpoint was made amidst."""
        content = orjson.loads((folder / FILE).read_bytes())
        self.memory = content["memory"]
        rows = with_shown(content.get("rows", ()), self.train)
        self.kept = Rollout(content["number"], rows) if "rows" in content else None

    def _roll_out(self, number: int, questions: Sequence[int]) -> list[Row]:
        """Write, reward and compare the answers to our questions."""
        first = self._answer_in_groups(questions, number)
        size = self.method.writing.group_size
        self.watched.add(figures_of(first, self.answers.names, groups_of=size))
        rows = self._observe(self._redraw(first, questions, number))
        judged = self.method.judge(rows, self.memory, self.ranks)
        self.watched.add(sum_up({name: [one] for name, one in judged.figures.items()}))
        return sorted(judged.rows, key=lambda row: -len(row["input_ids"]))

    def _answer_in_groups(self, questions: Sequence[int], *number: int) -> list[Row]:
        """Answer each question several times, as the run's seed and some numbers decide."""
        writing = self.method.writing
        rollout, *attempt = number
        key = [self.recipe.run.seed, rollout, self.ranks.rank, *attempt]
        drawn = np.random.SeedSequence(key)
        sampling = Sampling(
            max_tokens=writing.max_tokens,
            temperature=writing.temperature,
            seed=int(drawn.generate_state(1, np.uint64)[0] >> 1),
        )
        asked = [row for row in questions for _ in range(writing.group_size)]
        return self.answers.to(self.train, asked, sampling)

    def _redraw(self, rows: list[Row], questions: Sequence[int], number: int) -> list[Row]:
        """Put answers to other questions in the place of groups that nothing is learned from."""
        writing, seen = self.method.writing, set(questions)
        groups = in_groups(rows, writing.group_size)
        for attempt in range(1, writing.redraws + 1):
            flat = [at for at, group in enumerate(groups) if is_flat(group)]
            others = [row for row in range(len(self.train)) if row not in seen]
            if not flat or not others:
                break
            drawn = np.random.default_rng([self.recipe.run.seed, number, self.ranks.rank, attempt])
            count = min(len(flat), len(others))
            chosen = drawn.choice(others, count, replace=False).tolist()
            seen.update(chosen)
            answers = self._answer_in_groups(chosen, number, attempt)
            for at, group in zip(flat, in_groups(answers, writing.group_size), strict=False):
                groups[at] = group
        if writing.redraws:
            self.watched.add(sum_up({"flat_groups_left": list(map(is_flat, groups))}))
        return [row for group in groups for row in group]

    def _observe(self, rows: list[Row]) -> list[Row]:
        """Note what the policy says of its own answers, and what the reference says of them."""
        with answering(self.policy):
            found = observe_rows(
                self.policy, rows, self.method.observe, how=self.how, tokens=self.tokens
            )
            if self.reference is None:
                return found
            return self.reference.observe(found, self.how, self.tokens)
