"""Let an adapter begin where the run's own rows differ most, before the first update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.errors import TrainingError
from tunesmith.logs import logger
from tunesmith.methods.batches import split_answers
from tunesmith.models.autocast import mixing
from tunesmith.models.roles import Roles
from tunesmith.recipe.tuning import LoRA
from tunesmith.runs.run import Run
from tunesmith.training.prepare import Prepared

if TYPE_CHECKING:
    import torch

    from tunesmith.models.explained import Spread

log = logger(__name__)


def begin_by_rows(run: Run, prepared: Prepared, roles: Roles) -> None:
    """Choose ranks and first matrices by what goes into each layer, if the recipe says so.

    They are kept beside the run, so that a resume and other processes begin the same.
    """
    from safetensors.torch import load_file, save_file

    from tunesmith.models.explained import begin_in

    tuning, ranks = prepared.recipe.tuning, prepared.ranks
    if not isinstance(tuning, LoRA) or tuning.init != "eva":
        return
    policy: Any = roles.policy
    if ranks.is_first and not run.beginning_file.exists():
        aside = run.beginning_file.with_suffix(".partial")
        save_file(find_directions(policy, prepared, roles, tuning), aside)
        aside.replace(run.beginning_file)
    ranks.wait()
    begin_in(policy, load_file(run.beginning_file))


def find_directions(
    policy: torch.nn.Module, prepared: Prepared, roles: Roles, tuning: LoRA
) -> dict[str, torch.Tensor]:
    """Show some rows to a model whose adapter adds nothing yet.

    Returns:
        [rank, in] by the name of a layer; ranks are none where others explain more.
    """
    import torch

    from tunesmith.models.explained import SPARE, adapted_layers, share_ranks

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

    train, seed = prepared.splits.train, prepared.recipe.run.seed
    accepted = forward_names(policy)
    frugal = {"use_cache": False, "logits_to_keep": 1}
    for number in np.random.default_rng([seed, 0]).permutation(len(train))[:count]:
        row = train[int(number)]
        if "pixels" in row:
            yield {"pixel_values": row["pixels"]()[None].to(device)}
            continue
        for text in split_answers(row):
            ids = torch.tensor([text["input_ids"]], device=device)
            yield {"input_ids": ids, **{k: v for k, v in frugal.items() if k in accepted}}


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
