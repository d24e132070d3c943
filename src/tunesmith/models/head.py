"""The last layer of a language model, computed only where its result is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tunesmith.models.autocast import product_type, steepness, weighed
from tunesmith.models.inner import inner_model
from tunesmith.models.room import multiply_into, take_room

CHUNK_BYTES = 8 * 1024 * 1024
"""Logits computed at once, in bytes of fp32; small enough to stay near the processor."""
CHUNK_POSITIONS = 256
"""Positions computed at once at least: each chunk is a pass over the whole weight."""

SMALL_SHARE = 1e-30
"""Below it numbers in fp32 begin to lose digits."""

Weighing = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Tells from what is expected, [positions, vocab], and from the targets, [positions], how much each
position counts; it changes neither, and no gradient flows through it."""


@dataclass(frozen=True)
class Head:
    """From hidden states to logits.

    Attributes:
        softcap: largest logit, reached smoothly (arXiv:2408.00118); None for no limit.
        factor: what logits are multiplied with.
        divisor: what they are divided by.
        temperature: what they are divided by at last, where tokens are drawn so.
    """

    module: torch.nn.Module
    softcap: float | None = None
    factor: float = 1.0
    divisor: float = 1.0
    temperature: float = 1.0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute logits in fp32: [..., hidden] to [..., vocab]."""
        return self._shape(self.module(hidden)).float()

    def _shape(self, logits: torch.Tensor) -> torch.Tensor:
        if self.factor != 1.0:
            logits = logits * self.factor
        if self.divisor != 1.0:
            logits = logits / self.divisor
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits if self.temperature == 1.0 else logits / self.temperature

    @property
    def plain_weight(self) -> torch.Tensor | None:
        """The weight if the head is nothing but a product with it, [vocab, hidden]."""
        module = self.module
        simple = type(module) is torch.nn.Linear and module.bias is None
        shape = (self.softcap, self.factor, self.divisor, self.temperature)
        shaped = shape != (None, 1.0, 1.0, 1.0)
        return module.weight if simple and not shaped else None  # type: ignore[return-value]


def find_head(model: torch.nn.Module) -> Head:
    """Describe the head of a causal language model, seen through an adapter.

    The description is compared with the model's own logits by `is_head_of`.
    """
    config: Any = model.config.get_text_config()  # type: ignore[union-attr,operator]
    options = config.to_dict()
    return Head(
        module=inner_model(model).get_output_embeddings(),
        softcap=options.get("final_logit_softcapping"),
        factor=float(options.get("logit_scale") or 1.0),
        divisor=float(options.get("logits_scaling") or 1.0),
    )


def is_head_of(head: Head, model: torch.nn.Module, ids: torch.Tensor) -> bool:
    """Whether the head turns the model's last hidden states into the model's own logits.

    Args:
        ids: some token ids, [1, seq].
    """
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits.float()
        with hidden_only(head) as caught:
            model(input_ids=ids, use_cache=False)
        return len(caught) == 1 and torch.allclose(head.logits(caught[0]), whole, atol=1e-5)


@contextmanager
def hidden_only(head: Head) -> Iterator[list[torch.Tensor]]:
    """Catch what the head is given, and let the model compute no logits."""
    caught: list[torch.Tensor] = []

    def catch(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        caught.append(given[0])
        return (given[0][:, :0],)

    handle = head.module.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


@dataclass(frozen=True)
class Targets:
    """What is learned, and how much.

    Attributes:
        ids: token ids, [positions].
        weights: how much each position counts, [positions]; None for all alike.
        smoothing: share of a target that all tokens get in equal parts (arXiv:1512.00567), 0 to 1.
        weigh: finds as the loss is computed how much each counts beside that; None for all alike.
    """

    ids: torch.Tensor
    weights: torch.Tensor | None = None
    smoothing: float = 0.0
    weigh: Weighing | None = None

    def at(self, part: slice) -> Targets:
        """Take some positions."""
        weights = None if self.weights is None else self.weights[part]
        return replace(self, ids=self.ids[part], weights=weights)

    def weights_among(self, expected: torch.Tensor) -> torch.Tensor | None:
        """Return how much each position counts in all, told what was expected there."""
        if self.weigh is None:
            return self.weights
        found = self.weigh(expected, self.ids)
        return found if self.weights is None else found * self.weights


def summed_loss(head: Head, hidden: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Sum the cross-entropy over positions without ever holding all logits.

    Logits are computed some positions at a time, and their gradient at once with them, as in
    arXiv:2410.10989; nothing of the size of the vocabulary is kept for the backward pass.

    Args:
        hidden: what the head is given, [positions, hidden].

    Returns:
        A scalar in fp32.
    """
    total: torch.Tensor
    weight = head.plain_weight
    if weight is not None:
        total = _PlainLoss.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    else:
        trained = [given for given in head.module.parameters() if given.requires_grad]
        total = _AnyLoss.apply(hidden, targets, head, *trained)  # type: ignore[no-untyped-call]
    return total


