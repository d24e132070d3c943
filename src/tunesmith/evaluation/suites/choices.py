"""How likely a model holds each choice: every question computed once, none padded if it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from tunesmith.evaluation.suites.prompts import Posed
from tunesmith.methods.batches import to_device
from tunesmith.methods.learned import predict
from tunesmith.methods.method import Batch

if TYPE_CHECKING:
    import torch

    from tunesmith.models.row_attention import Segment

TOKENS = 8192
"""Most tokens of a batch, padding included; a single longer text is a batch of its own."""
WORTH_SHARING = 8
"""Tokens of a common start that are worth two calls of attention instead of one."""


@dataclass(frozen=True)
class Text:
    """What a model is given, and the tokens whose likelihood is asked.

    The last token of a choice is asked and never given: of letters nothing is but the question.

    Attributes:
        wanted: place in `ids` after which, which token, and the choice it belongs to, counted
            through all questions.
    """

    ids: tuple[int, ...]
    wanted: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Likelihoods:
    """Log-probabilities of the choices in nats, a list a question.

    Attributes:
        num_tokens: tokens that were computed, padding included.
    """

    logps: list[list[float]]
    num_tokens: int


def choice_logps(
    model: torch.nn.Module, posed: Sequence[Posed], done: Callable[[int], None]
) -> Likelihoods:
    """Sum the log-probabilities of each choice's tokens after its question.

    Args:
        posed: questions that fit; those of like prompts beside each other.
        done: called with how many more questions are computed.
    """
    import torch

    from tunesmith.models.layout import find_layout

    layout = find_layout(model)
    lay = _lay if layout.is_flat else _pad
    split = partial(_flat_batches, shared=layout.shared) if layout.is_flat else _padded_batches
    device = next(model.parameters()).device
    edges = list(accumulate((len(one.answers) for one in posed), initial=0))
    firsts, num_tokens = set(edges), 0
    found = torch.zeros(edges[-1], dtype=torch.float64)
    texts = (_texts(one, first) for one, first in zip(posed, edges, strict=False))
    with torch.no_grad():
        for groups in split(texts):
            batch = lay(groups)
            losses = predict(model, to_device(batch, device)).token_losses().double().cpu()
            found.index_add_(0, batch["owner"], -losses)
            num_tokens += batch["input_ids"].numel()
            done(len(firsts.intersection(batch["owner"].tolist())))
    logps = found.tolist()
    return Likelihoods([logps[start:end] for start, end in pairwise(edges)], num_tokens)


def _texts(posed: Posed, first: int) -> list[Text]:
    """List what must be computed for a question; choices of one token need no more than it."""
    found: dict[tuple[int, ...], Text] = {}
    for number, answer in enumerate(posed.answers, first):
        ids = (*posed.prompt, *answer[:-1])
        wanted = found.setdefault(ids, Text(ids, [])).wanted
        start = len(posed.prompt) - 1
        wanted += [(start + place, token, number) for place, token in enumerate(answer)]
    return list(found.values())


Group = Sequence[Text]


def _common(group: Group) -> int:
    """Count the tokens that texts begin with together."""
    first, last = min(text.ids for text in group), max(text.ids for text in group)
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))


def _flat_batches(questions: Iterable[Sequence[Text]], *, shared: bool) -> Iterator[list[Group]]:
    """Gather texts that share a start, if they may, and groups of them until a batch is full."""
    batch: list[Group] = []
    held = 0
    for group, size in _groups(questions, shared=shared):
        if batch and held + size > TOKENS:
            yield batch
            batch, held = [], 0
        batch.append(group)
        held += size
    if batch:
        yield batch


def _groups(questions: Iterable[Sequence[Text]], *, shared: bool) -> Iterator[tuple[Group, int]]:
    """Yield texts that share their start, which is computed once, and how many tokens they take."""
    group: list[Text] = []
    common = size = 0
    for text in (text for texts in questions for text in texts):
        now = _common([group[0], text]) if group else 0
        now = min(now, common)
        saved = len(group) * now - (len(group) - 1) * common
        fits = size + len(text.ids) - saved <= TOKENS
        if group and shared and saved >= WORTH_SHARING and fits:
            size += len(text.ids) - saved
            group, common = [*group, text], now
            continue
        if group:
            yield group, size
        group, common, size = [text], len(text.ids), len(text.ids)
    if group:
        yield group, size


def _lay(groups: Sequence[Group]) -> Batch:
    """Lay groups of texts end to end, the common start of each once."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    wanted: list[tuple[int, int, int]] = []
    for group in groups:
        start, common = len(ids), _common(group)
        ids += group[0].ids[:common]
        positions += range(common)
        segments.append((start, start + common, start, start))
        for text in group:
            own = len(ids)
            ids += text.ids[common:]
            positions += range(common, len(text.ids))
            if len(ids) > own:
                segments.append((own, len(ids), start, start + common))
            wanted += [
                (start + place if place < common else own + place - common, token, number)
                for place, token, number in text.wanted
            ]
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "segments": segments,
        **_wanted(wanted),
    }


def _padded_batches(questions: Iterable[Sequence[Text]]) -> Iterator[list[Group]]:
    """Put texts below each other, those of like length together."""
    texts = [text for texts in questions for text in texts]
    rows: list[Group] = []
    for text in sorted(texts, key=lambda text: -len(text.ids)):
        if rows and len(rows[0][0].ids) * (len(rows) + 1) > TOKENS:
            yield rows
            rows = []
        rows.append([text])
    if rows:
        yield rows


def _pad(groups: Sequence[Group]) -> Batch:
    """Put texts below each other, padded on the right."""
    import torch

    texts = [text for group in groups for text in group]
    seq = max(len(text.ids) for text in texts)
    ids = torch.zeros(len(texts), seq, dtype=torch.long)
    mask = torch.zeros(len(texts), seq, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        mask[row, : len(text.ids)] = 1
    wanted = [
        (row * seq + place, token, number)
        for row, text in enumerate(texts)
        for place, token, number in text.wanted
    ]
    return {"input_ids": ids, "attention_mask": mask, **_wanted(wanted)}


def _wanted(wanted: Sequence[tuple[int, int, int]]) -> Batch:
    import torch

    at, targets, owner = (torch.tensor(column) for column in zip(*wanted, strict=True))
    return {"predict_at": at, "targets": targets, "owner": owner}
