"""The model before training, which answers are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch, Joining, Row
from tunesmith.methods.online import Columns, OnlineMethod, observe_rows, token_logps
from tunesmith.models.chat import find_beneath
from tunesmith.models.roles import Roles, load_reference
from tunesmith.training.prepare import Prepared

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reference:
    """The model before training.

    Attributes:
        model: the policy, its adapter switched off, or a copy of what it was.
    """

    model: torch.nn.Module
    temperature: float

    def observe(self, rows: list[Row], how: Joining, tokens: int) -> list[Row]:
        """Add to rows log p of each learned token."""
        from tunesmith.models.adapter import without_adapter

        def look(model: torch.nn.Module, batch: Batch) -> Columns:
            return {"reference_logps": token_logps(model, batch, self.temperature)}

        with without_adapter(self.model):
            return observe_rows(self.model, rows, look, how=how, tokens=tokens)


def build_reference(prepared: Prepared, roles: Roles, method: OnlineMethod) -> Reference | None:
    """Keep the model before training, if the method asks it: the policy if that has an adapter."""
    from peft import PeftModel

    from tunesmith.models.layout import find_layout

    if not method.asks_reference:
        return None
    model = roles.policy
    if not isinstance(model, PeftModel):
        recipe, beneath = prepared.recipe, find_beneath(prepared.recipe.model)
        model = load_reference(roles.reader.folder, recipe, roles, beneath)
        find_layout(model)  # it lets the model attend to rows that lie end to end
    return Reference(model, method.writing.temperature)
