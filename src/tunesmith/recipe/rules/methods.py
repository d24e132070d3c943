"""Rules on methods and their rows."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import (
    DPO,
    GRPO,
    KTO,
    PPO,
    SFT,
    Classify,
    Method,
    Online,
    Preference,
    Pretrain,
    Reward,
)
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.defaults import has_default
from tunesmith.recipe.tuning import LoRA

TAKEN = ("reward", "rewards")
"""With them `eval_rewards_margin`, or `eval_reward_cut`, would be two measures."""


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


def losses_of_tokens_fit(recipe: Recipe) -> None:
    """Each loss of sft takes some of its options."""
    method = recipe.method
    if not isinstance(method, SFT):
        return
    refused = {
        "label_smoothing": bool(method.label_smoothing) and method.loss != "nll",
        "entropy_power": method.loss != "eaft" and not has_default(recipe, "method.entropy_power"),
        "anchor_weight": method.loss != "asft" and not has_default(recipe, "method.anchor_weight"),
    }
    for option, wrong in refused.items():
        if wrong:
            raise RecipeError(
                f"{option} has no effect on the loss {method.loss}",
                hint="remove it",
                where=f"method.{option}",
            )
    if method.loss == "eaft" and not method.entropy_power:
        raise RecipeError(
            "the loss eaft has no effect: at the power 0 all tokens count alike",
            hint="write method.entropy_power: 1, or method.loss: nll",
            where="method.entropy_power",
        )


def anchors_hold_in_what_is_known(recipe: Recipe) -> None:
    """A model stays near what it was only if that was worth something, and can be asked."""
    method, tuning = recipe.method, recipe.tuning
    if not isinstance(method, SFT) or method.loss != "asft":
        return
    if recipe.model.from_scratch:
        raise RecipeError(
            "asft stays near the model before training, and a model from scratch knows nothing",
            hint="write method.loss: nll",
            where="method.loss",
        )
    if isinstance(tuning, LoRA) and tuning.tokens:
        raise RecipeError(
            "asft compares logits some positions at a time, and tuning.tokens needs them all",
            hint="write method.loss: dft, or remove tuning.tokens",
            where="tuning.tokens",
        )


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
    """A model that scores cannot be asked anything."""
    scores = isinstance(recipe.method, Reward | Classify)
    if not scores or not recipe.evaluate.sample_rows:
        return
    what = "a classifier names classes and gives no answers"
    if isinstance(recipe.method, Reward):
        what = "a reward model scores answers and gives none"
    for option in ("evaluate.sample_rows", "evaluate.sample_tokens"):
        if not has_default(recipe, option):
            raise RecipeError(f"{option} has no effect: {what}", hint="remove it", where=option)


def classes_are_several(recipe: Recipe) -> None:
    """Labels that are named are two at least, each its own; a text is read as it is."""
    method = recipe.method
    if not isinstance(method, Classify):
        return
    labels = method.labels
    if len(labels) == 1 or len(set(labels)) < len(labels):
        raise RecipeError(
            "method.labels needs two labels at least, each once",
            hint="name them all, or leave it out",
            where="method.labels",
        )
    given = {"data.system": recipe.data.system, "model.template": recipe.model.template}
    for option, value in given.items():
        if value is not None:
            raise RecipeError(
                f"{option} has no effect: classify reads a text as it is",
                hint="remove it, or write method.name: sft with the label as the answer",
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


def mixing_needs_weights(recipe: Recipe) -> None:
    """Only sets with weights are mixed until one of them is through."""
    weighed = [source for source in recipe.data.train if source.weight is not None]
    if recipe.data.mix_until != "total" and len(weighed) < 2:
        raise RecipeError(
            f"data.mix_until: {recipe.data.mix_until} has no effect: fewer than two sets of "
            "data.train have a weight",
            hint="remove it, or give each set its share: `{path: a.jsonl, weight: 1}`",
            where="data.mix_until",
        )


def held_out_sets_have_names(recipe: Recipe) -> None:
    """Names belong to held-out sets, each to one, and the best one is named after one of them."""
    names = [source.name for source in recipe.data.validation if source.name]
    twice = next((name for name in names if names.count(name) > 1 or name in TAKEN), None)
    if twice:
        raise RecipeError(
            f"the name {twice!r} of a held-out set is taken",
            hint="give each set a name of its own",
            where="data.validation.name",
        )
    best = recipe.evaluate.best_on
    if best is not None and best not in names:
        raise RecipeError(
            f"evaluate.best_on: there is no held-out set {best!r}",
            hint=f"name one of {', '.join(names)}"
            if names
            else "give held-out sets names: `data.validation: {faq: faq.jsonl}`",
            where="evaluate.best_on",
        )


def has_reference(method: Method) -> bool:
    """Whether answers are compared with what a reference says of them."""
    return isinstance(method, KTO) or (isinstance(method, DPO) and method.reference != "none")


def asks_the_base(method: Method) -> bool:
    """Whether it is, or the loss asks, the model before training."""
    if isinstance(method, Online):
        return method.beta > 0
    anchored = isinstance(method, SFT) and method.loss == "asft"
    referred = isinstance(method, DPO) and method.reference == "base"
    return isinstance(method, KTO) or referred or anchored


RULES: tuple[Callable[[Recipe], None], ...] = (
    preferences_begin_with_answers,
    preferences_drop_nothing,
    who_writes_drops_nothing,
    questions_are_counted,
    groups_are_compared,
    rewards_count,
    options_of_ppo_act,
    losses_of_pairs_fit,
    losses_of_tokens_fit,
    anchors_hold_in_what_is_known,
    judgements_count,
    scores_are_no_answers,
    classes_are_several,
    plain_text_has_no_chat,
    weights_need_company,
    mixing_needs_weights,
    held_out_sets_have_names,
)
