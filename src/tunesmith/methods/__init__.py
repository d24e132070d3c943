"""One file a method: its rows, its batches, its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunesmith.methods.classify import ClassifyMethod
from tunesmith.methods.cpo import CPOMethod
from tunesmith.methods.distill import DistillMethod
from tunesmith.methods.dpo import DPOMethod
from tunesmith.methods.grpo import GRPOMethod
from tunesmith.methods.kto import KTOMethod
from tunesmith.methods.method import LossSum, Method
from tunesmith.methods.orpo import ORPOMethod
from tunesmith.methods.ppo import PPOMethod
from tunesmith.methods.pretrain import PretrainMethod
from tunesmith.methods.reward import RewardMethod
from tunesmith.methods.sft import SFTMethod
from tunesmith.methods.simpo import SimPOMethod
from tunesmith.recipe.method import Method as MethodOptions

METHODS: dict[str, Callable[[Any], Method]] = {
    "pretrain": PretrainMethod,
    "sft": SFTMethod,
    "distill": DistillMethod,
    "dpo": DPOMethod,
    "orpo": ORPOMethod,
    "simpo": SimPOMethod,
    "cpo": CPOMethod,
    "kto": KTOMethod,
    "reward": RewardMethod,
    "grpo": GRPOMethod,
    "ppo": PPOMethod,
    "classify": ClassifyMethod,
}


def build_method(options: MethodOptions) -> Method:
    """Build the method that the recipe's section names."""
    return METHODS[options.name](options)


__all__ = ["METHODS", "LossSum", "Method", "build_method"]
