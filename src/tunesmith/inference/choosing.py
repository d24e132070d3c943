"""Choose the next tokens of many answers at once, each by its own options."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.errors import NoOdds, RequestError
from tunesmith.inference.engine import Form, Token
from tunesmith.inference.sampling import COLDEST, Sampling

if TYPE_CHECKING:
    import torch

FEW = 256
"""Likeliest tokens that are looked at first where it is not told how many may be needed."""
BLOCK = 128
"""Places whose odds are summed up first where one is drawn."""
BELOW_ONE = 1 - 2**-50
NONE = -1
"""In the place of a token where none can be chosen, since logits are no numbers."""


class Way:
    """How one answer goes on, and what of it matters for that.

    Attributes:
        draws: whether chance decides.
        changes: whether the model's logits are changed before.
        plain: whether the likeliest token is all that is asked for.
    """

    def __init__(self, prompt: Sequence[int], sampling: Sampling, form: Form | None = None) -> None:
        self.sampling, self.form = sampling, form
        self.draws = sampling.temperature >= COLDEST
        self.counts: dict[int, int] = {}
        self._chance = random.Random(sampling.seed)  # noqa: S311  no secret
        self._repeats = sampling.repetition_penalty != 1
        self.seen = dict.fromkeys(prompt) if self._repeats else {}
        self._adds = bool(sampling.presence_penalty or sampling.frequency_penalty)
        changed = self._repeats or self._adds or sampling.logit_bias or form is not None
        self.changes = bool(changed)
        self.plain = not (changed or self.draws or sampling.logprobs is not None)

    def take(self, token: int) -> None:
        """Go on by a token."""
        if self._repeats:
            self.seen[token] = None
        if self._adds:
            self.counts[token] = self.counts.get(token, 0) + 1
        if self.form is not None:
            self.form.take(token)

    def added(self) -> dict[int, float]:
        """Return what is added to the logits of tokens."""
        sampling, amounts = self.sampling, dict(self.sampling.logit_bias)
        for token, count in self.counts.items():
            penalty = sampling.presence_penalty + sampling.frequency_penalty * count
            amounts[token] = amounts.get(token, 0.0) - penalty
        return amounts

    def chance(self) -> float:
        """Draw a number from 0 to 1, below 1; the same ones for the same seed."""
        return self._chance.random()


def choose(ways: Sequence[Way], logits: torch.Tensor) -> list[Token | Exception]:
    """Choose a token for each answer.

    The order is that of transformers: the penalty on repetition, what is added, the form, the
    temperature, top_k, top_p, min_p.

    Args:
        logits: [answers, vocab].

    Returns:
        for each answer its token, or why none can be chosen.
    """
    special = [place for place, way in enumerate(ways) if not way.plain]
    if not special:
        return [_told(token) for token in likeliest(logits)]
    asked = [ways[place] for place in special]
    own = rows_of(logits, special).float().contiguous()
    if own.data_ptr() == logits.data_ptr() and any(way.changes for way in asked):
        own = own.clone()
    found = _choose_special(asked, own)
    if len(special) == len(ways):
        return found
    chosen = [_told(token) for token in likeliest(logits)]
    for place, token in zip(special, found, strict=True):
        chosen[place] = token
    return chosen


def _told(token: int) -> Token | Exception:
    if token != NONE:
        return Token(token)
    return NoOdds(
        "no token can be chosen: what the model expects is not a number",
        hint="the model diverged while it was trained, or 16 bits are too few for it: answer with "
        "--precision fp32",
        where="model",
    )


def likeliest(logits: torch.Tensor) -> list[int]:
    """Find the likeliest token of each row, or NONE; on a CPU numpy takes a tenth of the time."""
    import torch

    if logits.device.type == "cpu":
        rows = logits.float().contiguous().numpy()
        places = rows.argmax(-1)  # the first that is not a number, if there is one
        best = torch.from_numpy(rows[np.arange(len(rows)), places])
        ids = torch.from_numpy(places)
    else:
        best, ids = logits.max(-1)
    found: list[int] = ids.where(best.isfinite(), NONE).tolist()
    return found


def rows_of(logits: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Take some rows; the tensor itself if those are all."""
    return logits if len(places) == len(logits) else logits[list(places)]


