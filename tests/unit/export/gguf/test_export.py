"""A run becomes GGUF, an adapter, or a folder for ollama only if llama.cpp says what it said."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.command import Command as CommandLine
from tests.faults import work
from tests.unit.export.gguf.listening import (
    draw_tokens,
    largest_difference,
    score_file,
    score_ours,
)
from tests.unit.export.test_refusals import files_no_larger_than, partial_of, refusal
from tunesmith.errors import ExportError, MissingPackage, ModelError
from tunesmith.export.export import export
from tunesmith.export.gguf import write
from tunesmith.export.gguf.packing import PACKINGS
from tunesmith.export.ollama.modelfile import Command, read_modelfile
from tunesmith.export.order import Form
from tunesmith.models.chat import load_chat_model
from tunesmith.runs.run import Run

SYSTEM = "You know all opening times."
FORMS = ("gguf", "ollama", "adapter", "gguf-adapter")


@pytest.fixture(scope="module")
def base(root: Path) -> Path:
    folder = tiny.make_model(
        root / "base", hidden_size=256, intermediate_size=512, num_attention_heads=16
    )
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 20, "min_p": 0.05}
    settings |= {"repetition_penalty": 1.1, "eos_token_id": [0, 5]}
    (folder / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


@pytest.fixture(scope="module")
def run(root: Path, base: Path) -> Run:
    torch.set_num_threads(1)
    data = {"train": [str(tiny.write_pairs(root / "few.jsonl", 4))], "system": SYSTEM}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return tiny.train_run(
            root, base, data=data, optimizer={"learning_rate": 1e-3}, run={"name": "gguf"}
        )


@pytest.fixture(scope="module")
def tuned(run: Run) -> Any:
    return load_chat_model(run.path, precision="fp32", device="cpu")


def proof_in(folder: Path) -> Any:
    return json.loads((folder / "parity.json").read_text("utf-8"))


def test_a_run_becomes_one_file_that_llama_cpp_answers_from(run: Run, tuned: Any, to: Path) -> None:
    exported = export(run.path, to, form=Form("gguf", "f32"))
    assert sorted(path.name for path in to.iterdir()) == ["model.gguf", "parity.json"]
    assert exported.distance.top1 == 1.0
    assert exported.distance.kl < 1e-9
    assert exported.distance.num_tokens > 20
    tokens = draw_tokens(30)
    theirs = score_file(tuned, to / "model.gguf", tokens)
    assert largest_difference(theirs, score_ours(tuned.model, tokens)) < 2e-5
    proof = proof_in(to)
    assert proof["form"] == "gguf"
    assert proof["limits"] == {"kl": 1e-4, "top1": 1.0, "near_tie": 1e-4}
    fields = gguf.GGUFReader(str(to / "model.gguf")).fields
    template = fields["tokenizer.chat_template"].contents()
    assert "<|im_start|>" in template
    assert "generation %}" not in template
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 2


@pytest.mark.proof
@pytest.mark.parametrize(
    ("packing", "bits"),
    [("f16", 16), ("bf16", 16), ("q8_0", 8.5), ("q6_k", 6.6), ("q5_k_m", 6.1), ("q4_k_m", 5.5)],
)
def test_packed_weights_take_less_room_and_stay_near(
    run: Run, to: Path, packing: str, bits: float
) -> None:
    exported = export(run.path, to, form=Form("gguf", packing))
    reader = gguf.GGUFReader(str(to / "model.gguf"))
    weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
    stored = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert 8 * stored / weights < bits + 0.3
    assert 0 < exported.distance.kl < 0.01
    kinds = {tensor.tensor_type.name for tensor in reader.tensors}
    expected = {"q5_k_m": {"Q5_K", "Q6_K"}, "q4_k_m": {"Q4_K", "Q6_K"}}
    assert kinds == {"F32", *expected.get(packing, {packing.upper()})}


def test_the_folder_for_ollama_says_what_the_run_was_trained_to_say(
    run: Run, base: Path, to: Path
) -> None:
    export(run.path, to, form=Form("ollama", "q4_k_m"))
    commands = read_modelfile((to / "Modelfile").read_text("utf-8"))
    assert commands[0] == Command("FROM", "./model.gguf")
    assert (to / "model.gguf").is_file()
    said = {command.key or command.name: command.value for command in commands}
    assert said["SYSTEM"] == SYSTEM
    assert "<|im_start|>" in str(said["TEMPLATE"])
    assert said["num_ctx"] == 256
    assert said["temperature"] == 0.6
    assert said["top_k"] == 20
    assert said["min_p"] == 0.05
    assert (said["repeat_penalty"], said["repeat_last_n"]) == (1.1, -1)
    stops = [command.value for command in commands if command.key == "stop"]
    assert stops[:2] == ["<|im_end|>", "<|endoftext|>"]


def test_an_adapter_alone_is_one_that_peft_loads(
    run: Run, base: Path, to: Path, tuned: Any
) -> None:
    exported = export(run.path, to, form=Form("adapter"))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = draw_tokens(30)
    before = score_ours(plain, tokens)
    after = score_ours(PeftModel.from_pretrained(plain, to), tokens)
    assert torch.allclose(after, score_ours(tuned.model, tokens), atol=1e-5)
    assert (after - before).abs().max() > 1e-2
    assert exported.distance.max_logit_difference < 1e-4
    config = json.loads((to / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == base.name
    assert (to / "chat_template.jinja").is_file()


@pytest.mark.parametrize("shape", ["llama", pytest.param("qwen3", marks=pytest.mark.proof)])
def test_an_adapter_as_gguf_is_added_by_llama_cpp(tmp_path: Path, shape: str) -> None:
    base = tiny.make_model(tmp_path / "base", shape)
    run = tiny.train_run(tmp_path, base, tuning={"kind": "lora", "rslora": True})
    export(run.path, tmp_path / "out", form=Form("gguf-adapter", "f32"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter.gguf",
        "parity.json",
    ]
    chat, tokens = load_chat_model(base, precision="fp32", device="cpu"), draw_tokens(30)
    write.write_gguf(chat, tmp_path / "base.gguf", "f32")
    adapter = tmp_path / "out" / "adapter.gguf"
    theirs = score_file(chat, tmp_path / "base.gguf", tokens, adapter)
    tuned = PeftModel.from_pretrained(chat.model, run.model)
    assert largest_difference(theirs, score_ours(tuned, tokens)) < 2e-5


def spoil_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = write.list_tensors

    def spoiled(*given: Any) -> Any:
        from dataclasses import replace

        return [
            replace(tensor, read=lambda tensor=tensor: tensor.read() * 1.5)
            if tensor.name == "blk.1.attn_v.weight"
            else tensor
            for tensor in listed(*given)
        ]

    monkeypatch.setattr(write, "list_tensors", spoiled)


def spoil_field(name: str, value: Any) -> Any:
    def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
        added = write.write_fields
        monkeypatch.setattr(write, "write_fields", lambda w, f: added(w, {**f, name: value}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_weight, "the weight model.layers.1.self_attn.v_proj.weight differs most: by 50.0%"),
        pytest.param(
            spoil_field("qwen3.rope.freq_base", 10.0),
            "all weights are those of the model",
            marks=pytest.mark.proof,
        ),
        (spoil_field("tokenizer.ggml.merges", ["a b"]), "llama.cpp makes other tokens of"),
        (
            spoil_field("tokenizer.chat_template", "{{ 'hi' }}"),
            "renders the chat template otherwise",
        ),
        pytest.param(
            spoil_field("qwen3.block_count", 3),
            "llama.cpp cannot use the file",
            marks=pytest.mark.proof,
        ),
    ],
)
def test_what_llama_cpp_says_otherwise_is_not_published(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, says: str
) -> None:
    spoil(monkeypatch)
    problem = refusal(run.path, to, form=Form("gguf", "f32"))
    assert isinstance(problem, ExportError)
    assert says in problem.message


@pytest.mark.parametrize(
    ("form", "more", "says"),
    [
        (Form("gguf", "q3_k_s"), {}, "there is no GGUF in q3_k_s"),
        (Form("gguf"), {"precision": "fp32"}, "--precision is how safetensors are stored"),
        (Form("adapter", "f16"), {}, "an adapter is written as it was trained"),
        (Form("gguf-adapter", "q8_0"), {}, "the numbers of an adapter are stored whole"),
        (Form("safetensors", "f16"), {}, "there are no safetensors in f16"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    run: Run, to: Path, form: Form, more: Any, says: str
) -> None:
    assert says in refusal(run.path, to, form=form, **more).message


@pytest.mark.parametrize("module", ["gguf", "xllamacpp"])
@pytest.mark.parametrize("form", ["gguf", "ollama", "gguf-adapter"])
def test_without_the_packages_the_extra_is_named(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch, module: str, form: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    problem = refusal(run.path, to, form=Form(form))
    assert isinstance(problem, MissingPackage)
    assert problem.hint == "pip install 'tunesmith[gguf]'"


def test_a_base_that_lacks_a_file_is_refused(run: Run, base: Path, to: Path) -> None:
    hidden = base / "hidden"
    (base / "model.safetensors").rename(hidden)
    try:
        for form in FORMS:
            assert isinstance(refusal(run.path, to, form=Form(form)), ModelError)
    finally:
        hidden.rename(base / "model.safetensors")


@pytest.mark.parametrize(
    "form", ["gguf", *(pytest.param(form, marks=pytest.mark.proof) for form in FORMS[1:])]
)
def test_what_the_disk_refuses_is_not_published(run: Run, to: Path, form: str) -> None:
    with files_no_larger_than(5_000):
        problem = refusal(run.path, to, form=Form(form))
    assert isinstance(problem, ExportError)
    assert problem.message.startswith("the export cannot be written: ")


def export_as(name: str, run: Path, to: Path) -> None:
    export(run, to, form=Form(name))


@pytest.mark.proof
@pytest.mark.parametrize(
    ("form", "moment"),
    [
        ("gguf", ""),
        ("gguf", "model.gguf"),
        ("ollama", "Modelfile"),
        ("adapter", "adapter_model.safetensors"),
        ("gguf-adapter", "base.gguf"),
        ("gguf-adapter", "adapter.gguf"),
    ],
)
def test_a_kill_leaves_nothing_visible_and_the_next_export_works(
    run: Run, root: Path, to: Path, monkeypatch: pytest.MonkeyPatch, form: str, moment: str
) -> None:
    monkeypatch.setenv("TUNESMITH_RUNS", str(root / "runs"))
    monkeypatch.setenv("TUNESMITH_CACHE", str(root / "cache"))
    process = work.start(export_as, form, run.path, to)
    work.wait_for((partial_of(to) / moment).exists)
    process.kill()
    assert work.finish(process) == -signal.SIGKILL
    assert not to.exists()
    export(run.path, to, form=Form(form))
    assert [path.name for path in to.parent.iterdir()] == ["out"]


def test_a_part_of_an_adapter_is_not_written_as_peft_has_it(run: Run, to: Path) -> None:
    problem = refusal(run.path, to, form=Form("adapter"), weight=0.5)
    assert "not a part or a sum" in problem.message
    assert problem.hint.startswith("leave out --also and --weight")


def test_an_adapter_that_llama_cpp_would_add_half_is_refused(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base")
    run = tiny.train_run(tmp_path, base, tuning={"kind": "lora", "dora": True}, run={"steps": 1})
    problem = refusal(run.path, tmp_path / "out", form=Form("gguf-adapter"))
    assert "llama.cpp adds plain lora alone, and the adapter trains lengths" in problem.message
    assert problem.hint == "export the whole model with --format gguf"


def test_a_run_of_whole_weights_has_no_adapter(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base")
    run = tiny.train_run(tmp_path, base, tuning={"kind": "full"}, run={"steps": 1})
    (tmp_path / "exports").mkdir()
    for form in ("adapter", "gguf-adapter"):
        problem = refusal(run.path, tmp_path / "exports" / "out", form=Form(form))
        assert problem.message == "the run trained whole weights, and no adapter"
    shutil.rmtree(run.path)


@pytest.mark.proof
@pytest.mark.parametrize("shape", ["gemma2", "gemma3", "glm", "mistral", "mixture"])
def test_runs_of_other_families_become_gguf(tmp_path: Path, shape: str) -> None:
    more: dict[str, dict[str, Any]] = {
        "gemma3": {"num_hidden_layers": 7, "layer_types": None, "query_pre_attn_scalar": 16},
        "glm": {"head_dim": 8},
        "mistral": {"sliding_window": 64},
        "mixture": {"norm_topk_prob": True},
    }
    base = tiny.make_model(tmp_path / "base", shape, **more.get(shape, {}))
    run = tiny.train_run(tmp_path, base, run={"steps": 3})
    exported = export(run.path, tmp_path / "out", form=Form("ollama", "f32"))
    assert exported.distance.top1 == 1.0
    commands = read_modelfile((tmp_path / "out" / "Modelfile").read_text("utf-8"))
    context = next(command.value for command in commands if command.key == "num_ctx")
    assert context == (64 if shape == "mistral" else 256)


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("llama-quantize") is None, reason="llama-quantize is not there")
@pytest.mark.parametrize("packing", [name for name in PACKINGS if name != "f32"])
def test_llama_cpp_itself_packs_to_the_same_bits_and_copies_the_file(
    tmp_path: Path, packing: str
) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "head_dim": 64}
    base = tiny.make_model(tmp_path / "base", **wide)
    chat = load_chat_model(base, precision="fp32", device="cpu")
    names = ("whole", "ours", "copied", "theirs")
    whole, ours, copied, theirs = (tmp_path / f"{name}.gguf" for name in names)
    write.write_gguf(chat, whole, "f32")
    write.write_gguf(chat, ours, packing)
    for order in ((ours, copied, "COPY"), (whole, theirs, packing.upper())):
        done = subprocess.run(["llama-quantize", *order], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    tensors = {name: read_tensors(tmp_path / f"{name}.gguf") for name in names[1:]}
    assert tensors["ours"] == tensors["copied"] == tensors["theirs"]


def read_tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """Read how each tensor of a file is packed, and its bytes."""
    tensors = gguf.GGUFReader(str(path)).tensors
    return {each.name: (each.tensor_type.name, each.data.tobytes()) for each in tensors}


def test_the_command_line_says_what_was_proven_and_what_comes_next(
    run: Run, to: Path, command: CommandLine
) -> None:
    said = command("export", run.path, "--to", to, "--format", "gguf", "--quantize", "q8_0")
    assert said.code == 0, said.err
    assert "in q8_0" in said.out
    assert f"tunesmith serve {to / 'model.gguf'}" in said.out


@pytest.mark.proof
def test_a_base_that_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base")
    run = tiny.train_run(tmp_path, base, run={"steps": 1})
    whole = load_chat_model(base, precision="fp32", device="cpu").model
    (base / "model.safetensors").unlink()
    whole.save_pretrained(str(base), max_shard_size="40KB")  # type: ignore[operator]
    shards = sorted(base.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    (tmp_path / "exports").mkdir()
    for form in ("safetensors", *FORMS):
        assert refusal(run.path, tmp_path / "exports" / "out", form=Form(form))
