"""Find the layers of a model that a tuning names, or say that there are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError
from tunesmith.models.inner import reads_images, token_ends
from tunesmith.models.parts import keep_parts, language_prefix
from tunesmith.models.score import HEADS
from tunesmith.recipe.tuning import Adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ALL = "all-linear"
CHOOSERS = ("Router", "GroupedLinear")
"""How the names of linear layers end that give more than a product; no matrix fits beside one."""
MIXERS = ("Mamba", "FalconH1Mixer")
"""How layers are called whose fast kernels take the weights of `out_proj` past an adapter."""


def choose_layers(model: PreTrainedModel, tuning: Adapter) -> str | list[str]:
    """Choose the layers to adapt, as PEFT takes them.

    Raises:
        RecipeError: if a name or pattern means no linear layer; PEFT alone would ignore it.
    """
    every = find_linear(model)
    open_to = set(keep_parts(model, every, tuning))
    layers = {name: layer for name, layer in every.items() if name in open_to}
    if tuning.target_pattern is None:
        check_targets(model, layers, tuning.targets)
        if len(layers) < len(every) or language_prefix(model):
            return _whole_names(model, layers, tuning.targets)
        if ALL in tuning.targets:
            return sorted(layers) if reads_images(model) else _name_all(model, layers)
        return list(tuning.targets)
    pattern = _compile(tuning.target_pattern, "tuning.target_pattern")
    found = [name for name in layers if pattern.fullmatch(name)]
    if not found:
        raise RecipeError(
            f"no linear layer's whole name matches {tuning.target_pattern}",
            hint=f"names look like {next(iter(layers))}",
            where="tuning.target_pattern",
        )
    for name in found:
        _refuse_tied(model, layers[name], name, "tuning.target_pattern")
    return found


def _whole_names(
    model: PreTrainedModel, layers: dict[str, torch.nn.Module], targets: Sequence[str]
) -> list[str]:
    """Name layers in full, since others in parts that do not learn are called alike."""
    head = token_ends(model)[1]
    return sorted(
        name
        for name, layer in layers.items()
        if any(is_called(name, target) for target in targets)
        or (ALL in targets and layer is not head)
    )


def _name_all(model: PreTrainedModel, layers: dict[str, torch.nn.Module]) -> str | list[str]:
    """Name all layers but the head where PEFT's own idea of all would take in others."""
    head = token_ends(model)[1]
    if len(layers) == len(_all_linear(model)):
        return ALL
    return sorted(name for name, layer in layers.items() if layer is not head)


def find_targets(model: PreTrainedModel, tuning: Adapter) -> list[str]:
    """List the whole names of the layers to adapt."""
    chosen = choose_layers(model, tuning)
    layers, head = find_linear(model), token_ends(model)[1]
    if chosen == ALL:
        return [name for name, layer in layers.items() if layer is not head]
    return [name for name in layers if any(is_called(name, target) for target in chosen)]


def is_called(name: str, target: str) -> bool:
    """Whether a dotted name is or ends with another."""
    return name == target or name.endswith(f".{target}")


def is_transposed(layer: torch.nn.Module) -> bool:
    """Whether a layer keeps its weight as [in, out], or did before it was quantized."""
    from transformers.pytorch_utils import Conv1D

    return vars(layer).get("source_cls", type(layer)) is Conv1D


