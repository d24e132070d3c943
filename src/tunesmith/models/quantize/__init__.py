"""Keep the frozen linear layers of a base in fewer bits, from the moment they are read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tunesmith.errors import require
from tunesmith.recipe.quantize import Quantize

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunesmith.models.quantize.bits_and_bytes import Misfit

PACKAGES = {"nf4": "bitsandbytes", "fp4": "bitsandbytes", "int8": "bitsandbytes"}
"""What each kind needs besides what is always there."""


def package_of(quantize: Quantize) -> str:
    """Name the package that a kind is made by."""
    return PACKAGES[quantize.kind]


def check_package(quantize: Quantize) -> None:
    """Refuse a kind whose package is not installed.

    Raises:
        MissingPackage: naming the extra that installs it.
    """
    hush()
    require(package_of(quantize), extra="quant")


def hush() -> None:
    """Keep bitsandbytes from regretting aloud that it may fetch no kernels; call before its import.

    PEFT imports it wherever it is installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def loading_options(
    quantize: Quantize, *, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Tell transformers how to read a base that is to be quantized.

    The numbers are read as they are stored, whatever is computed in: what the few bits say is then
    the same in training, in measuring and in answering.

    Args:
        dtype: what products are computed in.
    """
    from tunesmith.models.quantize.bits_and_bytes import describe

    return {
        "dtype": "auto",
        "quantization_config": describe(quantize, dtype),
        "device_map": {"": device},
    }


def find_misfits(model: PreTrainedModel) -> list[Misfit]:
    """Find the quantized weights that are of another shape than their layers."""
    from tunesmith.models.quantize import bits_and_bytes

    return bits_and_bytes.find_misfits(model)


def settle(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring what is not quantized to `dtype`, and let the rest be computed the same way always."""
    from tunesmith.models.quantize.bits_and_bytes import use_whole_weights

    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype, copy=True)
    use_whole_weights(model, dtype)
