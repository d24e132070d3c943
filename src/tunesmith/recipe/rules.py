"""Rules across the sections of a recipe, one function each; options without effect are errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import DPO, Pretrain
from tunesmith.recipe.optimizer import Layerwise, Scheduled
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import QUANTIZE, spell
from tunesmith.recipe.tuning import Freeze, Full, LoRA

RARE = ("full_determinism", "tf32", "torch_empty_cache_steps")
OURS = {
    "adam_epsilon": "optimizer.eps",
    "lr_scheduler_kwargs": "optimizer.min_rate, decay, power or cycles",
    "optim": "optimizer.name",
    "optim_args": "the options of optimizer.name",
}
"""What we have a name of our own for."""
SHAPED_BY = {
    "min_rate": ("warmup_stable_decay", "polynomial", "cosine_with_min_lr"),
    "decay": ("warmup_stable_decay",),
    "power": ("polynomial",),
    "cycles": ("cosine_with_restarts",),
}
"""The schedules that an option bends."""


def check_rules(recipe: Recipe) -> None:
    """Refuse a recipe whose sections contradict each other.

    Raises:
        RecipeError: naming the option.
    """
    for rule in RULES:
        rule(recipe)


def one_length(recipe: Recipe) -> None:
    """Epochs and steps both say how long a run lasts."""
    if recipe.run.epochs is not None and recipe.run.steps is not None:
        raise RecipeError(
            "both run.epochs and run.steps are given, and only one can decide",
            hint="remove one of them",
            where="run.steps",
        )


def one_size_of_update(recipe: Recipe) -> None:
    """Rows and tokens both say what an update holds."""
    for option in ("optimizer.batch_size", "optimizer.accumulation"):
        if recipe.optimizer.update_tokens and not has_default(recipe, option):
            raise RecipeError(
                f"{option} has no effect: optimizer.update_tokens says what an update holds",
                hint="remove one of them",
                where=option,
            )


def every_process_has_rows(recipe: Recipe) -> None:
    """A process that never gets a row of an update only takes room."""
    rows = recipe.optimizer.batch_size * recipe.optimizer.accumulation
    processes = recipe.compute.processes or 1
    if not recipe.optimizer.update_tokens and processes > rows:
        raise RecipeError(
            f"{processes} processes are to share the {rows} rows of an update",
            hint=f"write compute.processes: {rows} at most, or raise optimizer.batch_size",
            where="compute.processes",
        )


def layerwise_is_alone(recipe: Recipe) -> None:
    """A gradient that is used at once cannot be added up over processes first."""
    processes = recipe.compute.processes or 1
    if processes > 1 and isinstance(recipe.optimizer, Layerwise) and recipe.optimizer.layerwise:
        raise RecipeError(
            "optimizer.layerwise moves weights before the gradients of other processes are there",
            hint="write compute.processes: 1, or leave optimizer.layerwise out",
            where="compute.processes",
        )


def one_validation(recipe: Recipe) -> None:
    """Held-out rows come from files or from the training rows."""
    if recipe.data.validation and recipe.data.validation_share:
        raise RecipeError(
            "both data.validation and data.validation_share are given",
            hint="remove one of them",
            where="data.validation_share",
        )


def evaluation_needs_rows(recipe: Recipe) -> None:
    """Nothing can be measured without held-out rows."""
    if recipe.data.validation or recipe.data.validation_share:
        return
    for option in ("optimizer.early_stopping", "evaluate.every_steps", "evaluate.batch_size"):
        if not has_default(recipe, option):
            raise RecipeError(
                f"{option} has no effect: there are no held-out rows",
                hint="write data.validation_share: 0.1, or name files in data.validation",
                where=option,
            )


def has_default(recipe: Recipe, option: str) -> bool:
    """Whether an option has its default value; a run's recipe writes all of them out."""
    section, name = option.split(".")
    chosen = dict(recipe)[section]
    default = type(chosen).model_fields[name].get_default(call_default_factory=True)
    return spell(chosen.model_dump()[name]) == spell(default)


def samples_have_length(recipe: Recipe) -> None:
    """A length for answers that are not asked for means nothing."""
    if not recipe.evaluate.sample_rows and not has_default(recipe, "evaluate.sample_tokens"):
        raise RecipeError(
            "evaluate.sample_tokens has no effect: evaluate.sample_rows is 0",
            hint="remove it, or ask for samples",
            where="evaluate.sample_tokens",
        )


