"""Keep the frozen linear layers of a base in fewer bits, from the moment they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.errors import require
from tunesmith.logs import hush
from tunesmith.recipe.quantize import Quantize

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunesmith.models.quantize.bits_and_bytes import Misfit

PACKAGES = {
    "nf4": "bitsandbytes",
    "fp4": "bitsandbytes",
    "int8": "bitsandbytes",
    "torchao": "torchao",
}
"""What kinds need besides what is always there."""


EXTRAS = {"bitsandbytes": "quant", "torchao": "torchao"}


def package_of(quantize: Quantize) -> str | None:
    """Name the package that a kind is made by; None if we make it."""
    return PACKAGES.get(quantize.kind)


def packages_for(quantize: Quantize | None) -> list[str]:
    """List the packages that a kind adds to those that are always there."""
    package = None if quantize is None else package_of(quantize)
    return [] if package is None else [package]


def check_package(quantize: Quantize) -> None:
    """Refuse a kind whose package is not installed.

    Raises:
        MissingPackage: naming the extra that installs it.
    """
    hush()
    package = package_of(quantize)
    if package is not None:
        require(package, extra=EXTRAS[package])


def loading_options(
    quantize: Quantize, *, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Tell transformers how to read a base that is to be quantized.

    The numbers are read as they are stored, whatever is computed in: what the few bits say is then
    the same in training, in measuring and in answering.

    Args:
        dtype: what products are computed in.
    """
    from tunesmith.models.quantize import reading

    if package_of(quantize) == "bitsandbytes":
        from tunesmith.models.quantize.bits_and_bytes import describe

        how: Any = describe(quantize, dtype)
    else:
        how = reading.describe(quantize)
    return {"dtype": "auto", "quantization_config": how, "device_map": {"": device}}


def find_misfits(model: PreTrainedModel, quantize: Quantize) -> list[Misfit]:
    """Find the quantized weights that are of another shape than their layers."""
    from tunesmith.models.quantize import reading

    if package_of(quantize) == "bitsandbytes":
        from tunesmith.models.quantize import bits_and_bytes

        return bits_and_bytes.find_misfits(model)
    return reading.find_misfits(model)


def settle(model: PreTrainedModel, dtype: torch.dtype, quantize: Quantize | None = None) -> None:
    """Bring what is not quantized to `dtype`, and let the rest be computed the same way always."""
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype, copy=True)
    if quantize is not None and package_of(quantize) == "bitsandbytes":
        from tunesmith.models.quantize.bits_and_bytes import use_whole_weights

        use_whole_weights(model, dtype)
    elif quantize is not None:
        from tunesmith.models.quantize.reading import settle_layers

        settle_layers(model)
