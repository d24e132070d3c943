"""Rewards that a reward model gives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.media.medium import HERE, Shows
from tunesmith.data.media.places import encode_answered
from tunesmith.errors import ModelError
from tunesmith.hardware import DeviceOption
from tunesmith.methods.batches import join, split_update, to_device
from tunesmith.methods.learned import model_arguments
from tunesmith.methods.method import Joining, Row
from tunesmith.methods.reward import last_tokens
from tunesmith.methods.rewards.sample import Sample
from tunesmith.models.chat import RewardModel, Subject, find_subject, load_reward_model
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.inspect import is_scorer
from tunesmith.recipe.rewards import ScoredBy

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 2048


class ModelJudge:
    """A reward model that scores answers as it was trained to: with its own template."""

    def __init__(self, options: ScoredBy, device: torch.device) -> None:
        from tunesmith.models.few_passes import use_few_passes
        from tunesmith.models.layout import find_layout

        on: DeviceOption = "cuda" if device.type == "cuda" else "cpu"
        self.judge: RewardModel = load_reward_model(find_judge(options), device=on)
        use_few_passes(self.judge.model)
        self.how = Joining(flat=find_layout(self.judge.model).is_flat)

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Score each conversation with its answer, in fp32."""
        import torch

        from tunesmith.models.score import scores_at

        device = next(self.judge.model.parameters()).device
        rows = [self._row(sample) for sample in samples]
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]["input_ids"]))
        sizes = [len(rows[row]["input_ids"]) for row in order]
        found = [0.0] * len(rows)
        for part in split_update(sizes, tokens=BATCH_TOKENS, flat=self.how.flat) if rows else ():
            batch = to_device(join([rows[row] for row in order[part]], self.how), device)
            with torch.no_grad():
                given = model_arguments(self.judge.model, batch)
                scores = scores_at(self.judge.model, given, last_tokens(batch))
            for row, score in zip(order[part], scores[:, 0].tolist(), strict=True):
                found[row] = score
        return found

    def _row(self, sample: Sample) -> Row:
        """Tokenize up to the end of the answer: what follows is not seen in training either."""
        judge, answer = self.judge, {"role": "assistant", "content": sample.completion}
        read = (judge.tokenizer, judge.template, judge.senses)
        tokens, media = encode_answered(*read, [*sample.messages, answer])
        row: Row = {"input_ids": tokens.ids, "labels": tokens.ids, "good": True}
        if media:
            assert judge.senses is not None  # it has counted them
            row["shown"] = Shows(judge.senses, media, HERE)
        return row


def find_judge(options: ScoredBy) -> Subject:
    """Find the folders of a reward model, without loading any.

    Raises:
        ModelError: if there is no such model, or it gives answers and no scores.
    """
    subject = find_subject(options.model)
    if not is_scorer(subject.adapter or subject.base):
        raise ModelError(
            f"{options.model} is no reward model: it has no head that scores",
            hint="train one with method.name: reward, and name its run",
            where="method.rewards",
        )
    return subject


def judge_sha256(options: ScoredBy) -> str:
    """Hash the weights of a reward model, those of its base included."""
    subject = find_judge(options)
    folders = [subject.base] if subject.adapter is None else [subject.base, subject.adapter]
    return hashlib.sha256("".join(map(weights_sha256, folders)).encode()).hexdigest()
