"""All that happens before the first weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.prepare import Splits, prepare
from tunesmith.errors import RecipeError
from tunesmith.hardware import num_cores
from tunesmith.logs import logger
from tunesmith.methods import Method, build_method
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.models.adapter import check_beneath
from tunesmith.models.beside import check_beside
from tunesmith.models.chat import find_beneath
from tunesmith.models.load import load_config, quiet_libraries
from tunesmith.models.quantize import check_package
from tunesmith.models.reader import Reader
from tunesmith.models.roles import check_reference, load_reader
from tunesmith.models.rope import settle_rope
from tunesmith.recipe.method import Preference
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rope import RopeScaling
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.rules.defaults import usual_rate
from tunesmith.settings import forbid_network
from tunesmith.training.optimizers import packages_of
from tunesmith.training.processes import num_processes

log = logger(__name__)
HIGHEST_FOR_PAIRS = 1e-4


@dataclass(frozen=True)
class Prepared:
    """All that a run needs before the first weight is loaded."""

    recipe: Recipe
    reader: Reader
    method: Method
    splits: Splits
    ranks: Ranks = ALONE


def prepare_run(recipe: Recipe) -> Prepared:
    """Check the recipe, read the data, tokenize it: everything before weights are loaded."""
    forbid_network()
    check_rules(recipe)
    quiet_libraries()
    packages_of(recipe)
    if recipe.model.quantize is not None:
        check_package(recipe.model.quantize)
    use_threads(recipe)
    warn_of_rate(recipe)
    reader = load_reader(recipe)
    check_reference(recipe, reader)
    beside = check_beside(recipe, reader)
    recipe = settle_positions(recipe, reader)
    check_beneath(reader.folder, find_beneath(recipe.model))
    method = build_method(recipe.method)
    splits = prepare(
        recipe.data, method.learn, reader.tokenizer, reader.template, seed=recipe.run.seed
    )
    check_lengths(reader.folder, splits, recipe.model.rope_scaling)
    if beside is not None:
        check_lengths(beside.base, splits)
    return Prepared(recipe, reader, method, splits)


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


def settle_positions(recipe: Recipe, reader: Reader) -> Recipe:
    """Write into the recipe how much positions are stretched."""
    rope = recipe.model.rope_scaling
    if rope is None:
        return recipe
    settled = settle_rope(load_config(reader.folder), rope, recipe.data.max_tokens)
    model = recipe.model.model_copy(update={"rope_scaling": settled})
    return recipe.model_copy(update={"model": model})


def check_lengths(folder: Path, splits: Splits, rope: RopeScaling | None = None) -> None:
    """Refuse rows that are longer than the texts a model takes."""
    config = load_config(folder, rope).get_text_config()
    theirs = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    positions = config.to_dict().get(theirs)
    parts = [rows for rows in (splits.train, splits.validation) if rows is not None and len(rows)]
    longest = max(rows.reach for rows in parts)
    if positions and longest > positions:
        raise RecipeError(
            f"the longest row has {longest:,} tokens, the model takes {positions:,}",
            hint=f"write data.max_tokens: {positions}",
            where=f"data.max_tokens, {folder}",
        )


def use_threads(recipe: Recipe) -> None:
    """Let torch use the threads of the recipe, or a process's part of all cores."""
    import torch

    cores = max(num_cores() // num_processes(recipe), 1)
    torch.set_num_threads(recipe.compute.threads or cores)