def chunk_size(vocab: int, *, learns_weight: bool) -> int:
    """Choose how many positions are computed at once; a weight that learns is gone over twice."""
    return max(CHUNK_POSITIONS, CHUNK_BYTES * (4 if learns_weight else 1) // (4 * vocab))


def chunks(positions: int, vocab: int, *, learns_weight: bool = False) -> Iterator[slice]:
    """Part the positions as evenly as can be."""
    size = chunk_size(vocab, learns_weight=learns_weight)
    size = math.ceil(positions / max(1, math.ceil(positions / size)))
    for start in range(0, positions, max(1, size)):
        yield slice(start, min(start + size, positions))


def losses_of(logits: torch.Tensor, wanted: Targets, *, learns: bool) -> torch.Tensor:
    """Compute the loss of each position, and put its gradient into the place of the logits.

    Args:
        logits: in fp32, [positions, vocab]; written over.
        learns: whether the gradient is wanted.

    Returns:
        Weighted nats, [positions].
    """
    picked = torch.arange(len(logits), device=logits.device), wanted.ids
    largest, target = logits.amax(dim=-1), logits[picked]
    losses = target * (wanted.smoothing - 1.0)
    if wanted.smoothing:
        losses -= wanted.smoothing * logits.mean(dim=-1)
    in_place = logits if logits.device.type == "cpu" else None
    shares = torch.softmax(logits, dim=-1, out=in_place)
    losses += _log_sum(shares, shares[picked], target, largest)
    weights = wanted.weights_among(shares)
    if learns and in_place is None:
        logits.copy_(shares)
    if learns:
        logits[picked] -= 1.0 - wanted.smoothing
    if learns and wanted.smoothing:
        logits -= wanted.smoothing / logits.shape[1]
    if weights is None:
        return losses
    if learns:
        logits *= weights[:, None]
    return losses * weights


def _log_sum(
    shares: torch.Tensor, share: torch.Tensor, target: torch.Tensor, largest: torch.Tensor
) -> torch.Tensor:
    """Find the logarithm of the sum of exponentials from one logit and its share in the sum.

    Args:
        share, target: those of the targets, [positions]; where a share is too small for its
            logarithm to be exact, that of the largest logit serves.
    """
    found = target - share.log()
    small = share < SMALL_SHARE
    if small.is_cuda or small.any():  # a GPU would be waited for
        found = torch.where(small, largest - shares.amax(dim=-1).log(), found)
    return found


def _add_product(whole: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add a product to a matrix in fp32, in place where the types allow it."""
    if left.dtype == whole.dtype:
        whole.addmm_(left, right)
    elif left.dtype != torch.float16:
        whole += left @ right
    elif left.is_cuda:  # a sum over many positions may be more than fp16 holds
        whole += torch.mm(left, right, out_dtype=torch.float32)
    else:
        whole.addmm_(left.float(), right.float())


class _PlainLoss(torch.autograd.Function):
    """Cross-entropy after a single product; the gradient is the softmax less the target."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: Targets
    ) -> torch.Tensor:
        learns_hidden, learns_weight, _ = ctx.needs_input_grad
        weight, kept = weight.to(product_type(weight)), weight
        steep = steepness(weight.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden) if learns_hidden else None
        to_weight = torch.zeros_like(kept, dtype=torch.float32) if learns_weight else None
        most = chunk_size(len(weight), learns_weight=learns_weight)
        room = take_room(weight, most, len(weight))  # of one size always, so that it is found again
        for part in chunks(len(hidden), len(weight), learns_weight=learns_weight):
            given = hidden[part].to(weight.dtype)
            logits = multiply_into(room, given, weight.t()).float()
            total += losses_of(
                logits, targets.at(part), learns=learns_hidden or learns_weight
            ).sum()
            if to_hidden is None and to_weight is None:
                continue
            gradient = (logits if steep == 1.0 else logits.mul_(steep)).to(weight.dtype)
            if to_hidden is not None:
                to_hidden[part] = gradient @ weight
            if to_weight is not None:
                _add_product(to_weight, gradient.t(), given)
        ctx.save_for_backward(to_hidden, to_weight)
        ctx.dtype, ctx.steep = kept.dtype, steep
        return total

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        to_hidden, to_weight = ctx.saved_tensors
        return (
            None if to_hidden is None else weighed(to_hidden, upper[0], ctx.steep),
            None if to_weight is None else to_weight.mul_(upper[0] / ctx.steep).to(ctx.dtype),
            None,
        )


def sum_of(logits: torch.Tensor, wanted: Targets) -> torch.Tensor:
    """Sum the loss over positions whose logits are there, [positions, vocab]."""
    losses = cross_entropy(logits, wanted.ids, reduction="none", label_smoothing=wanted.smoothing)
    weights = wanted.weights
    if wanted.weigh is not None:
        weights = wanted.weights_among(torch.softmax(logits.detach(), dim=-1))
    return (losses if weights is None else losses * weights).sum()


class _AnyLoss(torch.autograd.Function):
    """Cross-entropy after any head: autograd finds each chunk's gradients at once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: Targets,
        head: Head,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        learns = any(ctx.needs_input_grad)
        steep = 1.0 if trained else steepness(product_type(hidden))  # they sum over positions
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.zeros_like(hidden)
        to_trained = [torch.zeros_like(given, dtype=torch.float32) for given in trained]
        vocab = head.logits(hidden[:1]).shape[-1]
        for part in chunks(len(hidden), vocab):
            with torch.set_grad_enabled(learns):
                leaf = hidden[part].detach().requires_grad_(learns)
                loss = sum_of(head.logits(leaf), targets.at(part))
            total += loss.detach()
            if learns:
                to_leaf, *rest = torch.autograd.grad(
                    loss, [leaf, *trained], torch.full_like(loss, steep)
                )
                to_hidden[part] = to_leaf
                for whole, one in zip(to_trained, rest, strict=True):
                    whole.add_(one)
        ctx.save_for_backward(to_hidden, *to_trained)
        ctx.dtypes, ctx.steep = [given.dtype for given in trained], steep
        return total

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        to_hidden, *to_trained = ctx.saved_tensors
        found = [
            given.mul_(upper[0]).to(dtype)
            for given, dtype in zip(to_trained, ctx.dtypes, strict=True)
        ]
        return weighed(to_hidden, upper[0], ctx.steep), None, None, *found
