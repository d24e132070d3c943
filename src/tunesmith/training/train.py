"""From a recipe to a trained model in a run directory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.errors import RunError, TrainingError
from tunesmith.hardware import give_back_memory, use_memory
from tunesmith.logs import logger, remembering, telling
from tunesmith.methods.online import OnlineMethod
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.models.image_reader import ImageReader
from tunesmith.models.roles import Roles, load_roles
from tunesmith.models.score import find_score
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.tuning import AdaLoRA
from tunesmith.runs.published import publish
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run
from tunesmith.runs.write import sync_folder, sync_tree, write_json
from tunesmith.training.beginning import begin_adapter
from tunesmith.training.best import best_step
from tunesmith.training.checkpoints import (
    checkpoint_folder,
    clear_partial,
    newest_whole,
    partial_folder,
    set_aside,
    step_of,
    verify,
)
from tunesmith.training.environment import check_unchanged, describe_environment
from tunesmith.training.fit import fit, fit_once
from tunesmith.training.prepare import Prepared, prepare_run
from tunesmith.training.session import (
    begin,
    collecting_late,
    sparing_what_is_loaded,
    working_on,
)
from tunesmith.training.stop import StopRequest
from tunesmith.training.workers import train_together

if TYPE_CHECKING:
    from tunesmith.models.layout import Layout
    from tunesmith.training.trainer import RunTrainer

log = logger(__name__)


def train(recipe: Recipe) -> Run:
    """Train as the recipe says and return the run, finished or stopped.

    Data and model folder are checked before the run directory is made, so that a mistake leaves
    nothing behind.

    Raises:
        TunesmithError: naming what is wrong, where, and what to do.
    """
    with telling():
        with remembering() as before, collecting_late():
            prepared = fit(prepare_run(recipe))
        run = create_run(prepared.recipe)
        with working_on(run, before) as stop:
            carry_out(run, prepared, stop)
    return run


def resume(run: Run, *, accept_changes: bool = False) -> Run:
    """Go on with a run from its newest whole checkpoint, or from the start if it has none.

    Raises:
        RunError: if another process works on it, or data, base, options, threads or versions
            changed and `accept_changes` is not given.
    """
    with telling(run.log_file), working_on(run) as stop:
        with collecting_late():
            prepared = fit_once(prepare_run(run.recipe()))
        carry_out(run, prepared, stop, accept_changes=accept_changes)
    return run


def carry_out(
    run: Run, prepared: Prepared, stop: StopRequest, *, accept_changes: bool = False
) -> None:
    """Write down what the run is made of, and train it, here or in processes of its own."""
    from tunesmith.training.probes import write_probes

    environment = describe_environment(prepared.recipe, prepared.reader, prepared.splits)
    same = check_unchanged(run, environment, accept=accept_changes)
    begin(run, identical=run.status().identical and same)
    write_json(run.environment_file, environment)
    write_json(run.data_file, prepared.splits.report.to_dict())
    write_probes(run, prepared.splits, prepared.reader)
    if note_stop(run, stop):
        return
    processes = prepared.recipe.compute.processes or 1
    if processes == 1:
        learn(run, prepared, stop)
    else:
        train_together(run, processes, stop, on_gpus=environment["device"] == "cuda")


def learn(run: Run, prepared: Prepared, stop: StopRequest) -> None:
    """Load the models, train, and write what the run leaves behind.

    Every process of a run does so; the first alone writes.
    """
    from tunesmith.training.report import write_report
    from tunesmith.training.samples import answer_samples

    ranks = prepared.ranks
    with collecting_late():
        roles = load_policy(prepared)
        begin_adapter(run, prepared, roles)
    if prepared.recipe.model.quantize is not None:  # whole weights were there for a moment
        give_back_memory()
    check_alike(roles, ranks)
    if ranks.is_first and not run.samples_file.exists():
        answer_samples(run, roles, prepared.splits, prepared.recipe, when="before")
    with collecting_late():
        trainer = build_trainer(run, prepared, roles, stop)
    if note_stop(run, stop, ranks):
        return
    run_loop(run, trainer)
    if not trainer.is_over():
        note_stop(run, stop, ranks)
        return
    if not ranks.is_first:
        return
    publish_model(run, trainer)
    answer_samples(run, roles, prepared.splits, prepared.recipe, when="after")
    run.write_status(state="done", message="")
    write_report(run)
    hand_out(run, prepared.recipe)


def hand_out(run: Run, recipe: Recipe) -> None:
    """Put model and figures where others look for them, if the recipe says so."""
    from tunesmith.training.compatible import write_compatible

    folder = recipe.run.publish_to
    if folder is not None:
        publish(run, folder)
        log.info("the model lies in %s too", folder)
    if recipe.run.compatible_outputs:
        write_compatible(run, [run.path] if folder is None else [run.path, folder])


def note_stop(run: Run, stop: StopRequest, ranks: Ranks = ALONE) -> bool:
    """Write down that the run was stopped, if somebody asked for it."""
    if not ranks.any(stop.is_asked()):
        return False
    if not ranks.is_first:
        return True
    run.write_status(
        state="stopped",
        message=f"stopped at step {run.status().step}, saved" if run.status().step else "stopped",
        hint=f"tunesmith runs resume {run.name}",
    )
    return True


def load_policy(prepared: Prepared) -> Roles:
    """Load the models with new weights drawn from the run's seed."""
    from transformers import set_seed

    from tunesmith.models.dropout import drop_nothing

    set_seed(prepared.recipe.run.seed)
    roles = load_roles(prepared.recipe, prepared.reader, prepared.labels)
    method = prepared.method
    if method.needs_reference or isinstance(method, OnlineMethod):  # who is asked drops nothing
        drop_nothing(roles.policy)
    return roles


