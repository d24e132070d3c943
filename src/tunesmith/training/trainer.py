"""The borrowed loop, with our loss, our row order and our sealed checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ProgressCallback

from tunesmith.errors import RunError, TrainingError
from tunesmith.hardware import disk_free
from tunesmith.methods.held_out import held_out_loss
from tunesmith.methods.next_token import UNLEARNED
from tunesmith.models.adapter import note_base
from tunesmith.models.roles import Roles
from tunesmith.recipe.options import Recipe
from tunesmith.training.checkpoints import clear_partial, partial_folder, rotate, seal
from tunesmith.training.order import UpdateOrder, build_order, count_steps
from tunesmith.training.prepare import Prepared
from tunesmith.training.stop import StopRequest


class RunTrainer(Trainer):
    """transformers' Trainer for one run of ours."""

    def __init__(
        self,
        *,
        prepared: Prepared,
        roles: Roles,
        arguments: TrainingArguments,
        stop: StopRequest,
        checkpoints: Path,
        base_sha256: str,
    ) -> None:
        self.recipe, self.method, self.splits = prepared.recipe, prepared.method, prepared.splits
        self.roles = roles
        self.stop, self.checkpoints, self.base_sha256 = stop, checkpoints, base_sha256
        self.order = build_order(self.recipe, self.splits.train)
        super().__init__(model=roles.policy, args=arguments, train_dataset=self.splits.train)
        self.model_accepts_loss_kwargs = True
        self.tokens_seen = 0
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_EpochOrder(self.order))

    def is_over(self) -> bool:
        """Whether all updates were made, or the held-out loss asks for no more of them."""
        over = self.state.global_step >= count_steps(self.recipe, self.order)
        return over or stopped_early(self.recipe, self.state.log_history)

    def take_if_over(self, checkpoint: Path) -> bool:
        """Take the weights of a checkpoint after which nothing is left to train.

        The loop underneath would make one more update there.
        """
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if self.is_over():
            self._load_from_checkpoint(str(checkpoint))
            return True
        return False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Load batches in our order."""
        loader: DataLoader[Any] = DataLoader(
            self.splits.train,  # type: ignore[arg-type]
            batch_sampler=self.order,
            collate_fn=self.method.collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Average over the learned tokens of the whole update, not of this micro-step."""
        self.tokens_seen += int(inputs["attention_mask"].sum())
        summed = self.method.loss(model, dict(inputs))
        loss = summed.total / (summed.count if num_items_in_batch is None else num_items_in_batch)
        if not torch.isfinite(loss):
            raise self.diverged("the loss is not a number any more")
        return loss

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device
    ) -> torch.Tensor:
        counts = [(batch["labels"][:, 1:] != UNLEARNED).sum() for batch in batch_samples]
        return torch.stack(counts).sum().clamp(min=1).to(device)

    def diverged(self, what: str) -> TrainingError:
        """Say at which step, and where the last good weights are."""
        step = self.state.global_step + 1
        return TrainingError(
            f"{what} at step {step}",
            hint="lower optimizer.learning_rate, or look for damaged rows with `tunesmith data "
            "check`; the checkpoints before this step are whole and can be used",
            where=str(self.checkpoints),
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the held-out loss, averaged over all its learned tokens.

        Gives up without a figure when a stop is asked for.

        Raises:
            TrainingError: if it is not a number.
        """
        rows = self.splits.validation
        if rows is None:
            return {}
        with self.compute_loss_context_manager():
            loss = held_out_loss(
                self.roles.policy,
                self.method,
                rows,
                batch_size=self.recipe.evaluate.batch_size,
                give_up=self.stop.is_asked,
            )
        if loss is None:
            return {}
        if not math.isfinite(loss):
            raise self.diverged("the held-out loss is not a number any more")
        metrics = {"eval_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        self.save_weights(Path(output_dir or str(self.args.output_dir)))

    def save_weights(self, folder: Path) -> None:
        """Write what loads as a model or an adapter, and no pickled arguments."""
        folder.mkdir(parents=True, exist_ok=True)
        self.roles.policy.save_pretrained(str(folder))  # type: ignore[operator]
        if (folder / "adapter_config.json").exists():
            note_base(folder, base=self.roles.reader.folder, sha256=self.base_sha256)
        else:
            self.roles.reader.tokenizer.save_pretrained(str(folder))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write aside, seal, then delete what is too old: never the other way round."""
        aside = partial_folder(self.checkpoints)
        written = aside / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            seal(written, self.checkpoints, self.state.global_step)
        except (OSError, RuntimeError, SafetensorError) as problem:
            failure = self._no_room(written, problem)
            clear_partial(self.checkpoints)  # what was written of it is room for the last words
            raise failure from problem
        rotate(
            self.checkpoints,
            keep=self.recipe.run.keep_checkpoints,
            best_step=best_step(self.state.log_history),
        )

    def _no_room(self, written: Path, problem: Exception) -> RunError:
        size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
        free = disk_free(self.checkpoints)
        return RunError(
            f"the checkpoint of step {self.state.global_step} cannot be written: {problem}; "
            f"{size:,} bytes were written, {free:,} are free",
            hint="free some space, then resume the run; the checkpoints before it are whole",
            where=str(written),
        )


def best_step(history: list[dict[str, Any]]) -> int | None:
    """Find the step of the lowest held-out loss in a Trainer's log."""
    measured = [(entry["eval_loss"], entry["step"]) for entry in history if "eval_loss" in entry]
    return int(min(measured)[1]) if measured else None


def stopped_early(recipe: Recipe, history: list[dict[str, Any]]) -> bool:
    """Whether as many evaluations as the recipe waits for brought no better held-out loss."""
    patience = recipe.optimizer.early_stopping
    steps = [entry["step"] for entry in history if "eval_loss" in entry]
    best = best_step(history)
    return patience > 0 and best is not None and len(steps) - 1 - steps.index(best) >= patience


class _EpochOrder(TrainerCallback):
    """Tell the order which epoch begins; after a resume it is not the first."""

    def __init__(self, order: UpdateOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.order.epoch = state.global_step // self.order.updates_per_epoch