def scratch_trains_all(recipe: Recipe) -> None:
    """Random weights that never move are of no use."""
    if recipe.model.from_scratch and not isinstance(recipe.tuning, Full):
        raise RecipeError(
            f"a model from scratch cannot be tuned by {recipe.tuning.kind}: the rest of it would "
            "stay random",
            hint="write tuning.kind: full",
            where="tuning.kind",
        )


def quantized_stays_frozen(recipe: Recipe) -> None:
    """Few bits can be read, but no small step can be taken in them."""
    if recipe.model.quantize is None:
        return
    if recipe.model.from_scratch:
        raise RecipeError(
            "random weights cannot be quantized: all of them are to be trained",
            hint="remove it, or name a model that is trained already",
            where=QUANTIZE,
        )
    if not isinstance(recipe.tuning, LoRA):
        raise RecipeError(
            f"quantized weights cannot be trained, as tuning.kind {recipe.tuning.kind} would",
            hint="write tuning.kind: lora, or remove model.quantize",
            where=QUANTIZE,
        )
    if recipe.compute.precision == "pure_bf16":
        raise RecipeError(
            "compute.precision: pure_bf16 keeps all weights in bf16, a quantized base does not",
            hint="write compute.precision: bf16; it takes no more memory worth naming",
            where="compute.precision",
        )


def preferences_have_a_reference(recipe: Recipe) -> None:
    """Preferences are learned by moving away from a model that can answer already."""
    if isinstance(recipe.method, DPO) and recipe.model.from_scratch:
        raise RecipeError(
            "a model from scratch has no answers of its own that others could be preferred to",
            hint="train it with method.name: sft first, and name the model that comes out",
            where="method.name",
        )


def preferences_drop_nothing(recipe: Recipe) -> None:
    """What is compared with a reference must be computed as the reference was."""
    tuning = recipe.tuning
    if isinstance(recipe.method, DPO) and isinstance(tuning, LoRA) and tuning.dropout:
        raise RecipeError(
            "tuning.dropout has no effect: dpo compares with a reference that drops nothing",
            hint="remove it",
            where="tuning.dropout",
        )


def plain_text_has_no_chat(recipe: Recipe) -> None:
    """Pretraining reads texts, not conversations, and cuts none."""
    if not isinstance(recipe.method, Pretrain):
        return
    given = {
        "data.system": recipe.data.system is not None,
        "model.template": recipe.model.template is not None,
        "data.on_long_row": not has_default(recipe, "data.on_long_row"),
    }
    for option, asked in given.items():
        if asked:
            raise RecipeError(
                f"{option} has no effect: pretraining learns plain text in rows of data.max_tokens",
                hint="remove it, or write method.name: sft",
                where=option,
            )


def weights_need_company(recipe: Recipe) -> None:
    """The share of one set alone is always all of it."""
    if len(recipe.data.train) == 1 and recipe.data.train[0].weight is not None:
        raise RecipeError(
            "a weight has no effect: there is one set only",
            hint="remove it, or name another set to mix it with",
            where="data.train.weight",
        )
    if any(source.weight is not None for source in recipe.data.validation):
        raise RecipeError(
            "a weight has no effect on validation rows: each is measured once",
            hint="remove it",
            where="data.validation.weight",
        )


def freeze_counts_or_names(recipe: Recipe) -> None:
    """Frozen tuning opens layers by count or by name, and at least something."""
    tuning = recipe.tuning
    if not isinstance(tuning, Freeze):
        return
    if tuning.names and tuning.layers != type(tuning).model_fields["layers"].default:
        raise RecipeError(
            "tuning.layers has no effect: tuning.names says what is trained",
            hint="remove one of them",
            where="tuning.layers",
        )
    if not tuning.names and not tuning.layers and not tuning.embeddings:
        raise RecipeError(
            "nothing would be trained: tuning.layers is 0",
            hint="write how many of the last layers to train, or names of parameters",
            where="tuning.layers",
        )


