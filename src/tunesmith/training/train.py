"""From a recipe to a trained model in a run directory."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tunesmith.logs import logger
from tunesmith.models.roles import Roles, load_roles
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run
from tunesmith.runs.write import sync_folder, sync_tree, write_json
from tunesmith.training.checkpoints import clear_partial, newest_whole, partial_folder
from tunesmith.training.environment import check_unchanged, describe_environment
from tunesmith.training.prepare import Prepared, prepare_run
from tunesmith.training.session import working_on
from tunesmith.training.stop import StopRequest

if TYPE_CHECKING:
    from tunesmith.training.trainer import RunTrainer

log = logger(__name__)


def train(recipe: Recipe) -> Run:
    """Train as the recipe says and return the run, finished or stopped.

    Data and model folder are checked before the run directory is made, so that a mistake leaves
    nothing behind.

    Raises:
        TunesmithError: naming what is wrong, where, and what to do.
    """
    prepared = prepare_run(recipe)
    run = create_run(recipe)
    with working_on(run) as stop:
        carry_out(run, prepared, stop)
    return run


def resume(run: Run, *, accept_changes: bool = False) -> Run:
    """Go on with a run from its newest whole checkpoint, or from the start if it has none.

    Raises:
        RunError: if another process works on it, or data, base, options, threads or versions
            changed and `accept_changes` is not given.
    """
    with working_on(run) as stop:
        prepared = prepare_run(run.recipe())
        carry_out(run, prepared, stop, accept_changes=accept_changes)
    return run


def carry_out(
    run: Run, prepared: Prepared, stop: StopRequest, *, accept_changes: bool = False
) -> None:
    """Load the models, train, and write what the run leaves behind."""
    from tunesmith.training.probes import write_probes
    from tunesmith.training.report import write_report
    from tunesmith.training.samples import answer_samples

    environment = describe_environment(prepared.recipe, prepared.reader, prepared.splits)
    same = check_unchanged(run, environment, accept=accept_changes)
    run.write_status(identical=run.status().identical and same)
    write_json(run.environment_file, environment)
    write_json(run.data_file, prepared.splits.report.to_dict())
    write_probes(run, prepared.splits, prepared.reader)
    roles = load_policy(prepared)
    if not run.samples_file.exists():
        answer_samples(run, roles, prepared.splits, prepared.recipe, when="before")
    trainer = build_trainer(run, prepared, roles, stop, str(environment["base_weights"]))
    finished = run_loop(run, trainer)
    if not finished:
        return
    publish_model(run, trainer)
    answer_samples(run, roles, prepared.splits, prepared.recipe, when="after")
    run.write_status(state="done", message="")
    write_report(run)


def load_policy(prepared: Prepared) -> Roles:
    """Load the models with new weights drawn from the run's seed."""
    from transformers import set_seed

    set_seed(prepared.recipe.run.seed)
    return load_roles(prepared.recipe, prepared.reader)


def build_trainer(
    run: Run, prepared: Prepared, roles: Roles, stop: StopRequest, base_sha256: str
) -> RunTrainer:
    """Build the borrowed loop around our parts."""
    from tunesmith.training.arguments import build_arguments
    from tunesmith.training.memory import check_disk, use_checkpointing
    from tunesmith.training.order import build_order, count_steps
    from tunesmith.training.trainer import RunTrainer

    recipe = prepared.recipe
    check_disk(run, roles, recipe)
    arguments = build_arguments(
        recipe,
        partial_folder(run.checkpoints),
        num_steps=count_steps(recipe, build_order(recipe, prepared.splits.train)),
        precision=roles.precision,
        cpu=roles.device.type == "cpu",
        checkpointing=use_checkpointing(recipe, prepared.splits, roles),
    )
    return RunTrainer(
        prepared=prepared,
        roles=roles,
        arguments=arguments,
        stop=stop,
        checkpoints=run.checkpoints,
        base_sha256=base_sha256,
    )


def run_loop(run: Run, trainer: RunTrainer) -> bool:
    """Train from the newest whole checkpoint.

    Returns:
        Whether the run came to its end; False if it was stopped.
    """
    from transformers import set_seed

    from tunesmith.training.screen import Screen
    from tunesmith.training.watch import Watch

    clear_partial(run.checkpoints)
    checkpoint, damaged = newest_whole(run.checkpoints)
    for bad in damaged:
        log.warning("checkpoint %s is damaged (%s): set aside", bad.path.name, bad.problem)
    step = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    if step:
        log.info("going on from step %d", step)
    run.keep_metrics_until(step)
    if checkpoint and trainer.take_if_over(checkpoint):
        return True
    screen = Screen()
    trainer.add_callback(Watch(trainer.recipe, run, trainer, screen))
    set_seed(trainer.recipe.run.seed)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        screen.end()
    clear_partial(run.checkpoints)
    done = trainer.is_over()
    if not done:
        run.write_status(
            state="stopped",
            message=f"stopped at step {trainer.state.global_step}, saved",
            hint=f"tunesmith runs resume {run.name}",
        )
    return done


def publish_model(run: Run, trainer: RunTrainer) -> None:
    """Write the trained weights to `model/`, whole or not at all.

    After an early stop these are the weights of the best held-out loss, else the last ones.
    """
    from tunesmith.training.trainer import best_step

    if trainer.recipe.optimizer.early_stopping:
        best = run.checkpoints / f"step-{best_step(trainer.state.log_history) or 0:06d}"
        if best.is_dir() and best_step(trainer.state.log_history) != trainer.state.global_step:
            log.info("the model is that of the best held-out loss, %s", best.name)
            trainer._load_from_checkpoint(str(best))
    aside = run.path / ".model.partial"
    shutil.rmtree(aside, ignore_errors=True)
    trainer.save_weights(aside)
    sync_tree(aside)
    if run.model.exists():
        shutil.rmtree(run.model)
    aside.rename(run.model)
    sync_folder(run.path)
