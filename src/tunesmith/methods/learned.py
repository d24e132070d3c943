"""Run a model as far as is needed for what a batch learns."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.methods.method import Batch
from tunesmith.methods.neftune import noise_on_embeddings

if TYPE_CHECKING:
    import torch

    from tunesmith.models.compared import Other, Sums, Terms
    from tunesmith.models.head import Head, Weighing


@dataclass(frozen=True)
class Predictions:
    """What a model has to say of the learned tokens.

    Attributes:
        given: the hidden state before each learned token, [learned, hidden], or the logits,
            [learned, vocab], where only the model itself can compute them.
        head: from the one to the other; None if it is done.
        targets: the learned tokens, [learned].
        weights: how much each counts in a sum, [learned]; None for all alike.
    """

    given: torch.Tensor
    head: Head | None
    targets: torch.Tensor
    weights: torch.Tensor | None = None

    def summed_loss(self, smoothing: float = 0.0, weigh: Weighing | None = None) -> torch.Tensor:
        """Sum -log p over the learned tokens, in fp32.

        Args:
            smoothing: share of each target that all tokens get in equal parts, 0 to 1.
            weigh: how much each token counts beside its weight; None for all alike.
        """
        from tunesmith.models.head import Targets, sum_of, summed_loss

        wanted = Targets(self.targets, self.weights, smoothing, weigh)
        if self.head is None:
            return sum_of(self.given.float(), wanted)
        return summed_loss(self.head, self.given, wanted)

    def compared_loss(self, other: Other, terms: Terms, weigh: Weighing | None = None) -> Sums:
        """Sum -log p and the distance to another model over the learned tokens."""
        import torch

        from tunesmith.models.compared import compared_loss
        from tunesmith.models.head import Head, Targets

        head = self.head or Head(torch.nn.Identity())
        wanted = Targets(self.targets, self.weights, weigh=weigh)
        return compared_loss(head, self.given, other, wanted, terms)

    def token_losses(self, temperature: float = 1.0) -> torch.Tensor:
        """Return -log p of each learned token, in fp32, [learned].

        Args:
            temperature: what logits are divided by, > 0.
        """
        from torch.nn.functional import cross_entropy

        if self.head is None:
            logits = self.given.float() / temperature
            return cross_entropy(logits, self.targets, reduction="none")
        from tunesmith.models.token_losses import token_losses

        if temperature == 1.0:
            return token_losses(self.head, self.given, self.targets)
        if self.head.plain_weight is not None:
            return token_losses(self.head, self.given / temperature, self.targets)
        return token_losses(replace(self.head, temperature=temperature), self.given, self.targets)


def predict(model: torch.nn.Module, batch: Batch, *, noise: float = 0.0) -> Predictions:
    """Run a model up to its head, where a token is learned.

    Args:
        model: a causal language model.
        batch: what `join` returns.
        noise: strength of noise on the embeddings while training, 0 for none.
    """
    import torch

    from tunesmith.models.layout import find_layout

    head = find_layout(model).head
    rows, seq = batch["input_ids"].shape
    columns, at = batch["predict_at"], torch.arange(len(batch["predict_at"]))
    if rows > 1:
        columns, at = torch.unique(columns % seq, return_inverse=True)
    given = model_arguments(model, batch, columns)
    noisy = noise_on_embeddings(model, batch, noise) if noise and model.training else nullcontext()
    with noisy:
        found = model(**given).logits if head is None else _hidden(model, head, given)
    if "logits_to_keep" not in given:
        found = found[:, columns]
    picked = found[0] if rows == 1 else found[batch["predict_at"] // seq, at]
    return Predictions(picked, head, batch["targets"], batch.get("weights"))


def answer_logps(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Sum log p(token | tokens before it) over the learned tokens of each answer.

    Args:
        batch: what `join` makes of rows with two answers.

    Returns:
        Of the preferred and the rejected answer of each row, [rows, 2], in fp64.
    """
    return summed_logps(model, batch).view(-1, 2)


def summed_logps(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Sum log p(token | tokens before it) over the learned tokens of each answer.

    Args:
        batch: what `join` makes of rows whose answers are compared.

    Returns:
        [answers], in fp64: of sums of some thousand nats, differences of a thousandth matter.
    """
    losses = predict(model, batch).token_losses().double()
    summed = losses.new_zeros(batch["num_answers"])
    return -summed.index_add(0, batch["owner"], losses)


def answer_lengths(batch: Batch) -> torch.Tensor:
    """Count the learned tokens of each answer, [rows, 2]."""
    owner: torch.Tensor = batch["owner"]
    return owner.bincount(minlength=batch["num_answers"]).view(-1, 2)


def _hidden(model: torch.nn.Module, head: Head, given: dict[str, Any]) -> torch.Tensor:
    """Return what the head is given, [batch, positions, hidden]."""
    from tunesmith.models.head import hidden_only

    with hidden_only(head) as caught:
        model(**given)
    return caught[0]


def model_arguments(
    model: torch.nn.Module, batch: Batch, columns: torch.Tensor | None = None
) -> dict[str, Any]:
    """List what a model's forward is given for a batch.

    Args:
        columns: positions of which it is to compute logits, where it can choose; None for all.
    """
    from tunesmith.models.layout import find_layout

    accepted = forward_names(model)
    rest: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted and columns is not None:
        rest["logits_to_keep"] = columns
    if "segments" in batch:
        from tunesmith.models.row_attention import as_mask

        mask = as_mask(batch["segments"])
        rest |= {"position_ids": batch["position_ids"], "attention_mask": mask}
    else:
        mask = rest["attention_mask"] = batch["attention_mask"]
        if not find_layout(model).shared:  # it asks how long each row is
            rest["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    if "shown" in batch:
        from tunesmith.models.seeing import seen_arguments, seen_positions

        given = (model, batch["input_ids"], batch["shown"])
        layout = {"segments": batch.get("segments", ()), "mask": batch.get("attention_mask")}
        rest |= seen_arguments(*given) | seen_positions(*given, **layout)
    return {"input_ids": batch["input_ids"], **rest}


def forward_names(model: torch.nn.Module) -> frozenset[str]:
    """List what the architecture's forward takes, seen through an adapter."""
    from tunesmith.models.inner import inner_model

    return frozenset(inspect.signature(inner_model(model).forward).parameters)
