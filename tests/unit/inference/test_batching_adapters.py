"""Several adapters over one base answer at once, each as it would with PEFT alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer

from tests import tiny
from tests.asking import PROMPTS, Ear, assert_same, reference, wait_until_idle
from tunesmith.errors import ModelError, RequestError
from tunesmith.inference.batching.build import build_engine
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.embed import embed
from tunesmith.inference.engine import Request
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, Subject, load_subject

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "whole": {"target_modules": ALL, "r": 4, "lora_alpha": 8},
    "few": {"target_modules": ["v_proj", "down_proj"], "r": 3, "use_rslora": True},
    "uneven": {
        "target_modules": ["q_proj", "up_proj", "lm_head"],
        "rank_pattern": {"q_proj": 2, "1.mlp.up_proj": 5},
        "alpha_pattern": {"up_proj": 20},
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    return tiny.make_model(folder, "llama", seed=3, initializer_range=0.2)


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(base, made / name, **how) for name, how in ADAPTERS.items()}


def make_adapter(base: Path, folder: Path, **how: Any) -> Path:
    """Write an adapter that changes what the base says."""
    torch.manual_seed(sum(map(ord, folder.name)))
    model = load_subject(Subject("base", base), "fp32", "cpu").model
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **how))  # type: ignore[arg-type]
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for matrix in module.lora_B.values():
                torch.nn.init.normal_(matrix.weight, std=0.3)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture
def engine(base: Path) -> Iterator[BatchingEngine]:
    torch.set_num_threads(1)
    built = build_engine(Subject("base", base), precision="fp32", device="cpu", rows=16)
    assert isinstance(built.engine, BatchingEngine)
    yield built.engine
    built.engine.close()


def put_on(engine: BatchingEngine, base: Path, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        engine.put_on(name, Subject(name, base, folder))


def alone(base: Path, folder: Path | None) -> ChatModel:
    model = load_subject(Subject("alone", base), "fp32", "cpu")
    if folder is None:
        return model
    adapted = PeftModel.from_pretrained(model.model, str(folder))  # type: ignore[arg-type]
    return replace(model, model=adapted.eval())


def test_a_mixed_batch_answers_as_each_adapter_alone(
    engine: BatchingEngine, base: Path, folders: dict[str, Path]
) -> None:
    put_on(engine, base, folders)
    assert list(engine.models()) == ["base", *ADAPTERS]
    asked: list[tuple[str, list[int], Ear]] = []
    for prompt in PROMPTS:
        for name in ("few", "", "whole", "base", "uneven"):
            ear = Ear()
            engine.start(Request(prompt, Sampling(max_tokens=16), name), ear)
            asked.append((name, prompt, ear))
    models = {name: alone(base, folder) for name, folder in folders.items()}
    models |= dict.fromkeys(("", "base"), alone(base, None))
    answers = set()
    for name, prompt, ear in asked:
        theirs = reference(models[name], prompt, 16)
        assert_same(models[name], prompt, ear.tokens(), theirs)
        answers.add(tuple(theirs))
    assert len(answers) == len(PROMPTS) * 4


def test_what_one_adapter_read_is_not_used_for_another(
    engine: BatchingEngine, base: Path, folders: dict[str, Path]
) -> None:
    put_on(engine, base, folders)
    for name in ("whole", "few", "base"):
        ear = Ear()
        engine.start(Request(PROMPTS[1], Sampling(max_tokens=4), name), ear)
        ear.tokens()
        assert engine._batch.prefixes.num_found == 0


def test_an_adapter_that_was_removed_ends_its_answers_and_begins_none(
    engine: BatchingEngine, base: Path, folders: dict[str, Path]
) -> None:
    put_on(engine, base, folders)
    model, prompt = alone(base, folders["whole"]), PROMPTS[0]
    ear = Ear()
    engine.start(Request(prompt, Sampling(max_tokens=60), "whole"), ear)
    ear.begun.wait(60)
    engine.remove("whole")
    with pytest.raises(RequestError, match="there is no model whole"):
        engine.start(Request(prompt, Sampling(), "whole"), Ear())
    assert_same(model, prompt, ear.tokens(), reference(model, prompt, 60))
    engine.put_on("whole", Subject("whole", base, folders["few"]))
    again = Ear()
    engine.start(Request(prompt, Sampling(max_tokens=8), "whole"), again)
    few = alone(base, folders["few"])
    assert_same(few, prompt, again.tokens(), reference(few, prompt, 8))
    wait_until_idle(engine)
    assert len(engine._served.adapters.by_name) == 3


def test_names_are_taken_once_and_the_base_stays(
    engine: BatchingEngine, base: Path, folders: dict[str, Path]
) -> None:
    put_on(engine, base, folders)
    with pytest.raises(RequestError, match="there is a model few already"):
        engine.put_on("few", Subject("few", base, folders["few"]))
    with pytest.raises(RequestError, match="base is what the adapters lie on"):
        engine.remove("base")
    for name in ("other", ""):
        with pytest.raises(RequestError, match=f"there is no model {name}"):
            engine.remove(name)


@pytest.mark.parametrize("shape", ["llama", "mistral"])
def test_points_of_an_adapter_are_those_of_peft(tmp_path: Path, shape: str) -> None:
    base = tiny.make_model(tmp_path / "base", shape, seed=3, initializer_range=0.2)
    folder = make_adapter(base, tmp_path / "whole", **ADAPTERS["whole"])
    prompts = [[5, 17, 9, 40, 41, 3, 8, 8, 20, 31, 7, 99], [12]]
    subject = Subject("base", base)
    engine = BatchingEngine(load_subject(subject, "fp32", "cpu"), subject, rows=2)
    try:
        engine.put_on("whole", Subject("whole", base, folder))
        told = [engine.embed(prompts, name) for name in ("whole", "base")]
        with pytest.raises(RequestError, match="the text has 0 tokens"):
            engine.embed([[]], "whole")
    finally:
        engine.close()
    wanted = [
        embed(alone(base, folder), prompts),
        embed(load_subject(subject, "fp32", "cpu"), prompts),
    ]
    assert torch.allclose(torch.tensor(told), torch.tensor(wanted), atol=1e-5)
    assert not torch.allclose(torch.tensor(told[0]), torch.tensor(told[1]), atol=1e-2)


@pytest.mark.filterwarnings("ignore:Setting `save_emb")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "has use_dora"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "has modules_to_save"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, "it trains biases"),
        ({"target_modules": ["embed_tokens"]}, "tensors of the adapter are left over"),
    ],
)
def test_adapters_that_do_more_than_add_products_are_refused_by_name(
    engine: BatchingEngine, base: Path, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    folder = make_adapter(base, tmp_path / "adapter", **how)
    with pytest.raises(ModelError, match=message):
        engine.put_on("more", Subject("more", base, folder))
    assert list(engine.models()) == ["base"]


def test_an_adapter_of_another_shape_or_damaged_is_refused(
    engine: BatchingEngine, base: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    wider = tiny.make_model(tmp_path / "wider", "llama", hidden_size=64)
    folder = make_adapter(wider, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(ModelError, match=r"of another shape: model\.layers\.0\.self_attn\.q_proj"):
        engine.put_on("wider", Subject("wider", base, folder))
    copied = Path(shutil.copytree(folders["few"], tmp_path / "copied"))
    (copied / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="the adapter is damaged"):
        engine.put_on("copied", Subject("copied", base, copied))
    assert list(engine.models()) == ["base"]


def test_a_whole_model_is_no_adapter(engine: BatchingEngine, base: Path) -> None:
    with pytest.raises(ModelError, match="it is no adapter but a whole model"):
        engine.add("whole", str(base))


def test_a_run_is_served_beside_its_base(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = tiny.make_model(tmp_path / "model", "qwen3", seed=3, initializer_range=0.2)
    run = tiny.train_run(tmp_path, model, tuning={"kind": "lora", "rank": 2})
    built = build_engine(run.path, precision="fp32", device="cpu")
    engine = built.engine
    assert (built.kind, list(engine.models())) == ("batching", [run.name, "base"])
    prompt = PROMPTS[1]
    for name, subject in (("", Subject("run", model, run.model)), ("base", Subject("b", model))):
        ear = Ear()
        engine.start(Request(prompt, Sampling(max_tokens=12), name), ear)
        alone = load_subject(subject, "fp32", "cpu")
        assert_same(alone, prompt, ear.tokens(), reference(alone, prompt, 12))
    other = tiny.make_model(tmp_path / "other", "qwen3", seed=4)
    engine.close()
    engine = build_engine(other, precision="fp32", device="cpu").engine
    with pytest.raises(ModelError, match="trained on another base"):
        engine.add("run", str(run.path))
    engine.close()


def test_what_is_not_written_here_is_written_by_transformers(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(base, tmp_path / "dora", target_modules=["q_proj"], use_dora=True)
    built = build_engine(Subject("dora", base, folder), precision="fp32", device="cpu")
    assert (built.kind, built.why) == (
        "generate",
        "transformers writes, in batches, as the adapter has use_dora",
    )
    model, ear = alone(base, folder), Ear()
    built.engine.start(Request(PROMPTS[0], Sampling(max_tokens=8)), ear)
    assert_same(model, PROMPTS[0], ear.tokens(), reference(model, PROMPTS[0], 8))
    built.engine.close()
    gpt2 = tiny.make_model(tmp_path / "gpt2", "gpt2")
    built = build_engine(gpt2, precision="fp32", device="cpu")
    assert "a model of the kind gpt2 is none of llama, mistral, qwen2, qwen3" in built.why
    built.engine.close()
    with pytest.raises(ModelError, match="the memory of the cache cannot be chosen"):
        build_engine(gpt2, precision="fp32", device="cpu", memory=1.0)
