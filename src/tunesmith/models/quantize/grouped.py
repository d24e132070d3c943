"""Linear layers of whole numbers, groups of which share a scale and a zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tunesmith.models.quantize.bit_planes import pack, unpack
from tunesmith.models.quantize.product import Whole


@dataclass(frozen=True)
class Groups:
    """A weight as whole numbers: (codes - zero) * scale.

    Attributes:
        codes: whole numbers below 2^bits, [out, in].
        scale: [groups] where groups follow one another through the rows, [out, groups] where
            `group_of` says to which a column belongs.
        zero: the same.
        size: weights of a group; the last may have fewer.
        group_of: the group of each column, [in]; None where groups follow one another.
    """

    codes: torch.Tensor
    bits: int
    scale: torch.Tensor
    zero: torch.Tensor
    size: int
    group_of: torch.Tensor | None = None

    def whole(self) -> torch.Tensor:
        """Put a weight together whose rows are whole groups; [out, in]."""
        codes = self.codes.float().view(-1, self.size)
        whole = (codes - self.zero.float()[:, None]) * self.scale.float()[:, None]
        return whole.view(self.codes.shape)


class Unfilled(Whole, torch.nn.Linear):  # type: ignore[misc]
    """A linear layer whose weight is not there yet.

    Attributes:
        source_cls: what it stands for; PEFT and `is_transposed` ask for it.
        found: shape of the weight that was given, [out, in].
    """

    def __init__(self, width: int, out: int, *, bias: bool, source_cls: type) -> None:
        torch.nn.Module.__init__(self)  # a linear layer would make room for all its weights
        self.in_features, self.out_features = width, out
        self.weight = torch.nn.Parameter(torch.empty(0, dtype=torch.uint8), requires_grad=False)
        self.bias = torch.nn.Parameter(torch.empty(out), requires_grad=False) if bias else None
        self.source_cls = source_cls
        self.found: tuple[int, ...] = (out, width)


class Grouped(Unfilled):
    """A linear layer of whole numbers."""

    bits: int
    size: int
    scale: torch.Tensor
    zero: torch.Tensor
    group_of: torch.Tensor | None
    taken: dict[str, torch.Tensor | None]

    def take(self, groups: Groups) -> torch.nn.Parameter:
        """Keep a weight, and return what stands for it; `settle` ends it."""
        self.bits, self.size, self.found = groups.bits, groups.size, tuple(groups.codes.shape)
        self.taken = {name: vars(groups)[name] for name in ("scale", "zero", "group_of")}
        packed = pack(groups.codes, groups.bits)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        return self.weight

    def settle(self) -> None:
        """Let scales and zeros go where the weight goes: transformers empties those it reads."""
        for name, tensor in self.taken.items():
            self.register_buffer(name, tensor, persistent=False)
        del self.taken

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Put the weight together, in fp32 whatever comes out; [out, in]."""
        shape = (self.out_features, self.in_features)
        codes = unpack(self.weight, self.bits, shape[0] * shape[1])
        if self.group_of is not None:
            of = self.group_of
            centred = codes.view(shape) - self.zero.float()[:, of]
            return centred.mul_(self.scale.float()[:, of]).to(dtype)
        short = -len(codes) % self.size
        filled = torch.nn.functional.pad(codes, (0, short)) if short else codes
        centred = filled.view(-1, self.size) - self.zero.float()[:, None]
        whole = centred.mul_(self.scale.float()[:, None]).view(-1)
        return whole[: len(codes)].view(shape).to(dtype)
