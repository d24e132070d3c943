"""Put right what the loop underneath does not know after a resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from tunesmith.training.order import UpdateOrder

MEMORY = ("k", "lr_max", "scheduled_lr", "train_mode", "updates", "weight_sum")
"""What optimizers remember of a group of weights; the rest of a group the recipe says."""


@contextmanager
def keeping_options(optimizer: Optimizer, scheduler: LambdaLR) -> Iterator[None]:
    """Let the block load an optimizer's memory, and put the recipe's options back."""
    told = {"params", "lr", *MEMORY}
    options = [
        {name: value for name, value in group.items() if name not in told}
        for group in optimizer.param_groups
    ]
    yield
    scheduler.base_lrs = [group["initial_lr"] for group in options]
    rates = [
        base * at(scheduler.last_epoch)
        for base, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    scheduler._last_lr = rates
    for group, wanted, rate in zip(optimizer.param_groups, options, rates, strict=True):
        group.update(wanted, lr=rate)


class Resumed(TrainerCallback):
    """Put right what the loop underneath does not know after a resume.

    Attributes:
        history: tells what was measured so far, if a measurement was made up for.
    """

    def __init__(self, order: UpdateOrder, history: Callable[[], list[dict[str, Any]]]) -> None:
        self.order, self.history = order, history

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the measurement that was made up for."""
        state.log_history = self.history() or state.log_history

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the order which epoch begins; after a resume it is not the first."""
        self.order.epoch = state.global_step // len(self.order)
