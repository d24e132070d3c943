"""The borrowed loop, with our loss, our row order and our sealed checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import RunError, TrainingError
from tunesmith.methods.averages import Averages
from tunesmith.methods.held_out import measure_held_out
from tunesmith.methods.method import Joining
from tunesmith.methods.online import OnlineMethod
from tunesmith.methods.ranks import Share
from tunesmith.models.adapter import restore_adapter, save_adapter
from tunesmith.models.renamed import restore_renamed
from tunesmith.models.roles import Roles
from tunesmith.models.value import (
    is_of_value,
    restore_value_head,
    save_value_head,
    weights_without_value,
)
from tunesmith.recipe.optimizer import Layerwise as LayerwiseOptions
from tunesmith.runs.run import Run
from tunesmith.settings import tokenize_in_one_thread
from tunesmith.training.best import best_step, held_out_figure, stopped_early
from tunesmith.training.checkpoints import (
    clear_partial,
    no_room,
    partial_folder,
    random_folder,
    rotate,
    seal,
)
from tunesmith.training.gradients import sum_gradients, touched
from tunesmith.training.offload import kept_in_main_memory
from tunesmith.training.online.rollouts import Rollouts
from tunesmith.training.optimizers import build_optimizer
from tunesmith.training.optimizers.layerwise import Layerwise
from tunesmith.training.order import build_order
from tunesmith.training.prepare import Prepared
from tunesmith.training.resumed import Resumed, keeping_options
from tunesmith.training.scaling import TOO_LARGE, Scaling
from tunesmith.training.stop import StopRequest
from tunesmith.training.updates import UpdateBatches


class RunTrainer(Trainer):
    """transformers' Trainer for one run of ours.

    It knows of no other process; what several of them share is added up here.
    """

    def __init__(
        self,
        *,
        prepared: Prepared,
        roles: Roles,
        how: Joining,
        arguments: TrainingArguments,
        stop: StopRequest,
        run: Run,
    ) -> None:
        self.recipe, self.method, self.splits = prepared.recipe, prepared.method, prepared.splits
        self.roles, self.ranks = roles, prepared.ranks
        self.stop, self.checkpoints = stop, run.checkpoints
        self.base_sha256 = str(run.environment()["base_weights"])
        self.how, self.watched = how, Averages()
        self.rollouts: Rollouts | None = None
        if isinstance(self.method, OnlineMethod):
            self.rollouts = Rollouts(prepared, roles, how, method=self.method, watched=self.watched)
        self.order = build_order(self.recipe, self.splits.train)
        self.num_steps = arguments.max_steps
        self.history: list[dict[str, Any]] = []
        self.layerwise: Layerwise | None = None
        super().__init__(model=roles.policy, args=arguments, train_dataset=self.splits.train)
        self.model_accepts_loss_kwargs = True
        self.tokens_seen = 0
        self.scaling = Scaling(self.accelerator) if roles.precision == "fp16" else None
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(Resumed(self.order, lambda: self.history))

    def is_over(self) -> bool:
        """Whether all updates were made, or the held-out loss asks for no more of them."""
        return self.state.global_step >= self.num_steps or stopped_early(
            self.recipe, self.state.log_history
        )

    def is_evaluation_due(self, step: int) -> bool:
        """Whether the held-out loss is measured after `step` updates."""
        every = self.recipe.evaluate.every_steps or len(self.order)
        last = step >= self.num_steps
        return self.splits.validation is not None and (last or step % every == 0)

    def catch_up(self, checkpoint: Path) -> bool:
        """Make up for the measurement that a stop left out, and see whether anything is left.

        Returns:
            Whether nothing is left to train; the loop underneath would make one more update.
        """
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        step, history = self.state.global_step, self.state.log_history
        measured = any(held_out_figure(e) is not None and e["step"] == step for e in history)
        missing = self.is_evaluation_due(step) and not measured
        if missing or self.is_over():
            self._load_from_checkpoint(str(checkpoint))
        if missing:
            self.evaluate()
        self.history = self.state.log_history
        return self.is_over()

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer of the recipe."""
        policy = self.roles.policy if model is None else model
        decaying = self.get_decay_parameter_names(policy)
        self.optimizer = build_optimizer(self.recipe, policy, decaying=decaying)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        """Build the schedule, around the optimizer as the loop will use it."""
        options = self.recipe.optimizer
        if isinstance(options, LayerwiseOptions) and options.layerwise:
            assert self.optimizer is not None
            self.layerwise = Layerwise(self.optimizer, self._gradient_diverged)
        return super().create_scheduler(num_training_steps, optimizer)

    def show_average(self) -> None:
        """Measure and save averaged weights, if the optimizer averages; training puts them back."""
        optimizer: Any = self.optimizer  # wrapped by accelerate, which knows who averages
        if optimizer is not None:
            optimizer.eval()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take the optimizer's memory from the checkpoint, and its options from the recipe."""
        optimizer, scheduler = self.optimizer, self.lr_scheduler
        assert optimizer is not None
        assert isinstance(scheduler, LambdaLR)
        with keeping_options(optimizer, scheduler):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint of another model; of weights that are tied only one is saved."""
        tied = vars(self.roles.policy).get("all_tied_weights_keys") or {}
        missing = [name for name in load_result.missing_keys if not is_of_value(name)]
        strange = [name for name in missing if name not in tied]
        strange += load_result.unexpected_keys
        if strange:
            raise RunError(
                f"the checkpoint does not fit the model: {', '.join(strange[:3])}",
                hint="put the recipe and the base back as they were, or train anew",
                where=str(self.checkpoints),
            )

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Stop before a gradient that is no number reaches the weights."""
        if self.layerwise is not None:
            return self.layerwise.take_norm()
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if not math.isfinite(norm) and not self._leave_out():
            raise self._gradient_diverged()
        return norm

    def _leave_out(self) -> bool:
        return self.scaling is not None and self.scaling.leave_out(self.state.global_step + 1)

    def _gradient_diverged(self) -> TrainingError:
        return self.diverged("the gradient is not a number any more", self.state.global_step + 1)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Load batches in our order, or only the numbers of rows that are to be answered first."""
        rows, tokens = self.splits.train, self.recipe.compute.tokens_per_batch
        assert tokens is not None  # settled before the run began
        join = UpdateBatches(self.method, self.how, tokens, self.ranks)
        loader: DataLoader[Any] = DataLoader(
            rows if self.rollouts is None else range(len(rows)),  # type: ignore[arg-type]
            batch_sampler=self.order,
            collate_fn=join if self.rollouts is None else list,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=tokenize_in_one_thread,  # what shows something is made ready with text
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Take the next update; where it begins with answers, the policy writes them now."""
        if self.rollouts is None:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        updates: list[Any] = []
        for questions in islice(epoch_iterator, num_batches):
            cast("Any", self.optimizer).train()  # an average is put aside
            with self.accelerator.autocast():
                updates.append(self.rollouts.update(self.state.global_step, questions))
        return updates, self._get_num_items_in_batch(updates, device)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Add up the gradients of the batches that an update was split into, and dealt out in."""
        losses, optimizer = [], cast("Any", self.optimizer)
        model.train()
        optimizer.train()  # also where this process has no row; an average is put aside
        with self.accelerator.autocast():
            ahead = self.method.look_ahead(model, inputs["batches"], self.ranks)
        for left, batch in enumerate(inputs["batches"], 1 - len(inputs["batches"])):
            if self.layerwise is not None:
                self.layerwise.is_last_batch = not left
            with self.accelerator.no_sync(model) if left else nullcontext():
                given = {**batch, **ahead}
                losses.append(super().training_step(model, given, num_items_in_batch))
        self.tokens_seen += inputs["num_tokens"]
        loss = torch.stack(losses).sum() if losses else torch.zeros((), device=self.args.device)
        if self.ranks.count > 1:
            sum_gradients(model.parameters(), self.ranks)
            self.ranks.total(loss)
        if not torch.isfinite(loss):  # once an update: a GPU is waited for here
            raise self.diverged("the loss is not a number any more", self.state.global_step + 1)
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Average over the learned tokens of the whole update, not of this batch."""
        offload = self.recipe.compute.gradient_checkpointing == "offload"
        kept = kept_in_main_memory(model) if offload else nullcontext()
        with self.accelerator.autocast(), kept:
            summed = self.method.loss(model, dict(inputs))
        self.watched.add(summed)
        count = summed.count if num_items_in_batch is None else num_items_in_batch
        return touched(summed.total, model) / count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what the method measures beside its loss."""
        if "loss" in logs:
            scale = {} if self.scaling is None else self.scaling.take()
            logs = {**self.watched.take(self.ranks), **logs, **scale}
        if not math.isfinite(logs.get("grad_norm", 0.0)):  # of an update that was left out
            del logs["grad_norm"]
        super().log(logs, start_time)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor:
        counts = [update["num_learned"] for update in batch_samples]
        total = self.ranks.total(torch.stack(counts).sum())
        return (total + (total == 0)).float().to(device)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Count nothing: what the loop underneath would count is not what is computed."""
        return 0

    def diverged(self, what: str, step: int) -> TrainingError:
        """Say at which step, and where the weights from before it are."""
        return TrainingError(
            f"{what} at step {step}",
            hint=TOO_LARGE * (self.scaling is not None) + "lower optimizer.learning_rate, or look "
            "for damaged rows with `tunesmith data check`; the checkpoints before this step are "
            "kept, the best held-out loss among them",
            where=str(self.checkpoints),
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the held-out loss, averaged over all its learned tokens, or held-out rewards.

        Gives up without a figure when a stop is asked for; it is made up for at the resume.

        Raises:
            TrainingError: if it is not a number.
        """
        rows = self.splits.validation
        if rows is None:
            return {}
        self.show_average()
        with self.accelerator.autocast():
            measured = self._measure(rows)
        if measured is None:
            self.control.should_save = self.control.should_training_stop = True
            return {}
        if not math.isfinite(measured.get("loss", 0.0)):
            raise self.diverged(
                "the held-out loss is not a number any more", self.state.global_step
            )
        metrics = {f"eval_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _measure(self, rows: TokenRows) -> dict[str, float] | None:
        if self.rollouts is not None:
            return self.rollouts.measure(self.stop.is_asked)
        return measure_held_out(
            self.roles.policy,
            self.method,
            rows,
            how=self.how,
            batch_size=self.recipe.evaluate.batch_size,
            share=Share(self.ranks, self.stop.is_asked),
        )

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        self.save_weights(Path(output_dir or str(self.args.output_dir)))

    def save_weights(self, folder: Path) -> None:
        """Write what loads as a model or an adapter, and no pickled arguments.

        Raises:
            TrainingError: if a trained weight is not a number.
        """
        trained = (weight for weight in self.roles.policy.parameters() if weight.requires_grad)
        if not all(bool(torch.isfinite(weight).all()) for weight in trained):
            raise self.diverged("a weight is not a number any more", self.state.global_step)
        folder.mkdir(parents=True, exist_ok=True)
        policy, reader = self.roles.policy, self.roles.reader
        if isinstance(policy, PeftModel):
            save_adapter(policy, folder, base=reader.folder, sha256=self.base_sha256)
        else:
            weights = weights_without_value(policy)
            policy.save_pretrained(str(folder), state_dict=weights)  # type: ignore[operator]
            reader.save(folder)
        save_value_head(policy, folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Put back what was trained, and no more: what is frozen beside it stays so."""
        if self.rollouts is not None:
            self.rollouts.restore(random_folder(Path(resume_from_checkpoint), self.ranks.rank))
        if isinstance(self.roles.policy, PeftModel):
            restore_adapter(self.roles.policy, Path(resume_from_checkpoint))
        elif not restore_renamed(self.roles.policy, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        restore_value_head(self.roles.policy, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write aside, seal, then delete what is too old: never the other way round."""
        aside = partial_folder(self.checkpoints)
        written = aside / f"checkpoint-{self.state.global_step}"
        self.show_average()
        try:
            if self.ranks.is_first:
                super()._save_checkpoint(model, trial)
            else:
                self._save_rng_state(str(written))
            if self.rollouts is not None:
                self.rollouts.save(random_folder(written, self.ranks.rank), self.state.global_step)
            self.ranks.wait()
            if not self.ranks.is_first:
                return
            seal(written, self.checkpoints, self.state.global_step, processes=self.ranks.count)
        except (OSError, RuntimeError, SafetensorError) as problem:
            failure = no_room(written, self.state.global_step, problem)
            clear_partial(self.checkpoints)  # what was written of it is room for the last words
            raise failure from problem
        rotate(
            self.checkpoints,
            keep=self.recipe.run.keep_checkpoints,
            best_step=best_step(self.state.log_history, self.recipe.evaluate.watched),
        )

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(str(random_folder(Path(output_dir), self.ranks.rank)))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            super()._load_rng_state(str(random_folder(Path(checkpoint), self.ranks.rank)))