def schedules_have_their_own_options(recipe: Recipe) -> None:
    """What bends one schedule means nothing to another."""
    optimizer = recipe.optimizer
    if not isinstance(optimizer, Scheduled):
        return
    for option, schedules in SHAPED_BY.items():
        known = optimizer.scheduler in schedules
        if not known and not has_default(recipe, f"optimizer.{option}"):
            raise RecipeError(
                f"optimizer.{option} has no effect on the schedule {optimizer.scheduler}",
                hint=f"remove it, or write optimizer.scheduler: {' or '.join(schedules)}",
                where=f"optimizer.{option}",
            )
    if optimizer.scheduler == "cosine_with_min_lr" and not optimizer.min_rate:
        raise RecipeError(
            "cosine_with_min_lr ends at optimizer.min_rate, which is 0: that is cosine",
            hint="write optimizer.min_rate: 0.1, or optimizer.scheduler: cosine",
            where="optimizer.min_rate",
        )


def decay_leaves_room_for_warmup(recipe: Recipe) -> None:
    """A rate cannot rise and fall at once."""
    optimizer = recipe.optimizer
    if not isinstance(optimizer, Scheduled) or optimizer.scheduler != "warmup_stable_decay":
        return
    if optimizer.warmup < 1 < optimizer.warmup + optimizer.decay:
        raise RecipeError(
            "optimizer.warmup and optimizer.decay are shares of more than all steps",
            hint="lower one of them",
            where="optimizer.decay",
        )


def layers_learn_at_rates_of_their_own(recipe: Recipe) -> None:
    """Matrices beside frozen layers are all of one age."""
    if recipe.optimizer.layer_decay != 1 and isinstance(recipe.tuning, LoRA):
        raise RecipeError(
            "optimizer.layer_decay is for layers that are trained themselves, not for lora",
            hint="remove it, or write tuning.kind: full or freeze",
            where="optimizer.layer_decay",
        )


def memory_is_saved_where_there_is_some(recipe: Recipe) -> None:
    """Some optimizers are made for whole matrices."""
    whole = ("galore", "apollo", "apollo_mini", "adam_mini", "badam")
    if recipe.optimizer.name in whole and isinstance(recipe.tuning, LoRA):
        raise RecipeError(
            f"{recipe.optimizer.name} saves memory on whole matrices, and lora trains small ones",
            hint="write optimizer.name: adamw, or tuning.kind: full",
            where="optimizer.name",
        )


def blocks_are_whole_models(recipe: Recipe) -> None:
    """One layer after another is trained where all of them are open."""
    if recipe.optimizer.name == "badam" and not isinstance(recipe.tuning, Full):
        raise RecipeError(
            f"badam goes through all layers, and tuning.kind is {recipe.tuning.kind}",
            hint="write tuning.kind: full, or optimizer.name: adamw",
            where="optimizer.name",
        )


def freed_gradients_are_not_shortened(recipe: Recipe) -> None:
    """How long all gradients are together is known when the first of them are gone."""
    optimizer = recipe.optimizer
    if isinstance(optimizer, Layerwise) and optimizer.layerwise and optimizer.max_grad_norm:
        raise RecipeError(
            "optimizer.max_grad_norm has no effect with optimizer.layerwise: gradients are freed "
            "before their length is known",
            hint="write optimizer.max_grad_norm: 0",
            where="optimizer.max_grad_norm",
        )


def rare_options_are_known(recipe: Recipe) -> None:
    """Of the options underneath only those are passed on that act and leave a resume exact."""
    for name in recipe.run.extra:
        if name in OURS:
            raise RecipeError(
                f"{name} cannot be given here: there is an option of ours",
                hint=f"write {OURS[name]}; see `tunesmith recipe explain optimizer`",
                where=f"run.extra.{name}",
            )
        if name not in RARE:
            near = difflib.get_close_matches(name, RARE, n=1)
            raise RecipeError(
                f"{name} cannot be given here; this takes {', '.join(RARE)}",
                hint=f"did you mean {near[0]}?"
                if near
                else "most options have a name of ours: see `tunesmith recipe explain`",
                where=f"run.extra.{name}",
            )


RULES: tuple[Callable[[Recipe], None], ...] = (
    one_length,
    one_size_of_update,
    every_process_has_rows,
    layerwise_is_alone,
    one_validation,
    evaluation_needs_rows,
    samples_have_length,
    scratch_trains_all,
    quantized_stays_frozen,
    preferences_have_a_reference,
    preferences_drop_nothing,
    plain_text_has_no_chat,
    weights_need_company,
    freeze_counts_or_names,
    schedules_have_their_own_options,
    decay_leaves_room_for_warmup,
    layers_learn_at_rates_of_their_own,
    memory_is_saved_where_there_is_some,
    blocks_are_whole_models,
    freed_gradients_are_not_shortened,
    rare_options_are_known,
)
