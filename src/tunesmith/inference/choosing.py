"""Choose the next tokens of many answers at once, each by its own options."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.errors import RequestError
from tunesmith.inference.engine import Form, Token
from tunesmith.inference.generate import COLDEST
from tunesmith.inference.sampling import Sampling

if TYPE_CHECKING:
    import torch

FEW = 256
"""Likeliest tokens that are looked at first where it is not told how many may be needed."""


class Way:
    """How one answer goes on, and what of it matters for that.

    Attributes:
        draws: whether chance decides.
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
        return [Token(token) for token in likeliest(logits)]
    chosen: list[Token | Exception] = []
    if len(special) < len(ways):
        chosen += [Token(token) for token in likeliest(logits)]
    else:
        chosen += [Token(0)] * len(ways)
    found = _choose_special([ways[place] for place in special], logits[special].float())
    for place, token in zip(special, found, strict=True):
        chosen[place] = token
    return chosen


def likeliest(logits: torch.Tensor) -> list[int]:
    """Find the likeliest token of each row; on a CPU numpy does in a tenth of the time."""
    import torch

    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        found: list[int] = logits.numpy().argmax(-1).tolist()
        return found
    return [int(token) for token in logits.argmax(-1).tolist()]


def _choose_special(ways: Sequence[Way], logits: torch.Tensor) -> list[Token | Exception]:
    """Choose where more is asked for than the likeliest; the logits are our own."""
    told = [place for place, way in enumerate(ways) if way.sampling.logprobs is not None]
    logprobs = logits[told].log_softmax(-1) if told else None
    _penalize(ways, logits)
    problems = _keep_form(ways, logits)
    tokens = likeliest(logits)
    drawing = [place for place, way in enumerate(ways) if way.draws and place not in problems]
    if drawing:
        drawn = _draw([ways[place] for place in drawing], logits[drawing])
        for place, token in zip(drawing, drawn, strict=True):
            tokens[place] = token
    found: list[Token | Exception] = [Token(token) for token in tokens]
    if logprobs is not None:
        _tell(found, told, [ways[place].sampling.logprobs or 0 for place in told], logprobs)
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
        flat.index_add_(0, at, torch.tensor([amount for _, amount in added], device=device))


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
            found = draw([ways[place] for place in places], logits[places])
            for place, token in zip(places, found, strict=True):
                drawn[place] = token
    return drawn


def _draw_wide(ways: Sequence[Way], logits: torch.Tensor) -> list[int]:
    """Draw from all tokens, but for those that are far less likely than the likeliest."""
    found: list[int] = _pick(ways, logits.softmax(-1)).tolist()
    return found


def _draw_narrow(ways: Sequence[Way], logits: torch.Tensor) -> list[int]:
    """Draw from the likeliest tokens, as few as suffice for `top_k` and `top_p` of each answer."""
    import torch

    vocab, device = logits.shape[1], logits.device
    most = [min(way.sampling.top_k or vocab, vocab) for way in ways]
    shares = torch.tensor([way.sampling.top_p for way in ways], device=device)[:, None]
    limits = torch.tensor(most, device=device)[:, None]
    whole = logits.logsumexp(-1, keepdim=True)
    size = min(vocab, max([FEW, *[each for each in most if each < vocab]]))
    while True:
        best, ids = logits.topk(size)
        best = best.masked_fill(torch.arange(size, device=device) >= limits, float("-inf"))
        total = torch.where(limits < vocab, best.logsumexp(-1, keepdim=True), whole)
        odds = (best - total).exp()
        before = odds.cumsum(-1) - odds
        enough = (limits < vocab) | (before[:, -1:] >= shares)
        if size == vocab or bool(enough.all()):
            break
        size = min(vocab, size * 8)
    odds = odds.masked_fill((before >= shares) & (shares < 1), 0.0)
    picked = _pick(ways, odds)
    found: list[int] = ids.gather(1, picked[:, None])[:, 0].tolist()
    return found


def _pick(ways: Sequence[Way], odds: torch.Tensor) -> torch.Tensor:
    """Draw a place of each row by odds [answers, places] that need not add up to 1."""
    import torch

    least = [way.sampling.min_p for way in ways]
    if any(least):
        bound = torch.tensor(least, device=odds.device)[:, None] * odds.amax(-1, keepdim=True)
        odds = odds.masked_fill(odds < bound, 0.0)
    upto = odds.double().cumsum(-1)
    chances = torch.tensor([way.chance() for way in ways], dtype=upto.dtype, device=odds.device)
    if not bool(upto[:, -1].isfinite().all()):
        raise RuntimeError("probability tensor contains what is not a number")
    return torch.searchsorted(upto, chances[:, None] * upto[:, -1:], right=True)[:, 0]


def _tell(
    found: list[Token | Exception],
    told: Sequence[int],
    counts: Sequence[int],
    logprobs: torch.Tensor,
) -> None:
    """Add log-probabilities to the tokens of which they are to be told.

    Args:
        counts: how many of the likeliest are told of each.
        logprobs: [told, vocab].
    """
    import torch

    tokens = [token.id for token in (found[place] for place in told) if isinstance(token, Token)]
    at = torch.tensor(tokens, device=logprobs.device)[:, None]
    values = logprobs.gather(1, at)[:, 0].tolist()
    best, ids = logprobs.topk(min(max(*counts, 1), logprobs.shape[1]))
    pairs = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), best.tolist(), strict=True)]
    for place, token, value, count, pair in zip(told, tokens, values, counts, pairs, strict=True):
        found[place] = Token(token, value, tuple(pair[:count]))