def check_alike(roles: Roles, ranks: Ranks) -> None:
    """Refuse to train together models that are not the same to the bit.

    Raises:
        TrainingError: if this process has loaded another one than the first process.
    """
    if ranks.count == 1:
        return
    import torch

    from tunesmith.models.fingerprint import weight_sums

    ours = weight_sums(roles.policy)
    if not torch.equal(ranks.first(ours.clone()), ours):
        raise TrainingError(
            f"process {ranks.rank} has loaded other weights than process 0",
            hint="see whether somebody writes to the model's folder, then resume the run",
            where=str(roles.reader.folder),
        )


def build_trainer(run: Run, prepared: Prepared, roles: Roles, stop: StopRequest) -> RunTrainer:
    """Build the borrowed loop around our parts."""
    from tunesmith.methods.batches import joining_of
    from tunesmith.methods.method import Joining
    from tunesmith.models.layout import find_layout
    from tunesmith.training.arguments import build_arguments
    from tunesmith.training.memory import check_disk
    from tunesmith.training.order import build_order, count_steps
    from tunesmith.training.reference import with_reference
    from tunesmith.training.trainer import RunTrainer

    recipe = prepared.recipe
    check_disk(run, roles, recipe)
    coarse = roles.device.type == "cpu" and roles.precision != "fp32"
    how = Joining(flat=True)  # images are all of one size
    if not isinstance(roles.reader, ImageReader):
        tell_layout(roles, find_layout(roles.policy))
        ways = [joining_of(model) for model in (roles.policy, roles.beside) if model is not None]
        flat, shared = all(way.flat for way in ways), all(way.shared for way in ways)
        how = Joining(flat=flat, coarse=coarse, shared=shared)
    prepared = replace(prepared, method=prepared.method.beside(roles.beside))
    prepared = with_reference(
        prepared,
        roles,
        how,
        sha256=reference_sha256(run),
        give_up=stop.is_asked,
    )
    arguments = build_arguments(
        recipe,
        partial_folder(run.checkpoints),
        num_steps=count_steps(recipe, build_order(recipe, prepared.splits.train)),
        precision=roles.precision,
        cpu=roles.device.type == "cpu",
        checkpointing=recipe.compute.gradient_checkpointing != "off",
    )
    return RunTrainer(
        prepared=prepared,
        roles=roles,
        how=how,
        arguments=arguments,
        stop=stop,
        run=run,
    )


def reference_sha256(run: Run) -> str:
    """Return the hash of the weights that answers are compared with."""
    known = run.environment()
    return str(known.get("reference_weights", known["base_weights"]))


