"""Put right what the loop underneath does not know after a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from tunesmith.training.trainer import RunTrainer


class Resumed(TrainerCallback):
    """Put right what the loop underneath does not know after a resume."""

    def __init__(self, trainer: RunTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the measurement that was made up for."""
        state.log_history = self.trainer.history or state.log_history

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the order which epoch begins; after a resume it is not the first."""
        order = self.trainer.order
        order.epoch = state.global_step // len(order)
