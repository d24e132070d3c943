"""Put layers of few bits in the places of linear ones before transformers reads a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers.core_model_loading import ConversionOps
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationConfigMixin

from tunesmith.models.quantize.grouped import Grouped, Groups, Unfilled
from tunesmith.models.quantize.storage import find_frozen
from tunesmith.recipe.quantize import HQQ, Quantize, TorchAO

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OURS = "tunesmith"
Quantizer = Callable[[torch.Tensor], Groups]


class Description(QuantizationConfigMixin):
    """What transformers hands from the caller to the hooks below.

    Attributes:
        prepare: puts layers in their places.
        quantizer: what becomes of a weight [out, in]; None where files hold what layers hold.
    """

    quant_method: Any = OURS

    def __init__(
        self, prepare: Callable[[PreTrainedModel], None], quantizer: Quantizer | None = None
    ) -> None:
        self.prepare, self.quantizer = prepare, quantizer


def describe(quantize: Quantize) -> Description:
    """Say to transformers how to quantize each weight that it reads."""
    if isinstance(quantize, HQQ):
        from tunesmith.models.quantize import half_quadratic

        return Description(_make_room, lambda weight: half_quadratic.quantize(weight, quantize))
    assert isinstance(quantize, TorchAO)
    from tunesmith.models.quantize import torch_ao

    return Description(_make_room, lambda weight: torch_ao.quantize(weight, quantize))


def _make_room(model: PreTrainedModel) -> None:
    for name, weight in find_frozen(model).items():
        module: Any = model.get_submodule(name)
        out, width = weight.shape
        with torch.device("meta"):
            room = Grouped(width, out, bias=module.bias is not None, source_cls=type(module))
        model.set_submodule(name, room)


class _Quantize(ConversionOps):
    """Turn a weight that was read into what its layer holds."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer

    def convert(self, input_dict: dict[str, Any], *_: Any, **beside: Any) -> dict[str, Any]:
        """Quantize one weight."""
        ((name, given),) = input_dict.items()
        layer, _place = get_module_from_name(beside["model"], name)
        weight = given[0] if isinstance(given, list) else given
        turned = weight.t().contiguous() if issubclass(layer.source_cls, Conv1D) else weight
        layer._is_hf_initialized = True
        return {name: layer.take(self.quantizer(turned))}


@register_quantizer(OURS)
class _Reader(HfQuantizer):
    """Our hooks in transformers' way of reading a model."""

    quantization_config: Description

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        self.quantization_config.prepare(model)

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        module, name = get_module_from_name(model, param_name)
        return isinstance(module, Grouped) and name == "weight"

    def get_quantize_ops(self) -> _Quantize:
        quantizer = self.quantization_config.quantizer
        assert quantizer is not None  # else there are no layers of ours yet
        return _Quantize(quantizer)

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


def settle_layers(model: torch.nn.Module) -> None:
    """End what reading began, and leave nothing that calls the model quantized.

    What transformers and PEFT do on models that they call so is done here otherwise.
    """
    for layer in model.modules():
        if isinstance(layer, Grouped):
            layer.settle()
    read: Any = model
    read.hf_quantizer.remove_quantization_config(read)


def find_misfits(model: torch.nn.Module) -> list[tuple[str, tuple[int, ...], tuple[int, int]]]:
    """Find the weights of another shape than their layers."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, Unfilled)]
    return [
        (f"{name}.weight", layer.found, (layer.out_features, layer.in_features))
        for name, layer in layers
        if layer.found != (layer.out_features, layer.in_features)
    ]