def _choose_special(ways: Sequence[Way], logits: torch.Tensor) -> list[Token | Exception]:
    """Choose where more is asked for than the likeliest; logits that change are our own."""
    told = [place for place, way in enumerate(ways) if way.sampling.logprobs is not None]
    raw = logits[told] if told else None
    _penalize(ways, logits)
    problems = _keep_form(ways, logits)
    drawing = [place for place, way in enumerate(ways) if way.draws and place not in problems]
    tokens = likeliest(logits) if len(drawing) < len(ways) else [0] * len(ways)
    if drawing:
        drawn = _draw([ways[place] for place in drawing], rows_of(logits, drawing))
        for place, token in zip(drawing, drawn, strict=True):
            tokens[place] = token
    found = [_told(token) for token in tokens]
    if raw is not None:
        _tell(found, told, [ways[place].sampling.logprobs or 0 for place in told], raw)
    for place, problem in problems.items():
        found[place] = problem
    return found


def _penalize(ways: Sequence[Way], logits: torch.Tensor) -> None:
    """Change the logits of tokens that stand in prompts or answers, or have a bias."""
    import torch

    vocab, flat, device = logits.shape[1], logits.view(-1), logits.device
    seen = [
        (place * vocab + token, way.sampling.repetition_penalty)
        for place, way in enumerate(ways)
        for token in way.seen
        if token < vocab
    ]
    if seen:
        at = torch.tensor([index for index, _ in seen], device=device)
        penalty = torch.tensor([penalty for _, penalty in seen], device=device)
        now = flat[at]
        flat[at] = torch.where(now < 0, now * penalty, now / penalty)
    added = [
        (place * vocab + token, amount)
        for place, way in enumerate(ways)
        for token, amount in way.added().items()
        if token < vocab
    ]
    if added:
        at = torch.tensor([index for index, _ in added], device=device)
        amounts = torch.tensor([float(amount) for _, amount in added], device=device)
        flat.index_add_(0, at, amounts)


def _keep_form(ways: Sequence[Way], logits: torch.Tensor) -> dict[int, Exception]:
    """Take away what the forms of answers do not allow; return where a form fails."""
    problems: dict[int, Exception] = {}
    for place, way in enumerate(ways):
        if way.form is None:
            continue
        try:
            mask = way.form.mask().to(logits.device)
            size = min(len(mask), logits.shape[1])
            if not bool(mask[:size].any()):
                raise RequestError(
                    "no token goes on the answer in the form asked for",
                    hint="ask for a form that the model's tokens can spell",
                    where="response_format",
                )
            logits[place, :size].masked_fill_(~mask[:size], float("-inf"))
            logits[place, size:] = float("-inf")
        except Exception as problem:  # noqa: BLE001  told to whoever asked
            problems[place] = problem
    return problems


def _draw(ways: Sequence[Way], logits: torch.Tensor) -> list[int]:
    """Draw a token for each answer."""
    import torch

    heat = torch.tensor([way.sampling.temperature for way in ways], device=logits.device)
    logits = logits / heat[:, None]
    vocab = logits.shape[1]
    narrow = [
        place
        for place, way in enumerate(ways)
        if 0 < way.sampling.top_k < vocab or way.sampling.top_p < 1
    ]
    wide = [place for place in range(len(ways)) if place not in set(narrow)]
    drawn = [0] * len(ways)
    for places, draw in ((narrow, _draw_narrow), (wide, _draw_wide)):
        if places:
            found = draw([ways[place] for place in places], rows_of(logits, places))
            for place, token in zip(places, found, strict=True):
                drawn[place] = token
    return drawn


def _draw_wide(ways: Sequence[Way], logits: torch.Tensor) -> list[int]:
    """Draw from all tokens, but for those that are far less likely than the likeliest."""
    found: list[int] = _pick(ways, logits.softmax(-1)).tolist()
    return found


