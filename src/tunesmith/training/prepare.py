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
from tunesmith.models.load import load_config, quiet_libraries
from tunesmith.models.quantize import check_package
from tunesmith.models.quantize.packed import find_packed, refuse_twice
from tunesmith.models.reader import Reader
from tunesmith.models.roles import check_reference, load_reader
from tunesmith.recipe.method import Preference
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.rules.few_bits import check_few_bits
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
    check_packed(recipe, reader.folder)
    check_reference(recipe, reader)
    method = build_method(recipe.method)
    splits = prepare(
        recipe.data, method.learn, reader.tokenizer, reader.template, seed=recipe.run.seed
    )
    check_lengths(reader, splits)
    return Prepared(recipe, reader, method, splits)


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


def warn_of_rate(recipe: Recipe) -> None:
    """Say aloud where a learning rate is far from usual, as the default is for preferences."""
    rate = recipe.optimizer.learning_rate
    if isinstance(recipe.method, Preference) and rate > HIGHEST_FOR_PAIRS:
        log.warning(
            "optimizer.learning_rate: %g is high for %s; 5e-5 is usual with LoRA, 5e-6 with full "
            "tuning",
            rate,
            recipe.method.name,
        )


def check_lengths(reader: Reader, splits: Splits) -> None:
    """Refuse rows that are longer than the texts a model takes."""
    config = load_config(reader.folder).get_text_config()
    theirs = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    positions = config.to_dict().get(theirs)
    parts = [rows for rows in (splits.train, splits.validation) if rows is not None and len(rows)]
    longest = max(rows.reach for rows in parts)
    if positions and longest > positions:
        raise RecipeError(
            f"the longest row has {longest:,} tokens, the model takes {positions:,}",
            hint=f"write data.max_tokens: {positions}",
            where="data.max_tokens",
        )


def use_threads(recipe: Recipe) -> None:
    """Let torch use the threads of the recipe, or a process's part of all cores."""
    import torch

    cores = max(num_cores() // num_processes(recipe), 1)
    torch.set_num_threads(recipe.compute.threads or cores)