def find_linear(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Find the layers that matrices can be added to, by name."""
    past = _read_past(model)
    return {
        name: module
        for name, module in _all_linear(model).items()
        if name not in past and not type(module).__name__.endswith(CHOOSERS)
    }


def _all_linear(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    import torch
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and name.split(".")[0] not in HEADS
    }


def _read_past(model: PreTrainedModel) -> set[str]:
    """Name the layers whose weights fast kernels read past what is added to them."""
    return {
        f"{name}.out_proj"
        for name, module in model.named_modules()
        if any(kind in type(module).__name__ for kind in MIXERS)
    }


def check_targets(
    model: PreTrainedModel, layers: dict[str, torch.nn.Module], targets: tuple[str, ...]
) -> None:
    """Refuse a target that matches no linear layer; PEFT alone would ignore it."""
    if not targets:
        raise _bad_target("no linear layer is named", f"write {ALL}, or names such as q_proj")
    for target in targets:
        found = [name for name in layers if is_called(name, target)]
        if target == ALL:
            continue
        if not found and any(is_called(name, target) for name in _all_linear(model)):
            raise _bad_target(
                f"{target} cannot be adapted: the model reads past what an adapter adds to it",
                "leave it out, or write tuning.kind: full",
            )
        if not found:
            near = near_name(target, layers, tails=True)
            known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers}))
            raise _bad_target(
                f"no linear layer of the model is called {target}",
                f"did you mean {near}?" if near else f"choose of {known}",
            )
        if ALL in targets:
            raise _bad_target(f"{target} has no effect beside {ALL}", "remove one of them")
        for name in found:
            _refuse_tied(model, layers[name], target, "tuning.targets")


def _bad_target(message: str, hint: str) -> RecipeError:
    return RecipeError(message, hint=hint, where="tuning.targets")


def _refuse_tied(model: PreTrainedModel, layer: torch.nn.Module, name: str, where: str) -> None:
    embeddings = token_ends(model)[0]
    if embeddings is not None and layer.weight is embeddings.weight:
        raise RecipeError(
            f"{name} cannot be adapted: it is one with the embeddings",
            hint="leave it out, or write tuning.kind: full",
            where=where,
        )


def choose_modules(model: PreTrainedModel, tuning: Adapter, targets: Sequence[str]) -> list[str]:
    """List the whole names of the modules to train whole: PEFT takes norm for q_norm too.

    Args:
        targets: whole names of the layers that are adapted.

    Raises:
        RecipeError: if one is not there, or cannot be trained so.
    """
    chosen: list[str] = []
    ends = token_ends(model)
    tied = ends[1] is not None and ends[0].weight is ends[1].weight
    names = [name for name, module in model.named_modules() if name and list(module.parameters())]
    for wanted in tuning.modules:
        found = [name for name in names if is_called(name, wanted)]
        if not found:
            near = near_name(wanted, names, tails=True)
            raise RecipeError(
                f"no module of the model is called {wanted}",
                hint=f"did you mean {near}?" if near else "names look like embed_tokens",
                where="tuning.modules",
            )
        both = [t for t in targets for name in found if t == name or t.startswith(f"{name}.")]
        if both:
            raise RecipeError(
                f"{wanted} cannot be trained whole: {both[0]} in it is adapted",
                hint="take it out of tuning.targets or of tuning.modules",
                where="tuning.modules",
            )
        modules = [model.get_submodule(name) for name in found]
        if tied and any(end is module for end in ends for module in modules):
            raise RecipeError(
                f"{wanted} cannot be trained apart: embeddings and head are one",
                hint="name single tokens in tuning.tokens, or write tuning.kind: freeze with "
                "tuning.embeddings: true",
                where="tuning.modules",
            )
        if not all(w.is_floating_point() for module in modules for w in module.parameters()):
            raise RecipeError(
                f"{wanted} cannot be trained: it is quantized",
                hint="leave it out, or remove model.quantize",
                where="tuning.modules",
            )
        chosen += [name for name in found if name not in chosen]
    return chosen


def check_patterns(patterns: Iterable[str], targets: Sequence[str], where: str) -> None:
    """Refuse a pattern that the name of no adapted layer ends with."""
    for pattern in patterns:
        compiled = _compile(rf"(?:.*\.)?(?:{pattern})", where)
        if not any(compiled.fullmatch(name) for name in targets):
            raise RecipeError(
                f"the name of no adapted layer ends with {pattern}",
                hint=f"names look like {targets[0]}",
                where=where,
            )


def _compile(pattern: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as problem:
        raise RecipeError(
            f"{pattern!r} is no regular expression: {problem}",
            hint=r"write one such as .*\.[qv]_proj",
            where=where,
        ) from None


def find_tokens(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int | str]) -> list[int]:
    """Find the ids of tokens that are given by id or by text.

    Raises:
        RecipeError: if one is no token, or given twice.
    """
    found: list[int] = []
    for token in tokens:
        ids = tokenizer.encode(token, add_special_tokens=False) if _is_text(token) else [token]
        if len(ids) != 1:
            raise _bad_token(f"{token!r} is {len(ids)} tokens, not one")
        if not 0 <= int(ids[0]) < len(tokenizer):
            raise _bad_token(f"there is no token {token}: the tokenizer has {len(tokenizer):,}")
        if ids[0] in found:
            raise _bad_token(f"the token {token!r} is named twice")
        found.append(int(ids[0]))
    return found


def _is_text(token: int | str) -> bool:
    return isinstance(token, str)


def _bad_token(message: str) -> RecipeError:
    hint = "name tokens as they stand in tokenizer.json, or by their ids"
    return RecipeError(message, hint=hint, where="tuning.tokens")


def near_name(wanted: str, names: Iterable[str], *, tails: bool = False) -> str | None:
    """Find the part of a dotted name, of as many words, that is nearest to `wanted`."""
    size = wanted.count(".") + 1
    parts = {
        ".".join(words[at : at + size])
        for words in (name.split(".") for name in names)
        for at in range(max(0, len(words) - size) if tails else 0, len(words) - size + 1)
    }
    return next(iter(difflib.get_close_matches(wanted, sorted(parts), n=1)), None)
