"""A base in fewer bits: small errors, the same numbers in every mode, exact gradients beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.errors import MissingPackage, ModelError
from tunesmith.models.few_passes import use_few_passes
from tunesmith.models.inner import inner_model
from tunesmith.models.load import load_model
from tunesmith.models.quantize import check_package
from tunesmith.models.quantize.grouped import Grouped
from tunesmith.models.row_attention import as_mask, one_after_another, use_row_attention
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.quantize import FP4, HQQ, NF4, Int8, Quantize, TorchAO
from tunesmith.recipe.tuning import LoRA

KINDS = [NF4(), NF4(double=False), FP4(), Int8(), HQQ(bits=3, group=16), HQQ(bits=8)]
CPU = torch.device("cpu")
ROWS = ([5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [20, 21, 22, 23, 24])


@pytest.fixture(autouse=True)
def needed() -> None:
    pytest.importorskip("bitsandbytes")


def load(folder: Path, quantize: Quantize | None, dtype: torch.dtype = torch.float32) -> Any:
    return load_model(folder, dtype=dtype, device=CPU, quantize=quantize)


def quantized_layers(model: torch.nn.Module) -> dict[str, Any]:
    from tunesmith.models.quantize.product import Whole

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Whole)}


def adapt(folder: Path, quantize: Quantize | None) -> Any:
    """An adapter that is not zero any more, as our training makes it."""
    torch.manual_seed(0)
    model = add_lora(load(folder, quantize), LoRA(rank=4))
    move(model)
    use_few_passes(model)
    return model.train()


def move(model: torch.nn.Module) -> None:
    """Give the adapter's weights values that do not depend on who made them."""
    for number, (name, weight) in enumerate(model.named_parameters()):
        if "lora_" in name:
            drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
            weight.data = 0.05 * drawn


def learn(logits: torch.Tensor, row: list[int]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(row[1:]))


def flat_loss(model: Any) -> torch.Tensor:
    """The rows end to end, as training lays them."""
    use_row_attention(inner_model(model))
    logits = model(
        input_ids=torch.tensor([[token for row in ROWS for token in row]]),
        position_ids=torch.cat([torch.arange(len(row)) for row in ROWS])[None],
        attention_mask=as_mask(one_after_another([len(row) for row in ROWS])),
        use_cache=False,
    ).logits[0]
    parts = logits.split([len(row) for row in ROWS])
    return sum(map(learn, parts, ROWS), torch.zeros(()))


def padded_loss(model: Any) -> torch.Tensor:
    """The rows below each other, padded on the right."""
    longest = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in ROWS])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ROWS])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return sum(
        (learn(at[: len(r)], r) for at, r in zip(logits, ROWS, strict=True)), torch.zeros(())
    )


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    learning = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return {name: weight.grad.clone() for name, weight in learning if weight.grad is not None}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], share: float) -> None:
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in theirs.items():
        assert float(gradient.norm()) > 0, name
        assert float((ours[name] - gradient).norm() / gradient.norm()) < share, name


@pytest.mark.parametrize(("quantize", "least", "most"), [
    (NF4(), 0.05, 0.12),
    (NF4(double=False), 0.05, 0.12),
    (FP4(), 0.05, 0.15),
    (Int8(), 0.001, 0.015),
    (HQQ(bits=8), 0.002, 0.008),
    (HQQ(bits=4), 0.07, 0.11),
    (HQQ(bits=3), 0.15, 0.22),
    (HQQ(bits=2, group=16), 0.25, 0.35),
    (HQQ(bits=1), 0.7, 1.2),
])  # fmt: skip
@pytest.mark.parametrize("sizes", [(128, 256), (96, 160), (30, 50)])
def test_weights_are_off_by_about_what_the_kind_promises(
    tmp_path: Path, quantize: Quantize, least: float, most: float, sizes: tuple[int, int]
) -> None:
    """Whatever the width: bitsandbytes itself errs where it is no multiple of 64."""
    hidden, inner = sizes
    folder = tiny.make_model(tmp_path / "m", hidden_size=hidden, intermediate_size=inner)
    full = dict(load(folder, None).named_modules())
    layers = quantized_layers(load(folder, quantize))
    errors = []
    for name, layer in layers.items():
        exact = full[name].weight.detach()
        errors.append(float((layer.whole(torch.float32) - exact).norm() / exact.norm()))
    assert len(errors) == 14
    assert least < min(errors)
    assert max(errors) < most