def tell_layout(roles: Roles, layout: Layout) -> None:
    """Say aloud where a model does not take the fast way."""
    if not layout.is_flat:
        log.info("rows are padded, not laid end to end: %s", layout.padded_because)
    if layout.head is None and find_score(roles.policy) is None:
        log.info("the model computes its logits itself, all at once: its head is of another kind")


def run_loop(run: Run, trainer: RunTrainer) -> None:
    """Train from the newest whole checkpoint until the end, or until somebody asks to stop."""
    from transformers import set_seed

    from tunesmith.training.screen import Screen
    from tunesmith.training.watch import Watch

    ranks = trainer.ranks
    step = find_step(run, ranks)
    checkpoint = checkpoint_folder(run.checkpoints, step) if step else None
    if ranks.is_first:
        run.keep_metrics_until(step)
        run.write_status(step=step, num_steps=trainer.num_steps)
    screen = Screen()
    screen.begin(step, trainer.num_steps)
    trainer.add_callback(Watch(trainer.recipe, run, trainer, screen))
    let_ranks_move(trainer)
    try:
        if checkpoint and trainer.catch_up(checkpoint):
            return
        set_seed(trainer.recipe.run.seed + ranks.rank)  # each drops other weights
        use_memory(keep=trainer.recipe.compute.gradient_checkpointing == "off")
        with sparing_what_is_loaded():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.show_average()
    finally:
        screen.end()
    if ranks.is_first:
        clear_partial(run.checkpoints)
        run.write_status(step=trainer.state.global_step)


def let_ranks_move(trainer: RunTrainer) -> None:
    """Give the ranks of adalora to where they are worth most, update by update."""
    from tunesmith.models.allocation import Allocation
    from tunesmith.training.allocating import Allocating

    tuning = trainer.recipe.tuning
    if isinstance(tuning, AdaLoRA):
        allocation = Allocation(trainer.roles.policy, tuning, trainer.num_steps)
        first = trainer.ranks.is_first
        trainer.add_callback(Allocating(allocation, trainer.scaling, is_first=first))


def find_step(run: Run, ranks: Ranks) -> int:
    """Let the first process find the newest whole checkpoint; return its step, 0 for none."""
    import torch

    step = torch.tensor(0)
    if ranks.is_first:
        clear_partial(run.checkpoints)
        checkpoint, damaged = newest_whole(run.checkpoints)
        for bad in damaged:
            log.warning("checkpoint %s is damaged (%s): set aside", bad.path.name, bad.problem)
        step.fill_(step_of(checkpoint) if checkpoint else 0)
        if step:
            log.info("going on from step %d", step)
    return int(ranks.first(step))


def publish_model(run: Run, trainer: RunTrainer) -> None:
    """Write the trained weights to `model/`, whole or not at all.

    After an early stop these are the weights of the best held-out loss, else the last ones.

    Raises:
        RunError: if the checkpoint with the best held-out loss is damaged.
    """
    if trainer.recipe.optimizer.early_stopping:
        take_best(run, trainer)
    aside, old = run.path / ".model.partial", run.path / ".model.old"
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    trainer.save_weights(aside)
    sync_tree(aside)
    if run.model.exists():
        run.model.rename(old)
    aside.rename(run.model)
    sync_folder(run.path)
    shutil.rmtree(old, ignore_errors=True)


def take_best(run: Run, trainer: RunTrainer) -> None:
    """Take the weights of the best held-out loss, if they are not those at hand."""
    step = best_step(trainer.state.log_history, trainer.recipe.evaluate.watched)
    if step is None or step == trainer.state.global_step:
        return
    best = checkpoint_folder(run.checkpoints, step)
    if problem := verify(best).problem:
        kept = set_aside(best) if best.exists() else best
        raise RunError(
            f"the checkpoint of the best held-out loss, {best.name}, is damaged: {problem}",
            hint=f"chat with or export another checkpoint ({run.name}/step-...), or train anew",
            where=str(kept),
        )
    log.info("the model is that of the best held-out loss, %s", best.name)
    trainer._load_from_checkpoint(str(best))
