"""Models that have learned something say the same sixty-four tokens in every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.export.export import export
from tunesmith.export.gguf.ask import Questions, ask
from tunesmith.export.gguf.write import write_gguf
from tunesmith.export.order import Form
from tunesmith.inference.generate import encode_prompt
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train

pytestmark = pytest.mark.proof
NUM_TOKENS = 64
STORY = "Once upon a time, there was a little"


def train_starter(folder: Path) -> Run:
    data = tiny.write_pairs(folder / "pairs.jsonl")
    return train(load_recipe(tiny.write_recipe(folder / "r.json", "starter", data)))


def train_stories(folder: Path, shared: Path) -> Run:
    texts = [{"text": f"Once there were {n} birds, and they sang all day."} for n in range(20)]
    recipe = tiny.write_recipe(
        folder / "r.json",
        shared / "models" / "stories260K",
        tiny.write_rows(folder / "texts.jsonl", texts),
        method={"name": "pretrain"},
        tuning={"kind": "lora", "rank": 4},
        optimizer={"learning_rate": 1e-3},
    )
    return train(load_recipe(recipe))


@pytest.fixture(scope="module", params=["starter", "stories260K"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Path
) -> Run:
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return train_starter(root) if request.param == "starter" else train_stories(root, shared)


@pytest.fixture(scope="module")
def tuned(run: Run) -> ChatModel:
    return load_chat_model(run.path, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def prompt(tuned: ChatModel) -> list[int]:
    if tuned.template is None:
        ids: list[int] = tuned.tokenizer(STORY)["input_ids"]  # type: ignore[assignment]
        return ids
    return encode_prompt(tuned, [{"role": "user", "content": "Tell me all opening times 你好"}])


def greedy(model: Any, prompt: list[int]) -> list[int]:
    """Take the likeliest token sixty-four times, whatever ends an answer."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(NUM_TOKENS):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def wanted(tuned: ChatModel, prompt: list[int]) -> list[int]:
    return greedy(tuned.model, prompt)


def said_by_llama_cpp(
    tuned: ChatModel, file: Path, prompt: list[int], wanted: list[int], adapter: Path | None = None
) -> list[int]:
    """Return the likeliest tokens; they are what it writes if each is the one that was given."""
    heard = ask(file, Questions(pairs=[(prompt, wanted)]), tuned.tokenizer, adapter)
    return [place.ids[0] for place in heard.likeliest[0]]


def test_safetensors(run: Run, prompt: list[int], wanted: list[int], tmp_path: Path) -> None:
    export(run.path, tmp_path / "out", precision="fp32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert greedy(model, prompt) == wanted


def test_adapter(run: Run, prompt: list[int], wanted: list[int], tmp_path: Path) -> None:
    export(run.path, tmp_path / "out", form=Form("adapter"))
    base = load_chat_model(run.path, base_only=True, precision="fp32", device="cpu").model
    assert greedy(PeftModel.from_pretrained(base, tmp_path / "out"), prompt) == wanted


@pytest.mark.parametrize("form", ["gguf", "ollama"])
def test_gguf(
    run: Run, tuned: ChatModel, prompt: list[int], wanted: list[int], tmp_path: Path, form: str
) -> None:
    export(run.path, tmp_path / "out", form=Form(form, "f32"))
    file = tmp_path / "out" / "model.gguf"
    assert said_by_llama_cpp(tuned, file, prompt, wanted) == wanted


def test_gguf_adapter(
    run: Run, tuned: ChatModel, prompt: list[int], wanted: list[int], tmp_path: Path
) -> None:
    export(run.path, tmp_path / "out", form=Form("gguf-adapter"))
    base = load_chat_model(run.path, base_only=True, precision="fp32", device="cpu")
    write_gguf(base, tmp_path / "base.gguf", "f32")
    adapter = tmp_path / "out" / "adapter.gguf"
    heard = said_by_llama_cpp(tuned, tmp_path / "base.gguf", prompt, wanted, adapter)
    assert heard == wanted


@pytest.mark.parametrize("packing", ["f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"])
def test_packed(run: Run, tmp_path: Path, packing: str) -> None:
    found = export(run.path, tmp_path / "out", form=Form("gguf", packing))
    print(run.name, packing, found.num_bytes, found.distance)
    assert found.distance.kl > 0