@pytest.mark.parametrize("quantize", KINDS, ids=str)
@pytest.mark.parametrize("shape", ["qwen3", "untied", "gpt2", "gemma2"])
def test_linear_layers_are_quantized_and_take_what_was_foretold(
    tmp_path: Path, quantize: Quantize, shape: str
) -> None:
    from tunesmith.models.quantize.storage import find_frozen, measure_storage

    folder = tiny.make_model(tmp_path / "m", shape)
    full, model = load(folder, None), load(folder, quantize)
    layers = quantized_layers(model)
    assert set(layers) == set(find_frozen(full))
    assert isinstance(model.get_input_embeddings(), torch.nn.Embedding)
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    assert measure_storage(full, quantize).quantized == sum(map(held, layers.values()))


def held(layer: Any) -> int:
    """The bytes that the weight of a layer holds in truth."""
    if isinstance(layer, Grouped):
        return layer.weight.nbytes + layer.scale.nbytes + layer.zero.nbytes
    if layer.weight.dtype == torch.int8:
        return layer.state.CB.nbytes + layer.state.SCB.nbytes
    state = layer.weight.quant_state
    tensors = [layer.weight.data, state.absmax, state.code]
    if state.nested:
        tensors += [state.state2.absmax, state.state2.code, state.offset]
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("quantize", KINDS, ids=str)
def test_the_bits_do_not_depend_on_what_is_computed_in(
    tiny_model: Path, quantize: Quantize
) -> None:
    exact = quantized_layers(load(tiny_model, quantize))
    half = quantized_layers(load(tiny_model, quantize, torch.bfloat16))
    for name, layer in exact.items():
        assert torch.equal(layer.weight.data, half[name].weight.data)
    assert load(tiny_model, quantize, torch.bfloat16).dtype == torch.bfloat16


def by_others(folder: Path, quantize: Quantize) -> Any:
    """The model as transformers and bitsandbytes make it, or a plain one of the weights meant."""
    from tunesmith.models.quantize.bits_and_bytes import describe
    from tunesmith.models.targets import is_transposed

    if not isinstance(quantize, HQQ):
        how = describe(quantize, torch.float32)
        return AutoModelForCausalLM.from_pretrained(str(folder), quantization_config=how)
    plain = load(folder, None)
    for name, layer in quantized_layers(load(folder, quantize)).items():
        given = plain.get_submodule(name)
        whole = layer.whole(torch.float32)
        given.weight.data = whole.t().contiguous() if is_transposed(given) else whole
    return plain


