"""How a model takes its rows, found out by trying: laid end to end, and logits where needed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from tunesmith.models.head import Head, find_head, is_head_of
from tunesmith.models.inner import inner_model
from tunesmith.models.rope_by_length import turns_by_length
from tunesmith.models.row_attention import (
    CannotLieFlat,
    as_mask,
    one_after_another,
    use_row_attention,
)
from tunesmith.models.score import find_score, states_before
from tunesmith.models.seeing import Trial, seen_arguments, seen_positions, senses_of, trial_rows

FIRST, OTHER, SECOND = (1, 2, 3, 4, 5, 6, 7), (7, 6, 5, 4, 3, 2, 1), (3, 1, 4, 1, 5, 2)
"""Rows of token ids to try a model with; every vocabulary has that many."""
FAILURES = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""How models fail at what they are not made for."""
KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True)
class Layout:
    """What was found out about a model.

    Attributes:
        padded_because: why rows must stand below each other, padded; empty if they may lie end to
            end.
        head: what turns hidden states into logits; None if only the model itself can.
        shared: whether two answers may lie behind one question: not where its tokens turn by how
            long the answer is.
    """

    padded_because: str
    head: Head | None
    shared: bool = True

    @property
    def is_flat(self) -> bool:
        """Whether rows may lie end to end."""
        return not self.padded_because


_FOUND: WeakKeyDictionary[torch.nn.Module, Layout] = WeakKeyDictionary()


def find_layout(model: torch.nn.Module) -> Layout:
    """Find out how a model takes its rows; the first time by a few tokens sent through it.

    Draws no random number and changes nothing but how the model attends when given edges of rows.
    """
    if model not in _FOUND:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            _FOUND[model] = Layout(
                _why_padded(model), _head(model), shared=not turns_by_length(model)
            )
        model.train(was_training)
    return _FOUND[model]


def _head(model: torch.nn.Module) -> Head | None:
    try:
        head = find_head(model)
        if _has_tokens_of_its_own(head.module):
            return None
        return head if is_head_of(head, model, _ids(model, FIRST)) else None
    except FAILURES:
        return None


def _has_tokens_of_its_own(head: torch.nn.Module) -> bool:
    """Whether rows of a head are trained alone: they may be parameters of the embeddings."""
    from peft.utils.other import TrainableTokensWrapper

    return isinstance(head, TrainableTokensWrapper)


def _why_padded(model: torch.nn.Module) -> str:
    """Try rows end to end against the same rows alone."""
    try:
        inner = inner_model(model)
        check_architecture(inner)
        alone = [_said(model, input_ids=_ids(model, row)) for row in (FIRST, SECOND)]
        use_row_attention(inner)
        together, others = (_flat(model, first) for first in (FIRST, OTHER))
    except FAILURES as problem:
        return (str(problem).splitlines() or [repr(problem)])[0]
    second = slice(len(FIRST), None)
    if not _close(together[:, second], others[:, second]):
        return "its layers carry something from one row to the next"
    if not _close(together, torch.cat(alone, dim=1)):
        return "its rows come out otherwise than alone"
    return _why_padded_if_seen(model)


def _why_padded_if_seen(model: torch.nn.Module) -> str:
    """Try rows that show images, of a model that sees."""
    senses = senses_of(model)
    if senses is None or not senses.kinds:
        return ""
    if "image" not in senses.kinds:
        return "how it hears sounds end to end is not tried"
    try:
        rows = trial_rows(senses)
        alone = [_said(model, **_shown(model, [row], [len(row.ids)])) for row in rows]
        together = _said(model, **_shown(model, rows, [len(row.ids) for row in rows]))
    except FAILURES as problem:
        return f"with images: {(str(problem).splitlines() or [repr(problem)])[0]}"
    if not _close(together, torch.cat(alone, dim=1)):
        return "its rows that show images come out otherwise than alone"
    return ""


def _shown(model: torch.nn.Module, rows: Sequence[Trial], lengths: list[int]) -> dict[str, Any]:
    """List what a model is given for rows that show images: end to end if several."""
    senses = senses_of(model)
    assert senses is not None
    ids = _ids(model, tuple(token for row in rows for token in row.ids))
    numbers = senses.numbers([[each for row in rows for each in row.shown]])
    given = {"input_ids": ids, "use_cache": False, **seen_arguments(model, ids, numbers)}
    if len(rows) == 1:
        return given | seen_positions(model, ids, numbers)
    segments = one_after_another(lengths)
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(ids.device)
    flat = {"position_ids": positions, "attention_mask": as_mask(segments)}
    return given | flat | seen_positions(model, ids, numbers, segments=segments)


def check_architecture(inner: Any) -> None:
    """Refuse what a few tokens would not show.

    Raises:
        CannotLieFlat: naming what it is.
    """
    options = inner.config.get_text_config().to_dict()
    strange = set(options.get("layer_types") or ()) - KNOWN_LAYERS
    if strange:
        raise CannotLieFlat(f"it has layers of {', '.join(sorted(strange))}")
    if not inner._supports_attention_backend or not inner._supports_flash_attn:
        raise CannotLieFlat("its attention cannot be replaced")
    if options.get("sliding_window") is not None and not _hands_on_window(inner):
        raise CannotLieFlat("only its mask knows the sliding window")


def _hands_on_window(inner: torch.nn.Module) -> bool:
    """Whether every layer tells attention its window, not the mask alone."""
    kinds = {type(module) for module in inner.modules() if "Attention" in type(module).__name__}
    sources = [inspect.getsource(kind.forward) for kind in kinds]
    return all("sliding_window" in code for code in sources if "attention_interface" in code)


def _flat(model: torch.nn.Module, first: tuple[int, ...]) -> torch.Tensor:
    positions = torch.cat([torch.arange(len(row)) for row in (first, SECOND)])
    given = _ids(model, first + SECOND)
    return _said(
        model,
        input_ids=given,
        position_ids=positions[None].to(given.device),
        attention_mask=as_mask(one_after_another([len(first), len(SECOND)])),
        use_cache=False,
    )


def _said(model: torch.nn.Module, **given: Any) -> torch.Tensor:
    """Return what a model says after each token: logits, or hidden states if it only scores."""
    head = find_score(model)
    if head is None:
        logits: torch.Tensor = model(**given).logits
        return logits
    with states_before(head) as caught:
        model(**given)
    return caught[0]


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results differ by no more than the order of additions explains."""
    share = 1e-4 if one.dtype == torch.float32 else 5e-2
    allowed = share * float(other.abs().max())
    return bool(torch.isfinite(one).all()) and float((one - other).abs().max()) <= allowed


def _ids(model: torch.nn.Module, row: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([row], device=next(model.parameters()).device)
