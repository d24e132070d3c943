"""An export is one plain folder that answers as the run does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tunesmith.cli.export import export as export_command
from tunesmith.export import EXPORTERS, layout
from tunesmith.export.export import export
from tunesmith.export.order import Exported
from tunesmith.export.parity import Distance
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import load_chat_model
from tunesmith.runs.run import Run

QUESTION = [{"role": "user", "content": "question 5"}]
IDS = torch.tensor([[1, 40, 50, 60, 2, 1, 70]])
KINDS = ("lora", "full")


@pytest.fixture(scope="module")
def base(root: Path) -> Path:
    """A model in bf16 whose makers let it draw."""
    folder = tiny.make_model(root / "base", dtype=torch.bfloat16)
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [0, 5]}
    (folder / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(root: Path, base: Path) -> dict[str, Run]:
    torch.set_num_threads(1)
    data = {"train": [str(tiny.write_pairs(root / "few.jsonl", 4))]}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return {
            kind: tiny.train_run(root, base, data=data, run={"name": kind}, tuning={"kind": kind})
            for kind in KINDS
        }


@pytest.fixture(scope="module")
def exports(root: Path, runs: dict[str, Run]) -> dict[str, Exported]:
    """Both runs in fp32, and as the base is stored."""
    made = {kind: export(runs[kind].path, root / kind, precision="fp32") for kind in KINDS}
    as_base = {f"{kind} auto": export(runs[kind].path, root / f"{kind} auto") for kind in KINDS}
    return {**made, **as_base}


def plain(folder: Path) -> Any:
    """Load as anybody would, with transformers alone."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def stored_types(folder: Path) -> set[str]:
    types: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            types |= {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    return types


def test_a_merged_adapter_answers_as_base_and_adapter_do(
    exports: dict[str, Exported], runs: dict[str, Run], base: Path
) -> None:
    tuned = PeftModel.from_pretrained(plain(base), runs["lora"].model)
    merged = logits(plain(exports["lora"].folder))
    torch.testing.assert_close(merged, logits(tuned), rtol=1e-4, atol=1e-5)
    assert (merged - logits(plain(base))).abs().max() > 1e-2


def test_a_whole_model_is_exported_as_it_was_trained(
    exports: dict[str, Exported], runs: dict[str, Run]
) -> None:
    assert torch.equal(logits(plain(exports["full"].folder)), logits(plain(runs["full"].model)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_answers_like_its_run(
    exports: dict[str, Exported], runs: dict[str, Run], kind: str
) -> None:
    said = []
    for name in (runs[kind].path, exports[kind].folder):
        model = load_chat_model(name, precision="fp32", device="cpu")
        prompt = encode_prompt(model, QUESTION)
        said.append((prompt, answer(model, [prompt], Sampling(max_tokens=20))))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("name", "precision", "types"),
    [
        ("lora", "fp32", {"torch.float32"}),
        ("full", "fp32", {"torch.float32"}),
        ("lora auto", "bf16", {"torch.bfloat16"}),
        ("full auto", "bf16", {"torch.bfloat16"}),
    ],
)
def test_weights_are_stored_in_the_precision_that_is_asked_for_or_the_base_s(
    exports: dict[str, Exported], name: str, precision: str, types: set[str]
) -> None:
    exported = exports[name]
    assert exported.precision == precision
    assert stored_types(exported.folder) == types
    config = json.loads((exported.folder / "config.json").read_text("utf-8"))
    assert config["dtype"] == config["torch_dtype"] == types.pop().removeprefix("torch.")
    assert exported.num_bytes == sum(
        path.stat().st_size for path in exported.folder.iterdir() if path.name != "parity.json"
    )


def test_whoever_may_read_the_folder_may_read_its_files(exports: dict[str, Exported]) -> None:
    for exported in exports.values():
        rights = exported.folder.stat().st_mode & 0o666
        assert {path.stat().st_mode & 0o777 for path in exported.folder.iterdir()} == {rights}


def test_half_precision_takes_half_the_room(exports: dict[str, Exported]) -> None:
    sizes = [
        (exports[name].folder / "model.safetensors").stat().st_size
        for name in ("lora", "lora auto")
    ]
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cast_stays_near_and_the_distance_is_the_true_one(
    exports: dict[str, Exported], kind: str
) -> None:
    exact, cast = exports[kind].distance, exports[f"{kind} auto"].distance
    assert exact.top1 == 1.0
    assert exact.kl < 1e-7
    assert exact.max_logit_difference < 1e-4
    assert 0 <= cast.kl < 0.02
    assert cast.max_logit_difference > exact.max_logit_difference
    assert exact.num_tokens == cast.num_tokens > 4


def test_the_proof_is_kept_in_the_folder(
    exports: dict[str, Exported], runs: dict[str, Run]
) -> None:
    exported = exports["lora auto"]
    proof = json.loads((exported.folder / "parity.json").read_text("utf-8"))
    assert proof["run"] == runs["lora"].name
    assert proof["precision"] == "bf16"
    assert proof["num_probes"] == exported.num_probes == 4
    assert Distance(**proof["distance"]) == exported.distance
    assert proof["limits"] == {"kl": 0.02, "top1": 0.95, "near_tie": 1e-4}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_renders_and_splits_as_in_training(
    exports: dict[str, Exported], runs: dict[str, Run], kind: str
) -> None:
    theirs = AutoTokenizer.from_pretrained(exports[kind].folder)
    probes = json.loads(runs[kind].probes_file.read_text("utf-8"))
    for probe in probes:
        rendered = theirs.apply_chat_template(probe["messages"], add_generation_prompt=True)
        assert rendered["input_ids"] == probe["ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_template_stands_where_old_and_new_readers_look(
    exports: dict[str, Exported], kind: str
) -> None:
    folder = exports[kind].folder
    source = (folder / "chat_template.jinja").read_text("utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert config["chat_template"] == source
    (folder / "chat_template.jinja").rename(folder / "aside")
    old = AutoTokenizer.from_pretrained(folder).chat_template
    (folder / "aside").rename(folder / "chat_template.jinja")
    assert old == AutoTokenizer.from_pretrained(folder).chat_template == source


def test_the_tokenizer_s_class_is_one_that_older_readers_know(
    exports: dict[str, Exported],
) -> None:
    config = json.loads((exports["lora"].folder / "tokenizer_config.json").read_text("utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only"} & config.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_end_at_the_template_s_turn_end_first(
    exports: dict[str, Exported], kind: str
) -> None:
    path = exports[kind].folder / "generation_config.json"
    generation = json.loads(path.read_text("utf-8"))
    assert generation["eos_token_id"] == [2, 0, 5]
    assert generation["pad_token_id"] == 0
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 20}
    assert settings.items() <= generation.items()
    assert plain(exports[kind].folder).generation_config.eos_token_id == [2, 0, 5]


def test_an_export_names_no_path_of_this_machine(exports: dict[str, Exported], root: Path) -> None:
    for path in exports["lora"].folder.glob("*.json"):
        assert str(root) not in path.read_text("utf-8"), path.name


def test_a_template_of_the_recipe_goes_into_the_folder(tmp_path: Path, base: Path) -> None:
    few = {"train": [str(tiny.write_pairs(tmp_path / "few.jsonl", 2))]}
    run = tiny.train_run(tmp_path, base, data=few, model={"template": "alpaca"}, run={"steps": 1})
    exported = export(run.name, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(exported.folder)
    prompt = theirs.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert prompt == "### Instruction:\nquestion 5\n\n### Response:\n"
    generation = json.loads((exported.folder / "generation_config.json").read_text("utf-8"))
    assert generation["eos_token_id"] == [0, 5]


def test_large_models_are_written_in_shards(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SHARD_SIZE", "50KB")
    exported = export(runs["full"].path, tmp_path / "out", precision="fp32")
    index = json.loads((exported.folder / "model.safetensors.index.json").read_text("utf-8"))
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert {path.name for path in exported.folder.glob("*.safetensors")} == shards
    assert torch.equal(logits(plain(exported.folder)), logits(plain(runs["full"].model)))


def test_a_checkpoint_can_be_exported(runs: dict[str, Run], tmp_path: Path) -> None:
    checkpoint = min(runs["lora"].checkpoints.glob("step-*"))
    exported = export(checkpoint, tmp_path / "deep" / "out")
    assert exported.folder == tmp_path / "deep" / "out"
    assert plain(exported.folder)


def test_a_whole_model_is_exported_even_if_its_base_is_gone(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(runs["full"].path, tmp_path / "run")))
    recipe = run.recipe_file.read_text("utf-8")
    gone = recipe.replace(str(run.recipe().model.name), str(tmp_path / "gone"))
    run.recipe_file.write_text(gone, "utf-8")
    assert export(run.path, tmp_path / "out").precision == "fp32"


def test_a_run_of_plain_text_is_compared_on_its_texts(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "plain", template=None)
    texts = [{"text": f"the quick brown fox jumps over {n}"} for n in range(4)]
    data = {"train": [str(tiny.write_rows(tmp_path / "texts.jsonl", texts))]}
    run = tiny.train_run(tmp_path, model, data=data, method={"name": "pretrain"}, run={"steps": 2})
    exported = export(run.name, tmp_path / "out")
    assert exported.num_probes > 0
    assert not (exported.folder / "chat_template.jinja").exists()
    assert load_chat_model(exported.folder).template is None


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_other_architectures_are_exported_too(tmp_path: Path, shape: str) -> None:
    model = tiny.make_model(tmp_path / "model", shape)
    few = {"train": [str(tiny.write_pairs(tmp_path / "few.jsonl", 2))]}
    run = tiny.train_run(tmp_path, model, data=few, run={"steps": 2})
    exported = export(run.name, tmp_path / "out")
    tuned = PeftModel.from_pretrained(plain(model), run.model)
    torch.testing.assert_close(logits(plain(exported.folder)), logits(tuned), rtol=1e-4, atol=1e-5)


def test_the_command_line_offers_every_form() -> None:
    offered = get_args(get_type_hints(export_command)["form"])
    assert set(offered) == set(EXPORTERS)
