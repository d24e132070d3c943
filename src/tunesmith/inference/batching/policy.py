"""A model that learns meanwhile writes many answers at once, in the thread of whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora.layer import LoraLayer

from tunesmith.inference.batching.adapters import Adapters, Deltas, Pair
from tunesmith.inference.batching.batch import Batch
from tunesmith.inference.batching.engine import CHUNK_OF_CPU, CHUNK_OF_GPU
from tunesmith.inference.batching.forward import Forward
from tunesmith.inference.batching.lora import join_pairs, list_products
from tunesmith.inference.batching.prefixes import Prefixes
from tunesmith.inference.batching.shelves import Shelves, rounded
from tunesmith.inference.batching.weights import (
    OtherModel,
    Weights,
    check_family,
    check_model,
    lay_out,
)
from tunesmith.inference.engine import Piece, Request, Writer
from tunesmith.inference.generate import Answer
from tunesmith.inference.row import Row, check_request, sampling_of
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel
from tunesmith.models.inner import inner_model
from tunesmith.models.thin_lora import ThinLoRA, is_plain

if TYPE_CHECKING:
    from torch import nn

LEARNED = "learned"
"""What the model's own adapter is called in steps."""
AT_HAND = 8
"""Questions whose beginnings are kept for those that are asked again."""


class PolicyWriter(Writer):
    """Writes with the weights of the moment; between two calls nothing is kept, nor held.

    Args:
        dtype: what products are computed in.
        rows: answers in work at the same time; others wait.

    Raises:
        OtherModel: if the model is none whose forward pass is written here.
    """

    def __init__(self, model: ChatModel, dtype: torch.dtype, *, rows: int) -> None:
        self._model, self._dtype, self._rows = model, dtype, rows
        self._inner = inner_model(model.model)
        check_family(self._inner)
        self._adapted = find_adapted(self._inner)
        check_model(self._inner, self._adapted)
        lay_out(self._inner, dtype)  # what is frozen finds its place before training begins

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt; what is asked several times is read once."""
        if not prompts:
            return []
        problems: list[Exception] = []

        def hear(told: Piece | Exception) -> None:
            if isinstance(told, Exception):
                problems.append(told)

        rows = [
            self._row(Request(prompt, sampling_of(sampling, place)), hear)
            for place, prompt in enumerate(prompts)
        ]
        weights = lay_out(self._inner, self._dtype)
        batch = self._batch(rows, weights)
        with torch.autocast(weights.device.type, enabled=False):  # weights have their numbers
            for _ in write_out(batch, rows):
                if problems:
                    break
        if problems:
            raise problems[0]
        return [row.answer() for row in rows]

    def _row(self, request: Request, hear: Any) -> Row:
        model = self._model
        limit = check_request(model, request)
        row = Row(request, hear, model.tokenizer, stop_ids=model.stop_ids, limit=limit)
        row.model = LEARNED if self._adapted else ""
        return row

    def _batch(self, rows: Sequence[Row], weights: Weights) -> Batch:
        """Make room for the longest texts there may be, as many as are written at a time."""
        longest = rounded(max(row.num_prompt + row.limit for row in rows))
        most = min(self._rows, len(rows))
        chunk = CHUNK_OF_CPU if weights.device.type == "cpu" else CHUNK_OF_GPU
        shelves = Shelves(weights, most * longest * weights.token_bytes, shortest=longest)
        shelves.reserve(longest, most)
        prefixes = Prefixes(AT_HAND * longest * weights.token_bytes)
        adapters = Adapters()
        if self._adapted:
            adapters.by_name[LEARNED] = take_deltas(self._adapted, weights)
        forward = Forward(weights, adapters)
        return Batch(forward, shelves, prefixes, most=most, chunk=chunk, at_once=True)


def find_adapted(model: nn.Module) -> dict[str, Any]:
    """Find the layers that LoRA was put around, by name.

    Raises:
        OtherModel: if one of them does more than add a product.
    """
    found: dict[str, Any] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            if not (isinstance(layer, ThinLoRA) and is_plain(layer)):
                raise OtherModel(f"the adapter of {name} does more than add a product")
            found[name] = layer
    return found


@torch.no_grad()
def take_deltas(adapted: Mapping[str, Any], weights: Weights) -> Deltas:
    """Copy what an adapter adds to products at this moment."""
    found = {}
    for place, product, prefix in list_products(weights):
        layers = {part: adapted.get(prefix + part) for part, _ in product.parts}
        pairs = {part: _pair(layer) for part, layer in layers.items() if layer is not None}
        if pairs:
            found[place] = join_pairs(product, pairs, weights)
    return Deltas(LEARNED, found)


def _pair(layer: Any) -> Pair:
    """Return the matrices of a layer's one adapter, the second scaled."""
    (name,) = layer.active_adapters
    return layer.lora_A[name].weight, layer.lora_B[name].weight.float() * layer.scaling[name]


def write_out(batch: Batch, rows: Sequence[Row]) -> Iterator[None]:
    """Go step by step until all is written; what is asked again waits until it was read once."""
    alike: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        alike.setdefault(tuple(row.prompt), []).append(row)
    batch.waiting.extend(first for first, *_ in alike.values())
    behind = [(first, again) for first, *again in alike.values() if again]
    while batch.waiting or batch.slots:
        batch.step()
        read = [
            again
            for first, again in behind
            if first.is_over or len(first.tokens) > first.num_prompt
        ]
        behind = [pair for pair in behind if pair[1] not in read]
        for again in reversed(read):
            batch.waiting.extendleft(reversed(again))
        yield
