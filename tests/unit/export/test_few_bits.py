"""An export in few bits is read by others as it is meant, and stays near the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests import tiny
from tunesmith.export.export import export
from tunesmith.export.few_bits import pack
from tunesmith.export.few_bits.kinds import KINDS
from tunesmith.export.few_bits.rows import read_rows
from tunesmith.export.order import Calibration, Exported, Form, Order
from tunesmith.export.parity import MAX_PROBES
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import find_subject, load_chat_model
from tunesmith.models.load import load_model
from tunesmith.models.quantize import gptq
from tunesmith.runs.run import Run

QUESTION = [{"role": "user", "content": "question 5"}]
IDS = torch.tensor([[1, 40, 50, 60, 2, 1, 70]])
CPU = torch.device("cpu")
ROWS = [[3, 1, 4, 1, 5, 9, 2, 6], [70, 80, 90, 100, 110], [11, 12, 13, 14, 15, 16, 17, 18, 19]]
SIZES = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    torch.set_num_threads(1)
    base = tiny.make_model(root / "base", dtype=torch.bfloat16, **SIZES)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        made = tiny.train_run(root, base, tuning={"kind": "lora"})
    probes = json.loads(made.probes_file.read_text("utf-8"))
    made.probes_file.write_text(json.dumps(probes[:3]), "utf-8")  # to be quick
    return made


@pytest.fixture(scope="module")
def exports(root: Path, run: Run) -> dict[str, Exported]:
    found = {"whole": export(run.path, root / "whole")}
    for kind in KINDS:
        found[kind] = export(run.path, root / kind, form=Form("safetensors", kind))
    return found


def load(folder: Path, **options: Any) -> Any:
    return load_model(folder, dtype=torch.float32, device=CPU, **options)


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits.float()
    return found


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_its_weights_put_together_do(
    exports: dict[str, Exported], kind: str, tmp_path: Path
) -> None:
    folder = exports[kind].folder
    whole = load(folder, whole=True)
    whole.save_pretrained(str(tmp_path / "whole"))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(folder / name, tmp_path / "whole" / name)
    said = []
    for place in (folder, tmp_path / "whole"):
        model = load_chat_model(place, precision="fp32", device="cpu")
        prompt = encode_prompt(model, QUESTION)
        said.append((prompt, answer(model, [prompt], Sampling(max_tokens=20))[0].tokens))
    assert said[0] == said[1]
    config = read_json(tmp_path / "whole" / "config.json")
    assert "quantization_config" not in config


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_less_room_and_says_how_far_it_is(exports: dict[str, Exported], kind: str) -> None:
    exported = exports[kind]
    report = read_json(exported.folder / "parity.json")
    limits = KINDS[kind].limits
    assert report["precision"] == exported.precision == kind
    assert report["limits"] == {"kl": limits.kl, "top1": limits.top1, "near_tie": 1e-4}
    assert report["distance"]["kl"] == exported.distance.kl > 0
    assert (exported.calibrated > 0) is kind.startswith("gptq")
    assert report["calibrated"] == exported.calibrated
    sizes = [(exports[e].folder / "model.safetensors").stat().st_size for e in ("whole", kind)]
    assert sizes[1] < sizes[0]


def test_more_bits_stay_nearer(exports: dict[str, Exported]) -> None:
    gptq = [exports[f"gptq-{bits}"].distance.kl for bits in (8, 4, 3, 2)]
    assert gptq == sorted(gptq)
    assert exports["int8"].distance.kl < exports["nf4"].distance.kl


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_readers_of_gptq_find_what_they_look_for(exports: dict[str, Exported], bits: int) -> None:
    folder = exports[f"gptq-{bits}"].folder
    told = read_json(folder / "config.json")["quantization_config"]
    assert told == read_json(folder / "quantize_config.json")
    wanted = {"quant_method": "gptq", "bits": bits, "group_size": 64, "desc_act": False}
    assert told.items() >= wanted.items()
    assert told["checkpoint_format"] == "gptq"
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    shapes = {part: list(tensors[f"{name}.{part}"].shape) for part in ("qweight", "qzeros")}
    assert shapes == {"qweight": [128 * bits // 32, 64], "qzeros": [2, 64 * bits // 32]}
    assert tensors[f"{name}.scales"].dtype == torch.float16
    assert tensors[f"{name}.g_idx"].tolist() == [at // 64 for at in range(128)]
    assert tensors["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert f"{name}.weight" not in tensors


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_files_are_those_that_transformers_writes(
    exports: dict[str, Exported], kind: str, tmp_path: Path
) -> None:
    """It quantizes the whole export, which holds the same bf16 weights."""
    how = BitsAndBytesConfig(
        load_in_4bit=kind == "nf4",
        load_in_8bit=kind == "int8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    theirs = AutoModelForCausalLM.from_pretrained(
        exports["whole"].folder, quantization_config=how, device_map={"": "cpu"}
    )
    theirs.save_pretrained(tmp_path)
    ours = load_file(exports[kind].folder / "model.safetensors")
    wanted = load_file(tmp_path / "model.safetensors")
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)
    told = read_json(exports[kind].folder / "config.json")["quantization_config"]
    written = read_json(tmp_path / "config.json")["quantization_config"]
    same = [name for name in written if name.startswith("bnb_4bit") and kind == "nf4"]
    assert all(told[name] == written[name] for name in ("quant_method", "load_in_4bit", *same))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_transformers_alone_loads_it(exports: dict[str, Exported], kind: str) -> None:
    folder = exports[kind].folder
    theirs, loaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loaded.values())
    ours = logits(load(folder))
    assert (logits(theirs) - ours).abs().max() < 0.02 * ours.abs().max()


def test_a_block_is_quantized_for_what_quantized_ones_before_it_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def quantize(weight: Any, squares: torch.Tensor, options: Any) -> Any:
        seen.append(squares)
        return gptq.quantize(weight, squares, options)

    monkeypatch.setattr(pack, "quantize", quantize)
    base = load(tiny.make_model(tmp_path / "base", **SIZES))
    packed = pack_folder(tmp_path, "gptq-2")
    packed.model.layers[1] = base.model.layers[1]  # whole while its inputs are collected
    wanted = torch.zeros(64, 64)

    def add(_: Any, given: Any) -> None:
        inputs = given[0].reshape(-1, 64)
        wanted.addmm_(inputs.t(), inputs)

    packed.model.layers[1].mlp.up_proj.register_forward_pre_hook(add)
    for ids in ROWS:
        logits(packed, torch.tensor([ids]))
    found = seen[7 + 5]  # q, k, v, o, gate, up
    assert (found - wanted).norm() < 1e-4 * wanted.norm()
    others = [torch.zeros(64, 64), seen[5]]
    assert all((found - other).norm() > 0.1 * wanted.norm() for other in others)


@pytest.mark.parametrize("shape", ["gpt2", "qwen2", "gemma3", "glm", "mistral"])
@pytest.mark.parametrize("kind", ["gptq-8", "int8"])
def test_other_families_are_read_as_they_were_written(
    shape: str, kind: str, tmp_path: Path
) -> None:
    sizes = {"gpt2": {}, "gemma3": {**SIZES, "head_dim": 32}}.get(shape, SIZES)
    whole = logits(load(tiny.make_model(tmp_path / "base", shape, **sizes)))
    packed = pack_folder(tmp_path, kind)
    assert 0 < (logits(packed) - whole).abs().max() < 0.03 * whole.abs().max()


def pack_folder(folder: Path, kind: str) -> Any:
    """Pack the model in `base` without asking how near it stays, and load it."""
    model = load(folder / "base")
    layers = (
        pack.pack_gptq(model, KINDS[kind], ROWS)
        if kind.startswith("gptq")
        else pack.pack_bnb(model, KINDS[kind], torch.float32)
    )
    model.save_pretrained(str(folder / kind), state_dict=layers.state(model))
    tiny.change_json(folder / kind / "config.json", quantization_config=layers.described)
    return load(folder / kind)


def test_rows_are_the_run_s_own_but_those_it_is_compared_on(run: Run, tmp_path: Path) -> None:
    order = Order(find_subject(run.path), run, tmp_path)
    probes = json.loads(run.probes_file.read_text("utf-8"))
    rows = read_rows(order, Calibration())
    assert len(rows) == 40 - MAX_PROBES
    assert not any(row[: len(p["ids"])] == p["ids"] for row in rows for p in probes)
    few = read_rows(order, Calibration(rows=3, tokens=5))
    assert [len(row) for row in few] == [5, 5, 5]
    assert few == read_rows(order, Calibration(rows=3, tokens=5))


def test_rows_may_be_texts_of_a_file(run: Run, tmp_path: Path) -> None:
    file = tiny.write_rows(tmp_path / "texts.jsonl", [{"text": "the quick brown fox " * 9}] * 2)
    order = Order(find_subject(run.path), run, tmp_path)
    rows = read_rows(order, Calibration(file=file, tokens=7))
    assert max(len(row) for row in rows) == 7
    made = export(
        run.path,
        tmp_path / "out",
        form=Form("safetensors", "gptq-4", Calibration(file=file, rows=1, tokens=9)),
    )
    assert made.calibrated == 9


def test_an_adapter_learned_on_an_export_goes_back_to_whole_weights(
    exports: dict[str, Exported], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TUNESMITH_CACHE", str(root / "cache"))
    data = {"train": [str(tiny.write_pairs(tmp_path / "few.jsonl", 3))]}
    again = tiny.train_run(tmp_path, exports["nf4"].folder, data=data, run={"steps": 2})
    whole = export(again.path, tmp_path / "again")
    assert "quantization_config" not in read_json(whole.folder / "config.json")
    assert whole.from_quantized is not None
    assert whole.from_quantized.kl < 1e-3
