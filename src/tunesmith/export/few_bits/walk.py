"""Walk through a model block by block, so that each is quantized behind quantized ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError
from tunesmith.logs import logger

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logger(__name__)
SAME = 1e-3
"""States that differ by less of their size are the same."""
Visit = Callable[[str, "torch.nn.Module", "torch.Tensor"], None]
"""Takes a layer's name, the layer, and products of its inputs with each other, [in, in]."""


@dataclass
class _Row:
    """A row on its way.

    Attributes:
        states: what comes out of the last block so far, [1, seq, hidden].
        given: what else each block is given: places, kwargs.
    """

    states: torch.Tensor
    given: list[tuple[tuple[Any, ...], dict[str, Any]]]


def walk(
    model: PreTrainedModel, layers: Sequence[str], rows: list[list[int]], visit: Visit
) -> None:
    """Visit all layers, those of one block after the other; a visit may change their weights.

    Args:
        layers: names of linear layers, all in blocks.

    Raises:
        ExportError: if the blocks cannot be run one after the other.
    """
    import torch

    name, blocks = find_blocks(model, layers)
    with torch.no_grad():
        caught = [_catch(model, blocks, ids) for ids in rows]
        for number, block in enumerate(blocks):
            log.info("quantizing block %d of %d", number + 1, len(blocks))
            prefix = f"{name}.{number}."
            inside = {each: model.get_submodule(each) for each in layers if each.startswith(prefix)}
            with _squares(inside) as squares:
                for row in caught:
                    _run(block, row, number)
            for each, layer in inside.items():
                visit(each, layer, squares.pop(each))
            for row in caught:
                row.states = _run(block, row, number)


def find_blocks(model: PreTrainedModel, layers: Sequence[str]) -> tuple[str, list[Any]]:
    """Find the list of blocks that holds all layers.

    Raises:
        ExportError: if there is none.
    """
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and all(
            layer.startswith(f"{name}.") for layer in layers
        ):
            return name, list(module)
    raise _strange(model, "its linear layers do not all lie in one list of blocks")


def _strange(model: PreTrainedModel, why: str) -> ExportError:
    return ExportError(
        f"GPTQ goes through a model block by block, and this one does not allow it: {why}",
        hint="export with --quantize nf4 or int8, or with --format gguf",
        where=type(model).__name__,
    )


def _catch(model: PreTrainedModel, blocks: Sequence[Any], ids: list[int]) -> _Row:
    """Send a row through the model once, and keep what each block is given.

    Raises:
        ExportError: if a block hands on more than states.
    """
    import torch

    given: list[Any] = []
    passed: list[torch.Tensor] = []

    def keep(_: Any, places: tuple[Any, ...], named: dict[str, Any]) -> None:
        given.append((places, named))

    def hear(_: Any, __: Any, out: Any) -> None:
        passed.append(_states(out))

    hooks = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(hear) for block in blocks]
    inner: Any = model.base_model
    try:
        inner(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(given) != len(blocks) or any(not places for places, _ in given):
        raise _strange(model, "it does not run each block once")
    for before, (places, _) in zip(passed, given[1:], strict=False):
        if not _same(before, places[0]):
            raise _strange(model, "something is done between its blocks")
    states = given[0][0][0]
    return _Row(states, [(places[1:], named) for places, named in given])


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= SAME * other.norm())


def _run(block: Any, row: _Row, number: int) -> torch.Tensor:
    places, named = row.given[number]
    return _states(block(row.states, *places, **named))


def _states(out: Any) -> torch.Tensor:
    found: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return found


@contextmanager
def _squares(layers: dict[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Add up the products of each layer's inputs while blocks run."""
    import torch

    found: dict[str, torch.Tensor] = {}

    def add(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def hook(_: Any, places: tuple[Any, ...]) -> None:
            inputs = places[0].reshape(-1, places[0].shape[-1]).float()
            if name not in found:
                found[name] = torch.zeros(inputs.shape[1], inputs.shape[1])
            found[name].addmm_(inputs.t(), inputs)

        return hook

    hooks = [layer.register_forward_pre_hook(add(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
