"""A model's weights under llama.cpp's names and in its order, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError, require
from tunesmith.export.gguf.families import Family
from tunesmith.export.gguf.rope import rope_tensors

if TYPE_CHECKING:
    import numpy as np
    import torch

Array = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Tensor:
    """A weight to be written.

    Attributes:
        source: what transformers calls it.
        read: gives its values in fp32.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray[Any, Any]]


def list_tensors(model: torch.nn.Module, family: Family, config: Any) -> list[Tensor]:
    """List all weights of a model; none is copied before it is read.

    Raises:
        ExportError: if llama.cpp has no place for one.
    """
    given = config.to_dict()
    head = given.get("head_dim") or config.hidden_size // config.num_attention_heads
    names = _Names(family, config)
    found = [
        Tensor(name, name, values.shape, lambda values=values: values)  # type: ignore[misc]
        for name, values in rope_tensors(given, head).items()
    ]
    for source, values in _weights_of(model, config):
        found += names.place(source, values)
    return found


def _weights_of(model: torch.nn.Module, config: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each weight once; a tied head is the embeddings again."""
    for name, values in model.state_dict().items():
        if not (name == "lm_head.weight" and config.tie_word_embeddings):
            yield name, values


class _Names:
    """Finds the place of a weight."""

    def __init__(self, family: Family, config: Any) -> None:
        gguf = require("gguf", extra="gguf")
        arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family.name]
        self._table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
        self._family, self._config = family, config

    def place(self, source: str, values: torch.Tensor) -> list[Tensor]:
        """Return what a weight becomes: itself, or two of which it is joined."""
        if source.endswith("experts.gate_up_proj"):  # joined by transformers, apart in files
            half = values.shape[1] // 2
            prefix = source.removesuffix("gate_up_proj")
            parts = {"gate_proj": values[:, :half], "up_proj": values[:, half:]}
            return [self._one(f"{prefix}{name}.weight", part) for name, part in parts.items()]
        return [self._one(source, values)]

    def _one(self, source: str, values: torch.Tensor) -> Tensor:
        name = self._table.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ExportError(
                f"llama.cpp has no place for the weight {source}",
                hint="use --format safetensors",
                where=self._family.name,
            )
        if not name.endswith((".weight", ".bias")):
            name += ".weight"
        return Tensor(name, source, tuple(values.shape), lambda: self._read(source, values))

    def _read(self, source: str, values: torch.Tensor) -> np.ndarray[Any, Any]:
        import numpy as np

        array: np.ndarray[Any, Any] = values.detach().float().cpu().numpy()
        if self._family.norms_from_one and source.endswith("norm.weight"):
            array = array + 1
        heads = self._heads(source)
        if self._family.interleaved and heads:
            array = interleave(array, heads)
        return np.ascontiguousarray(array)

    def _heads(self, source: str) -> int:
        """Count the heads whose rows are turned by positions; 0 if none is."""
        projection = source.rsplit(".", 2)[-2]
        counts = {
            "q_proj": self._config.num_attention_heads,
            "k_proj": self._config.num_key_value_heads,
        }
        return int(counts.get(projection, 0))


def interleave(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Lay the halves of each head side by side: positions turn neighbours, not halves."""
    shape = (heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)
