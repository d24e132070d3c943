"""Find out by doing it what weights can be kept in: load, train an adapter, merge it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.doctor.findings import Ability
from tunesmith.doctor.tiny import make_packed, make_tiny
from tunesmith.errors import TunesmithError
from tunesmith.hardware import Precision, choose_device
from tunesmith.models.autocast import mixing, number_type
from tunesmith.models.quantize import check_package
from tunesmith.recipe.quantize import FP4, HQQ, NF4, Int8, Quantize, TorchAO
from tunesmith.recipe.tuning import LoRA

if TYPE_CHECKING:
    import torch

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "pure_bf16")
QUANTIZED: dict[str, Quantize] = {
    "nf4": NF4(),
    "fp4": FP4(),
    "int8": Int8(),
    **{f"hqq, bits: {bits}": HQQ(bits=bits) for bits in (1, 2, 3, 4, 8)},
    "torchao, bits: 4": TorchAO(bits=4),
    "torchao, bits: 8": TorchAO(bits=8),
}
PACKED = (("gptq", 2), ("gptq", 3), ("gptq", 4), ("gptq", 8), ("awq", 4), ("aqlm", 8))
"""Folders that were quantized before; AQLM's codebooks of 8 bits stand for its others."""
NEAR = 1e-3
"""How far logits of about 1 may move when an adapter is merged in fp32."""


def try_abilities() -> Iterator[Ability]:
    """Try each precision and quantization on a model of one layer."""
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        plain = make_tiny(folder / "plain")
        for precision in PRECISIONS:
            needed = precision == "fp32"
            yield _try(Ability(precision, needed=needed), _Trial(plain, precision))
        for name, quantize in QUANTIZED.items():
            yield _try(Ability(f"quantize: {name}"), _Trial(plain, "fp32", quantize))
        for method, bits in PACKED:
            packed = make_packed(folder / f"{method}-{bits}", method, bits)
            yield _try(Ability(f"{method} folder, bits: {bits}"), _Trial(packed, "fp32"))


class _Trial:
    """One model that is loaded, trained a step and merged."""

    def __init__(
        self, folder: Path, precision: Precision, quantize: Quantize | None = None
    ) -> None:
        self.folder, self.precision, self.quantize = folder, precision, quantize
        self.device = choose_device("auto")
        self.model: Any = None

    def loads(self) -> None:
        """Load it and ask for an answer."""
        import torch

        from tunesmith.models.load import load_model

        if self.quantize is not None:
            check_package(self.quantize)
        dtype = number_type(self.precision)
        self.model = load_model(
            self.folder, dtype=dtype, device=self.device, quantize=self.quantize
        )
        with torch.no_grad():
            self._must_be_numbers(self._logits(self.model))

    def trains(self) -> None:
        """Put an adapter on it and send a gradient through."""
        import torch

        from tunesmith.models.tuning import add_lora

        torch.manual_seed(0)
        self.model = add_lora(self.model, LoRA(rank=2)).train()
        if self.precision == "pure_bf16":
            self.model = self.model.to(torch.bfloat16)
        with mixing(self.precision, self.device.type):
            loss = self._logits(self.model).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        learning = [weight for weight in self.model.parameters() if weight.requires_grad]
        for weight in learning:
            if weight.grad is None:
                raise RuntimeError("a weight of the adapter gets no gradient")
            self._must_be_numbers(weight.grad)
        if not any(bool(weight.grad.any()) for weight in learning):
            raise RuntimeError("all gradients are zero")
        with torch.no_grad():
            for weight in learning:
                weight.add_(torch.randn_like(weight) * 0.02)

    def merges(self) -> None:
        """Add the adapter to full weights, and compare the answers."""
        import torch
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        from tunesmith.models.load import load_model
        from tunesmith.models.tuning import add_lora

        base = load_model(self.folder, dtype=torch.float32, device=self.device, whole=True)
        full: Any = add_lora(base, LoRA(rank=2)).eval()
        trained = get_peft_model_state_dict(self.model)
        set_peft_model_state_dict(full, {name: w.float() for name, w in trained.items()})
        with torch.no_grad():
            wanted = self._logits(full)
            moved = float(
                (self._logits(full.merge_and_unload(safe_merge=True)) - wanted).abs().max()
            )
        if not moved < NEAR:
            raise RuntimeError(f"merging moves logits by {moved:.2g}")

    def _logits(self, model: Any) -> torch.Tensor:
        import torch

        ids = torch.arange(2, 10, device=self.device)[None]
        logits: torch.Tensor = model(input_ids=ids).logits
        return logits

    def _must_be_numbers(self, given: torch.Tensor) -> None:
        if not bool(given.isfinite().all()):
            raise RuntimeError("what comes out is no number")


def _try(ability: Ability, trial: _Trial) -> Ability:
    try:
        trial.loads()
        ability = replace(ability, loads=True)
        trial.trains()
        ability = replace(ability, trains=True)
        trial.merges()
    except TunesmithError as problem:
        return replace(ability, why_not=problem.message, hint=problem.hint)
    except Exception as problem:  # noqa: BLE001  whatever a library raises is the answer
        return replace(ability, why_not=f"{type(problem).__name__}: {problem}".splitlines()[0])
    return replace(ability, merges=True)
