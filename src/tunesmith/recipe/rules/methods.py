"""Rules on methods and their rows."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import (
    DPO,
    GRPO,
    KTO,
    PPO,
    Method,
    Online,
    Preference,
    Pretrain,
    Reward,
)
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.defaults import has_default
from tunesmith.recipe.tuning import LoRA


def preferences_begin_with_answers(recipe: Recipe) -> None:
    """Preferences are learned by moving away from a model that can answer already."""
    if isinstance(recipe.method, Preference | Online) and recipe.model.from_scratch:
        raise RecipeError(
            "a model from scratch has no answers of its own to be rewarded or preferred",
            hint="train it with method.name: sft first, and name the model that comes out",
            where="method.name",
        )


def preferences_drop_nothing(recipe: Recipe) -> None:
    """What is compared with a reference must be computed as the reference was."""
    tuning = recipe.tuning
    if has_reference(recipe.method) and isinstance(tuning, LoRA) and tuning.dropout:
        raise RecipeError(
            f"tuning.dropout has no effect: {recipe.method.name} compares with a reference that "
            "drops nothing",
            hint="remove it",
            where="tuning.dropout",
        )


def who_writes_drops_nothing(recipe: Recipe) -> None:
    """What is learned must be computed as it was when the answers were written."""
    tuning = recipe.tuning
    if isinstance(recipe.method, Online) and isinstance(tuning, LoRA) and tuning.dropout:
        raise RecipeError(
            f"tuning.dropout has no effect: {recipe.method.name} learns from answers that the "
            "model wrote without it",
            hint="remove it",
            where="tuning.dropout",
        )


def questions_are_counted(recipe: Recipe) -> None:
    """Nobody knows beforehand how many tokens of answers an update will hold."""
    if isinstance(recipe.method, Online) and recipe.optimizer.update_tokens:
        raise RecipeError(
            f"optimizer.update_tokens counts what is learned, and {recipe.method.name} does not "
            "know yet how long its answers will be",
            hint="write optimizer.batch_size, which counts questions",
            where="optimizer.update_tokens",
        )


def groups_are_compared(recipe: Recipe) -> None:
    """Each loss of grpo takes some of its options, and its lengths must fit each other."""
    method = recipe.method
    if not isinstance(method, GRPO):
        return
    clipped = method.iterations > 1
    asked = {
        "epsilon": method.epsilon != GRPO.model_fields["epsilon"].default,
        "epsilon_high": method.epsilon_high is not None,
    }
    for option, given in asked.items():
        if given and not clipped:
            raise RecipeError(
                f"method.{option} has no effect: with method.iterations: 1 the probabilities are "
                "those that the answers were written with",
                hint="remove it, or write method.iterations: 2",
                where=f"method.{option}",
            )
    if method.overlong_tokens > method.answer_tokens:
        raise RecipeError(
            f"method.overlong_tokens ({method.overlong_tokens}) is more than the longest answer "
            f"({method.answer_tokens})",
            hint=f"write method.overlong_tokens: {max(method.answer_tokens // 4, 1)}",
            where="method.overlong_tokens",
        )


def rewards_count(recipe: Recipe) -> None:
    """Rewards that weigh nothing teach nothing."""
    method = recipe.method
    if isinstance(method, Online) and not any(reward.weight for reward in method.rewards):
        raise RecipeError(
            "nothing would be learned: the weight of every reward is 0",
            hint="leave one of them above 0",
            where="method.rewards",
        )


def options_of_ppo_act(recipe: Recipe) -> None:
    """The pull to the reference has options of its own, and so has learning from answers again."""
    method = recipe.method
    if not isinstance(method, PPO):
        return
    once = method.iterations * method.minibatches == 1
    no_pull = "there is no pull to the model before training: method.beta is 0"
    idle = {
        "kl_target": (not method.beta, no_pull),
        "kl_estimate": (not method.beta, no_pull),
        "kl_horizon": (not method.kl_target, "method.beta does not adapt: method.kl_target is 0"),
        "epsilon": (once, "each answer is learned from once, as it was written"),
        "value_epsilon": (once, "each answer is learned from once, as it was written"),
    }
    for option, (wrong, why) in idle.items():
        if wrong and not has_default(recipe, f"method.{option}"):
            raise RecipeError(
                f"method.{option} has no effect: {why}",
                hint="remove it",
                where=f"method.{option}",
            )
    optimizer = recipe.optimizer
    answers = optimizer.batch_size * optimizer.accumulation
    if method.minibatches > answers and not optimizer.update_tokens:
        raise RecipeError(
            f"{answers} answers cannot be split into {method.minibatches} updates",
            hint="raise optimizer.batch_size, or lower method.minibatches",
            where="method.minibatches",
        )


def losses_of_pairs_fit(recipe: Recipe) -> None:
    """Each loss of dpo takes some of its options."""
    method = recipe.method
    if not isinstance(method, DPO):
        return
    smoothed = method.loss in ("sigmoid", "robust")
    refused = {
        "label_smoothing": (
            bool(method.label_smoothing) and not smoothed,
            f"label_smoothing has no effect on the loss {method.loss}",
        ),
        "length_normalize": (
            method.length_normalize and method.loss == "ipo",
            "length_normalize has no effect: ipo compares log-probabilities a token anyway",
        ),
        "loss": (
            method.loss == "robust" and not method.label_smoothing,
            "the loss robust has no effect: without wrong labels it is sigmoid",
        ),
    }
    for option, (wrong, why) in refused.items():
        if wrong:
            hint = "write method.label_smoothing: 0.1" if option == "loss" else "remove it"
            raise RecipeError(why, hint=hint, where=f"method.{option}")


def judgements_count(recipe: Recipe) -> None:
    """Rows that weigh nothing teach nothing."""
    method = recipe.method
    if isinstance(method, KTO) and not (method.desirable_weight or method.undesirable_weight):
        raise RecipeError(
            "nothing would be learned: both weights of kto are 0",
            hint="leave one of them above 0",
            where="method.desirable_weight",
        )


def scores_are_no_answers(recipe: Recipe) -> None:
    """A reward model cannot be asked anything."""
    if not isinstance(recipe.method, Reward) or not recipe.evaluate.sample_rows:
        return
    for option in ("evaluate.sample_rows", "evaluate.sample_tokens"):
        if not has_default(recipe, option):
            raise RecipeError(
                f"{option} has no effect: a reward model scores answers and gives none",
                hint="remove it",
                where=option,
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


def has_reference(method: Method) -> bool:
    """Whether answers are compared with what a reference says of them."""
    return isinstance(method, KTO) or (isinstance(method, DPO) and method.reference != "none")


def asks_the_base(method: Method) -> bool:
    """Whether that reference is the model before training."""
    if isinstance(method, Online):
        return method.beta > 0
    return isinstance(method, KTO) or (isinstance(method, DPO) and method.reference == "base")


RULES: tuple[Callable[[Recipe], None], ...] = (
    preferences_begin_with_answers,
    preferences_drop_nothing,
    who_writes_drops_nothing,
    questions_are_counted,
    groups_are_compared,
    rewards_count,
    options_of_ppo_act,
    losses_of_pairs_fit,
    judgements_count,
    scores_are_no_answers,
    plain_text_has_no_chat,
    weights_need_company,
)
