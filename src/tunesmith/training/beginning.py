"""Find what an adapter begins with, where that takes rows or weights, before the first update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.errors import TrainingError
from tunesmith.logs import logger
from tunesmith.methods.batches import gather_shown, split_answers
from tunesmith.models.autocast import mixing
from tunesmith.models.roles import Roles
from tunesmith.recipe.tuning import LoRA
from tunesmith.runs.run import Run
from tunesmith.training.prepare import Prepared

if TYPE_CHECKING:
    import torch

    from tunesmith.models.explained import Spread

log = logger(__name__)
Tensors = dict[str, "torch.Tensor"]
PARTS = ("taken_B", "taken_A", "adds_B", "adds_A")


def begin_adapter(run: Run, prepared: Prepared, roles: Roles) -> None:
    """Let an adapter begin as rows or few bits ask for, if the recipe says so.

    What is found is kept beside the run, so that a resume and other processes begin the same.
    """
    from safetensors.torch import load_file, save_file

    tuning, ranks = prepared.recipe.tuning, prepared.ranks
    if not isinstance(tuning, LoRA) or tuning.init not in WAYS:
        return
    find, begin = WAYS[tuning.init]
    if ranks.is_first and not run.beginning_file.exists():
        aside = run.beginning_file.with_suffix(".partial")
        save_file(find(prepared, roles, tuning), aside)
        aside.replace(run.beginning_file)
    ranks.wait()
    begin(prepared, roles, load_file(run.beginning_file))


def find_directions(prepared: Prepared, roles: Roles, tuning: LoRA) -> Tensors:
    """Show some rows to a model whose adapter adds nothing yet.

    Returns:
        [rank, in] by the name of a layer; ranks are none where others explain more.
    """
    import torch

    from tunesmith.models.explained import SPARE, adapted_layers, share_ranks

    policy = roles.policy
    layers = adapted_layers(policy)
    most = round(tuning.eva_rho * tuning.rank)
    watch = _Watch(layers, SPARE * most)
    was_training = policy.training
    policy.eval()
    with watch, torch.no_grad(), mixing(roles.precision, roles.device.type):
        for given in _texts(policy, prepared, tuning.eva_rows, roles.device):
            policy(**given)
    policy.train(was_training)
    spreads = {name: watch.spread_of(name) for name in layers}
    shares = {name: spread.shares() for name, spread in spreads.items()}
    ranks = share_ranks(shares, budget=tuning.rank * len(layers), most=most)
    told = sorted(ranks.values())
    log.info("eva gives the %d layers %d to %d ranks", len(ranks), told[0], told[-1])
    return {
        name: spreads[name].directions()[:rank].cpu().contiguous()
        for name, rank in ranks.items()
        if rank
    }


def _texts(
    policy: torch.nn.Module, prepared: Prepared, count: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Draw rows of the run, and give them to the model one after another."""
    import torch

    from tunesmith.methods.learned import forward_names
    from tunesmith.models.seeing import seen_arguments, seen_positions

    train, seed = prepared.splits.train, prepared.recipe.run.seed
    accepted = forward_names(policy)
    frugal = {"use_cache": False, "logits_to_keep": 1}
    for number in np.random.default_rng([seed, 0]).permutation(len(train))[:count]:
        row = train[int(number)]
        if "pixels" in row:
            yield {"pixel_values": row["pixels"]()[None].to(device)}
            continue
        shown = gather_shown([row], flat=True).get("shown")
        for text in split_answers(row):
            ids = torch.tensor([text["input_ids"]], device=device)
            given = {"input_ids": ids, **{k: v for k, v in frugal.items() if k in accepted}}
            if shown is not None:
                given |= seen_arguments(policy, ids, shown) | seen_positions(policy, ids, shown)
            yield given


def begin_in_directions(prepared: Prepared, roles: Roles, found: Tensors) -> None:
    """Let the first matrices be the directions found."""
    from tunesmith.models.explained import begin_in

    policy: Any = roles.policy
    begin_in(policy, found)


