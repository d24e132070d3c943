"""All that happens before the first weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.data.labels import find_labels, number_all, weigh_labels
from tunesmith.data.prepare import Splits, prepare
from tunesmith.data.rows import Prompt
from tunesmith.errors import DataError, RecipeError
from tunesmith.hardware import GIB, num_cores
from tunesmith.logs import logger
from tunesmith.methods import Method, build_method
from tunesmith.methods.classify import learn_of
from tunesmith.methods.online import OnlineMethod
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.methods.rewards import check_rewards
from tunesmith.methods.rewards.rules import lacking
from tunesmith.models.adapter import check_beneath
from tunesmith.models.beside import check_beside
from tunesmith.models.chat import Subject, find_beneath, full_name
from tunesmith.models.classifier import choose_labels
from tunesmith.models.image_reader import ImageReader
from tunesmith.models.inspect import labels_of
from tunesmith.models.load import language_class, load_config, quiet_libraries
from tunesmith.models.quantize import check_package
from tunesmith.models.quantize.packed import find_packed, refuse_twice
from tunesmith.models.quantize.storage import find_experts
from tunesmith.models.reader import AnyReader, Reader
from tunesmith.models.roles import check_reference, find_reference, load_reader
from tunesmith.models.rope import longest_text, settle_rope
from tunesmith.recipe.method import Classify, Distill, Online, Preference
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rewards import ExactMatch, NumberMatch, ScoredBy
from tunesmith.recipe.rewards import Reward as AnyReward
from tunesmith.recipe.rope import RopeScaling
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.rules.defaults import has_default, usual_rate
from tunesmith.recipe.rules.few_bits import check_few_bits
from tunesmith.recipe.tuning import Adapter, Freeze, LoRA
from tunesmith.settings import forbid_network
from tunesmith.training.optimizers import packages_of
from tunesmith.training.processes import num_processes
from tunesmith.training.shown import SHOWING, check_shown

log = logger(__name__)
HIGHEST_FOR_PAIRS = 1e-4


@dataclass(frozen=True)
class Prepared:
    """All that a run needs before the first weight is loaded.

    Attributes:
        labels: what a classifier tells apart, in the order of its scores.
    """

    recipe: Recipe
    reader: AnyReader
    method: Method
    splits: Splits
    labels: tuple[str, ...] = ()
    ranks: Ranks = ALONE


def prepare_run(recipe: Recipe) -> Prepared:
    """Check the recipe, read the data, tokenize it: everything before weights are loaded."""
    forbid_network()
    check_rules(recipe)
    recipe = settle_names(recipe)
    quiet_libraries()
    check_packages(recipe)
    use_threads(recipe)
    warn_of_rate(recipe)
    reader = load_reader(recipe)
    check_packed(recipe, reader.folder)
    tell_of_experts(recipe, reader.folder)
    if isinstance(reader, ImageReader):
        refuse_words(recipe)
    check_reference(recipe, reader)
    recipe = settle_positions(recipe, reader)
    beside = check_beside(recipe, reader)
    check_beneath(reader.folder, find_beneath(recipe.model))
    method = build_method(recipe.method)
    if isinstance(method, OnlineMethod):
        check_rewards(method.rewards)
    learn = learn_of(method, reader)
    splits = prepare(recipe.data, learn, reader.tokenizer, reader.template, seed=recipe.run.seed)
    check_rows(recipe, method, splits, beside)
    if isinstance(reader, Reader):
        written = num_answer_tokens(method)
        check_lengths(reader.folder, splits, recipe.model.rope_scaling, written)
    check_lengths_of_others(recipe, beside, splits)
    if not isinstance(recipe.method, Classify):
        return Prepared(recipe, reader, method, splits)
    labels = settle_labels(recipe.method, reader, splits)
    splits = weigh(carry_labels(splits, labels, reader), labels, recipe.method)
    return Prepared(recipe, reader, method, splits, labels)


def check_packages(recipe: Recipe) -> None:
    """Refuse what needs a package that is not installed."""
    packages_of(recipe)
    if recipe.model.quantize is not None:
        check_package(recipe.model.quantize)


def num_answer_tokens(method: Method) -> int:
    """Count the tokens that rows may grow by when they are answered."""
    return method.writing.max_tokens if isinstance(method, OnlineMethod) else 0


def check_rows(recipe: Recipe, method: Method, splits: Splits, beside: Subject | None) -> None:
    """Refuse rows that a method cannot learn from as the recipe asks."""
    check_answers(method, splits)
    check_shown(recipe, splits, [] if beside is None else [beside.base])


def check_answers(method: Method, splits: Splits) -> None:
    """Refuse questions without the answer that a reward compares with.

    Raises:
        DataError: naming the first.
    """
    rewards = method.rewards if isinstance(method, OnlineMethod) else ()
    comparing = [each for each in rewards if isinstance(each, ExactMatch | NumberMatch)]
    parts = [part for part in (splits.train, splits.validation) if part is not None and comparing]
    for row in (part.conversation(number) for part in parts for number in range(len(part))):
        assert isinstance(row, Prompt)  # what is learned from is questions
        for each in comparing:
            if missing := lacking(each, row.reference):
                raise DataError(
                    f"the row {missing}, and the reward {each.kind} compares with it",
                    hint="give the question its answer, or leave it or the reward out",
                    where=str(row.place),
                )


def longest_row(prepared: Prepared) -> int:
    """Count the tokens of the longest row that is learned from."""
    return int(prepared.splits.train.lengths.max()) + num_answer_tokens(prepared.method)


def settle_labels(options: Classify, reader: AnyReader, splits: Splits) -> tuple[str, ...]:
    """Choose the labels to learn, and their order.

    Raises:
        DataError: if there is one only.
    """
    found = find_labels(splits.train)
    labels = options.labels or choose_labels(reader.folder, found)
    if len(labels) < 2:
        raise DataError(
            f"all rows have the same label, {labels[0]!r}, so there is nothing to tell apart",
            hint="give rows of two labels at least",
            where="data.train",
        )
    unseen = [label for label in labels if label not in found]
    if unseen:
        log.warning("labels without a training row: %s", ", ".join(unseen[:10]))
    if labels_of(reader.folder) not in ((), labels):
        log.info("the model tells other labels apart: its head is drawn anew")
    return labels


def carry_labels(splits: Splits, labels: Sequence[str], reader: AnyReader) -> Splits:
    """Let rows carry the numbers of their labels, and images be decoded as the model asks."""
    numbered = number_all(splits, labels)
    if not isinstance(reader, ImageReader):
        return numbered
    held = numbered.validation
    return replace(
        numbered,
        train=numbered.train.with_pixels(reader.pixels),
        validation=None if held is None else held.with_pixels(reader.pixels),
    )


def weigh(splits: Splits, labels: Sequence[str], options: Classify) -> Splits:
    """Let training rows count by their labels, if the recipe says so."""
    weights = options.class_weights
    if weights is None:
        return splits
    by_label = None if weights == "balanced" else dict(weights)
    return replace(splits, train=weigh_labels(splits.train, labels, by_label))


def refuse_words(recipe: Recipe) -> None:
    """Refuse options that only text has, where the model reads images.

    Raises:
        RecipeError: naming the option.
    """
    tuning = recipe.tuning
    given = {
        "data.max_tokens": not has_default(recipe, "data.max_tokens"),
        "data.on_long_row": not has_default(recipe, "data.on_long_row"),
        **{option: not has_default(recipe, option) for option in SHOWING},
        "model.rope_scaling": recipe.model.rope_scaling is not None,
        "model.shifted_attention": recipe.model.shifted_attention is not None,
        "model.adapters": bool(recipe.model.adapters),
        "tuning.tokens": isinstance(tuning, LoRA) and bool(tuning.tokens),
        "tuning.embeddings": isinstance(tuning, Freeze) and tuning.embeddings,
        "tuning.from_adapter": isinstance(tuning, Adapter) and tuning.from_adapter is not None,
    }
    for option, asked in given.items():
        if asked:
            raise RecipeError(
                "an image classifier is not gone on with from an adapter yet"
                if option == "tuning.from_adapter"
                else f"{option} has no effect: it is for what conversations show"
                if option in SHOWING
                else f"{option} has no effect: the model reads images, and they have no tokens",
                hint="remove it",
                where=option,
            )


def check_packed(recipe: Recipe, folder: Path) -> None:
    """Refuse what a folder of quantized weights cannot do.

    Raises:
        ModelError: if they are quantized in a way that is not read, or would be twice.
        RecipeError: naming the option that needs whole weights.
    """
    packed = find_packed(folder) if (folder / "config.json").is_file() else None
    if packed is not None:
        refuse_twice(packed, recipe.model.quantize)
        where = str(folder / "config.json")
        check_few_bits(recipe, where=where, otherwise="name the original model")


def tell_of_experts(recipe: Recipe, folder: Path) -> None:
    """Say aloud where most of a model is not kept in few bits: experts are no linear layers."""
    import torch

    if recipe.model.quantize is None:
        return
    config = load_config(folder)
    with torch.device("meta"):
        model = language_class(config).from_config(config)
    whole = sum(weight.numel() for weight in find_experts(model).values())
    every = sum(weight.numel() for weight in model.parameters())
    if whole:
        log.warning(
            "model.quantize leaves the experts as they are: %.0f %% of the weights, %.2f GiB in 16 "
            "bits, lie in tensors for all experts of a layer; linear layers alone are quantized",
            100 * whole / every,
            2 * whole / GIB,
        )


def warn_of_rate(recipe: Recipe) -> None:
    """Say aloud where a learning rate is far above what is usual for preferences."""
    rate = recipe.optimizer.learning_rate
    if isinstance(recipe.method, Preference) and rate > HIGHEST_FOR_PAIRS:
        log.warning(
            "optimizer.learning_rate: %g is high for %s; %g is usual, and more for small models",
            rate,
            recipe.method.name,
            usual_rate(recipe.method.name, recipe.tuning.kind),
        )


def settle_names(recipe: Recipe) -> Recipe:
    """Write into the recipe the whole names of the runs that it goes on from or learns from.

    Raises:
        RunError: if several runs are called by one of these names.
    """
    model, tuning, method = recipe.model, recipe.tuning, recipe.method
    adapters = tuple(map(full_name, model.adapters))
    model = model.model_copy(update={"adapters": adapters})
    if isinstance(tuning, Adapter) and tuning.from_adapter is not None:
        named = full_name(tuning.from_adapter)
        tuning = tuning.model_copy(update={"from_adapter": named})
    if isinstance(method, Distill):
        method = method.model_copy(update={"teacher": full_name(method.teacher)})
    if isinstance(method, Online):
        rewards = tuple(map(_settle_judge, method.rewards))
        method = method.model_copy(update={"rewards": rewards})
    return recipe.model_copy(update={"model": model, "tuning": tuning, "method": method})


def _settle_judge(reward: AnyReward) -> AnyReward:
    if not isinstance(reward, ScoredBy):
        return reward
    return reward.model_copy(update={"model": full_name(reward.model)})


def settle_positions(recipe: Recipe, reader: AnyReader) -> Recipe:
    """Write into the recipe how much positions are stretched."""
    rope = recipe.model.rope_scaling
    if rope is None:
        return recipe
    settled = settle_rope(load_config(reader.folder), rope, recipe.data.max_tokens)
    model = recipe.model.model_copy(update={"rope_scaling": settled})
    return recipe.model_copy(update={"model": model})


def check_lengths(
    folder: Path, splits: Splits, rope: RopeScaling | None = None, written: int = 0
) -> None:
    """Refuse rows that are longer than the texts a model takes.

    Args:
        written: tokens that rows may grow by when they are answered.
    """
    positions = longest_text(load_config(folder, rope))
    parts = [rows for rows in (splits.train, splits.validation) if rows is not None and len(rows)]
    longest = max(rows.reach for rows in parts)
    if positions and written and longest + written > positions:
        raise RecipeError(
            f"the longest question has {longest:,} tokens, its answer up to {written:,}, and the "
            f"model takes {positions:,}",
            hint=f"lower method.answer_tokens, or write data.max_tokens: {positions - written}"
            if written < positions
            else "lower method.answer_tokens",
            where="method.answer_tokens",
        )
    if positions and longest > positions:
        raise RecipeError(
            f"the longest row has {longest:,} tokens, the model takes {positions:,}",
            hint=f"write data.max_tokens: {positions}",
            where=f"data.max_tokens, {folder}",
        )


def check_lengths_of_others(recipe: Recipe, beside: Subject | None, splits: Splits) -> None:
    """Refuse rows that are longer than the texts a reference or a teacher takes."""
    reference = find_reference(recipe)
    if reference is not None:
        check_lengths(reference, splits)
    if beside is not None:
        check_lengths(beside.base, splits, beside.beneath.rope)


def use_threads(recipe: Recipe) -> None:
    """Let torch use the threads of the recipe, or a process's part of all cores."""
    import torch

    cores = max(num_cores() // num_processes(recipe), 1)
    torch.set_num_threads(recipe.compute.threads or cores)
