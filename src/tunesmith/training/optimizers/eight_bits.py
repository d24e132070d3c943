"""The optimizers of bitsandbytes, told weight by weight how exactly to remember."""

from __future__ import annotations

from typing import Any

from bitsandbytes.optim import AdamW, Lion


class AdamWInBits(AdamW):  # type: ignore[misc]
    """AdamW whose groups say in how many `bits` they are remembered."""

    def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
        """Take the bits from the group; the package keeps such wishes in a list of the process."""
        return {**super().get_config(gindex, pindex, group), "optim_bits": group["bits"]}


class LionInBits(Lion):  # type: ignore[misc]
    """Lion whose groups say in how many `bits` they are remembered."""

    def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
        """Take the bits from the group; the package keeps such wishes in a list of the process."""
        return {**super().get_config(gindex, pindex, group), "optim_bits": group["bits"]}