def _draw_narrow(ways: Sequence[Way], logits: torch.Tensor, least: int = FEW) -> list[int]:
    """Draw from the likeliest tokens, as few as suffice for `top_k` and `top_p` of each answer.

    Args:
        least: how many are looked at where it is not told how many may be needed.
    """
    import torch

    vocab, device = logits.shape[1], logits.device
    most = [min(way.sampling.top_k or vocab, vocab) for way in ways]
    counted = [each for each in most if each < vocab]
    unknown = len(counted) < len(most)
    size = min(vocab, max([least] * unknown + counted))
    best, ids = find_best(logits, size)
    limits = torch.tensor(most, device=device)[:, None]
    shares = torch.tensor([way.sampling.top_p for way in ways], device=device)[:, None]
    best = best.masked_fill(torch.arange(size, device=device) >= limits, float("-inf"))
    total = best.logsumexp(-1, keepdim=True)
    if unknown:
        total = torch.where(limits < vocab, total, logits.logsumexp(-1, keepdim=True))
    odds = (best - total).exp()
    before = odds.cumsum(-1) - odds
    enough = (limits < vocab) | (before[:, -1:] >= shares) | (size == vocab)
    odds = odds.masked_fill((before >= shares) & (shares < 1), 0.0)
    going = [place for place, fine in enumerate(enough[:, 0].tolist()) if fine]
    others = [place for place in range(len(ways)) if place not in set(going)]
    drawn = [0] * len(ways)
    if going:
        picked = _pick([ways[place] for place in going], rows_of(odds, going))
        tokens = rows_of(ids, going).gather(1, picked.clamp(min=0)[:, None])[:, 0]
        found = tokens.where(picked != NONE, NONE).tolist()
        for place, token in zip(going, found, strict=True):
            drawn[place] = token
    if others:
        wider = _draw_narrow([ways[place] for place in others], logits[others], least * 8)
        for place, token in zip(others, wider, strict=True):
            drawn[place] = token
    return drawn


def _pick(ways: Sequence[Way], odds: torch.Tensor) -> torch.Tensor:
    """Draw a place of each row by odds [answers, places] that need not add up to 1, or NONE."""
    import torch

    least = [way.sampling.min_p for way in ways]
    if any(least):
        bound = torch.tensor(least, device=odds.device)[:, None] * odds.amax(-1, keepdim=True)
        odds = odds.masked_fill(odds < bound, 0.0)
    blocks = in_blocks(odds, BLOCK, 0.0)
    sums = blocks.sum(-1).double().cumsum(-1)
    numbers = sums[:, -1].isfinite() & (sums[:, -1] > 0)
    if not bool(numbers.all()):
        drawn = torch.full((len(odds),), NONE, device=odds.device)
        fine = numbers.nonzero()[:, 0]
        if len(fine):
            drawn[fine] = _pick([ways[place] for place in fine.tolist()], odds[fine])
        return drawn
    chances = torch.tensor([way.chance() for way in ways], device=odds.device, dtype=torch.float64)
    reached = chances[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, reached, right=True)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp_(min=0)), 0.0)
    share = (reached - before) / (sums.gather(1, block) - before)
    inner = blocks[torch.arange(len(odds), device=odds.device), block[:, 0]].double().cumsum(-1)
    place = torch.searchsorted(inner, share.clamp_(0.0, BELOW_ONE) * inner[:, -1:], right=True)
    return (block * blocks.shape[2] + place)[:, 0]


def in_blocks(rows: torch.Tensor, size: int, filling: float) -> torch.Tensor:
    """Cut rows into blocks, [rows, blocks, size], the last one filled up."""
    import torch

    rest = -rows.shape[1] % size
    filled = torch.nn.functional.pad(rows, (0, rest), value=filling) if rest else rows
    return filled.view(len(rows), -1, size)


def find_best(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the largest of each row, in order, and where they stand.

    They stand in as many blocks as there are of them, those with the largest maxima.
    """
    size = int((logits.shape[1] / count) ** 0.5)
    if size < 4:
        return logits.topk(count)
    blocks = in_blocks(logits, size, float("-inf"))
    chosen = blocks.amax(-1).topk(min(count, blocks.shape[1])).indices
    values = blocks.gather(1, chosen[:, :, None].expand(-1, -1, size)).flatten(1)
    best, places = values.topk(count)
    return best, chosen.gather(1, places // size) * size + places % size


def _tell(
    found: list[Token | Exception],
    told: Sequence[int],
    counts: Sequence[int],
    logits: torch.Tensor,
) -> None:
    """Add log-probabilities to the tokens of which they are to be told.

    Args:
        counts: how many of the likeliest are told of each.
        logits: the model's own, [told, vocab].
    """
    import torch

    chosen = [found[place] for place in told]
    tokens = [token.id if isinstance(token, Token) else 0 for token in chosen]
    at = torch.tensor(tokens, device=logits.device)[:, None]
    whole = logits.logsumexp(-1, keepdim=True)
    values = (logits.gather(1, at) - whole)[:, 0].tolist()
    best, ids = find_best(logits, min(max(*counts, 1), logits.shape[1]))
    best = best - whole
    pairs = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), best.tolist(), strict=True)]
    for place, token, value, count, pair in zip(told, chosen, values, counts, pairs, strict=True):
        if isinstance(token, Token):
            found[place] = Token(token.id, value, tuple(pair[:count]))