@pytest.mark.parametrize("quantize", KINDS, ids=str)
@pytest.mark.parametrize("shape", ["qwen3", "llama", "gpt2"])
def test_a_flat_batch_gives_the_gradients_of_padded_rows(
    tmp_path: Path, quantize: Quantize, shape: str
) -> None:
    wide: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
    if shape == "gpt2":
        wide |= {"n_embd": 64, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    folder = tiny.make_model(tmp_path / "m", shape, **wide)
    ours = adapt(folder, quantize)
    plain = by_others(folder, quantize)
    transposed = shape == "gpt2"
    options = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    reference = get_peft_model(plain, options).train()
    move(reference)
    one, other = flat_loss(ours), padded_loss(reference)
    assert one.item() == pytest.approx(other.item(), rel=1e-6)
    same(gradients(ours, one), gradients(reference, other), 1e-5)


@pytest.mark.parametrize("quantize", KINDS, ids=str)
def test_gradient_checkpointing_changes_no_gradient(tiny_model: Path, quantize: Quantize) -> None:
    model = adapt(tiny_model, quantize)
    once = gradients(model, padded_loss(model))
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    same(gradients(model, padded_loss(model)), once, 1e-6)


@pytest.mark.parametrize("quantize", KINDS, ids=str)
def test_measuring_in_between_changes_nothing(tiny_model: Path, quantize: Quantize) -> None:
    model = adapt(tiny_model, quantize)
    before = gradients(model, padded_loss(model))
    model.eval()
    with torch.no_grad():
        measured = float(padded_loss(model))
    model.train()
    loss = padded_loss(model)
    assert loss.item() == measured
    same(gradients(model, loss), before, 1e-9)


@pytest.mark.parametrize("quantize", KINDS, ids=str)
def test_a_layer_without_an_adapter_passes_its_gradient_on(
    tiny_model: Path, quantize: Quantize
) -> None:
    """Both ways of computing agree with the layer made whole, there and back."""
    layer = next(iter(quantized_layers(load(tiny_model, quantize)).values()))
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)
    whole = x @ layer.whole(torch.float32).t()
    upper = torch.randn_like(whole)
    (wanted,) = torch.autograd.grad(whole, x, upper)
    out = layer(x)
    (given,) = torch.autograd.grad(out, x, upper)
    assert torch.allclose(out, whole, atol=1e-6)
    assert torch.allclose(given, wanted, atol=1e-6)


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def shrink(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-2].clone()


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize("quantize", [NF4(), Int8(), HQQ()], ids=str)
@pytest.mark.parametrize("spoil", [drop, shrink, add])
def test_a_folder_that_does_not_fit_is_refused_as_ever(
    tmp_path: Path, quantize: Quantize, spoil: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    folder = tiny.make_model(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load(folder, quantize)
    assert caught.value.where == str(folder)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [1, 8, 77])
def test_few_bits_lose_none(bits: int, count: int) -> None:
    from tunesmith.models.quantize.bit_planes import pack, packed_bytes, unpack

    codes = torch.randint(0, 2**bits, (count,))
    packed = pack(codes, bits)
    assert torch.equal(unpack(packed, bits, count).long(), codes)
    assert packed.nbytes == packed_bytes(count, bits) == -(-count // 8) * bits


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (HQQ(bits=1), 0.98848),
        (HQQ(bits=2), 0.47233),
        (HQQ(bits=2, group=16), 0.28770),
        (HQQ(bits=3), 0.19355),
        (HQQ(bits=4), 0.09164),
        (HQQ(bits=8), 0.00537),
    ],
    ids=str,
)
def test_half_quadratic_errors_are_those_of_its_authors_package(options: HQQ, error: float) -> None:
    """Of hqq 0.2.8.post1, `Quantizer.quantize(weight, nbits, group_size=..., axis=1)`."""
    from tunesmith.models.quantize import half_quadratic

    torch.manual_seed(0)
    weight = torch.randn(96, 128) * 0.03
    weight[3] *= 8
    layer = Grouped(128, 96, bias=False, source_cls=torch.nn.Linear)
    layer.take(half_quadratic.quantize(weight, options))
    layer.settle()
    found = (layer.whole(torch.float32) - weight).norm() / weight.norm()
    assert float(found) == pytest.approx(error, rel=0.003)


@pytest.mark.parametrize("options", [TorchAO(), TorchAO(bits=4)], ids=str)
def test_torchao_chooses_what_it_would_keep_itself(tiny_model: Path, options: TorchAO) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    from tunesmith.models.quantize.storage import measure_storage

    full = load(tiny_model, None)
    layers = quantized_layers(load(tiny_model, options))
    for name, layer in layers.items():
        given = full.get_submodule(name)
        by_row = options.bits == 8 or given.in_features % 32
        kind = torch.int8 if options.bits == 8 else torch.int4
        grain = PerAxis(0) if by_row else PerGroup(32)
        quantize_(given, IntxWeightOnlyConfig(weight_dtype=kind, granularity=grain))
        assert torch.equal(layer.whole(torch.float32), given.weight.dequantize())
    assert measure_storage(load(tiny_model, None), options).quantized == sum(
        map(held, layers.values())
    )


def test_torchao_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingPackage, match="torchao is not installed") as caught:
        check_package(TorchAO())
    assert caught.value.hint == "pip install 'tunesmith[torchao]'"


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackage, match="bitsandbytes is not installed") as caught:
        check_package(NF4())
    assert caught.value.hint == "pip install 'tunesmith[quant]'"