def find_what_is_left_out(prepared: Prepared, roles: Roles, tuning: LoRA) -> Tensors:
    """Find what each adapter adds to begin with, and what is taken from its weight for that.

    Returns:
        taken_B, taken_A, adds_B and adds_A of each layer; few bits hold what is left then.
    """
    from tunesmith.models.loftq import find_start, over_few_bits, weight_of

    quantize = prepared.recipe.model.quantize
    assert quantize is not None  # the recipe's rules ask for it
    before = _weights_before(prepared)
    found: Tensors = {}
    for name, layer in over_few_bits(roles.policy).items():
        weight = weight_of(before, name).to(roles.device)
        start = find_start(layer, weight, quantize, tuning.loftq_rounds)
        named = zip(PARTS, (*start.taken, *start.adds), strict=True)
        found |= {f"{name}.{part}": tensor.cpu().contiguous() for part, tensor in named}
    return found


def begin_with_what_is_left_out(prepared: Prepared, roles: Roles, found: Tensors) -> None:
    """Let few bits hold what is left, and adapters begin with the rest."""
    from tunesmith.models.loftq import begin, keep_taken, over_few_bits, remember_kind, weight_of
    from tunesmith.models.quantize.anew import hold

    quantize = prepared.recipe.model.quantize
    assert quantize is not None
    before = _weights_before(prepared)
    for name, layer in over_few_bits(roles.policy).items():
        weight = weight_of(before, name).to(roles.device)
        b, a, *adds = (found[f"{name}.{part}"].to(roles.device) for part in PARTS)
        hold(layer.base_layer, weight - b @ a, quantize)
        keep_taken(layer, (b, a))
        begin(layer, adds)
    remember_kind(roles.policy, quantize)


def _weights_before(prepared: Prepared) -> torch.nn.Module:
    """Load the base as it is before it is quantized, in fp32 in main memory."""
    import torch

    from tunesmith.models.load import load_model

    return load_model(prepared.reader.folder, dtype=torch.float32, device=torch.device("cpu"))


Finder = Callable[[Prepared, Roles, LoRA], Tensors]
Beginner = Callable[[Prepared, Roles, Tensors], None]
WAYS: dict[str, tuple[Finder, Beginner]] = {
    "eva": (find_directions, begin_in_directions),
    "loftq": (find_what_is_left_out, begin_with_what_is_left_out),
}
"""How what an adapter begins with is found, and put into it."""


class _Watch:
    """Watches what goes into layers; those that are given the same are counted once."""

    def __init__(self, layers: dict[str, Any], most: int) -> None:
        self.layers, self.most = layers, most
        self.leaders: dict[str, str] = {}
        self.spreads: dict[str, Spread] = {}
        self.last: tuple[str, Any] = ("", None)
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for name, layer in self.layers.items():
            self.handles.append(layer.register_forward_pre_hook(self._watcher(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.last = ("", None)

    def _watcher(self, name: str) -> Any:
        from tunesmith.models.explained import Spread

        def watch(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if name not in self.leaders:
                leader, before = self.last
                self.leaders[name] = leader if before is given[0] else name
            if self.leaders[name] != name:
                return
            self.last = (name, given[0])
            spread = self.spreads.setdefault(name, Spread(self.most))
            inputs = given[0].flatten(0, -2)
            if not inputs.isfinite().all():
                raise TrainingError(
                    f"what goes into {name} is no number, so eva cannot begin with it",
                    hint="write compute.precision: bf16 or fp32, or tuning.init: default",
                    where="tuning.init",
                )
            if len(inputs):
                spread.add(inputs)

        return watch

    def spread_of(self, name: str) -> Spread:
        """Return what was seen of a layer, or of the one that is given the same."""
        from tunesmith.models.explained import Spread

        return self.spreads.get(self.leaders.get(name, name)) or Spread(0)
