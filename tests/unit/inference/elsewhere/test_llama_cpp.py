"""What llama.cpp alone does: adapters, other penalties, models without a template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing as closing_of
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.unit.export.gguf.test_vocabulary import byte_level, make_chat, sentencepiece
from tests.unit.inference.hearing import hear, start
from tunesmith.errors import EngineError, ModelError, RequestError
from tunesmith.export.gguf.write import write_gguf
from tunesmith.hardware import num_cores
from tunesmith.inference.choose import Engines, choose_engine, which_engine
from tunesmith.inference.engine import Request
from tunesmith.inference.llama_cpp import LlamaCpp, LlamaCppOptions
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.structured import Outline, Wanted
from tunesmith.inference.thinking import Thinking
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.models.gguf_file import find_gguf_adapter
from tunesmith.models.tokenizer import load_tokenizer

RANK, ALPHA = 2, 8
PROMPT = [30, 40, 50, 60]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = tiny.make_model(tmp_path_factory.mktemp("llama") / "tiny")
    return load_chat_model(folder, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def file(model: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(model, path, "f32")
    return path


@pytest.fixture(scope="module")
def engine(file: Path, model: ChatModel) -> Iterator[LlamaCpp]:
    adapter = file.with_name("adapter.gguf")
    write_adapter(adapter)
    options = LlamaCppOptions({"other": adapter}, slots=3, cache="f32", threads=1)
    found = LlamaCpp(file, options)
    yield found
    found.close()


def factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(RANK, 64, generator=generator),
        torch.randn(32, RANK, generator=generator),
    )


def write_adapter(path: Path) -> None:
    """Write an adapter on one weight, as llama.cpp's own converter lays it out."""
    writer = gguf.GGUFWriter(str(path), "qwen3")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(ALPHA))
    for name, factor in zip(("lora_a", "lora_b"), factors(), strict=True):
        writer.add_tensor(f"blk.1.ffn_down.weight.{name}", factor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_an_adapter_answers_under_its_name_and_the_model_under_its_own(
    engine: LlamaCpp, model: ChatModel, tmp_path: Path
) -> None:
    changed = load_chat_model(model.folder, precision="fp32", device="cpu")
    a, b = factors()
    with torch.no_grad():
        changed.model.model.layers[1].mlp.down_proj.weight.add_(ALPHA / RANK * (b @ a))  # type: ignore[union-attr]
    sampling = Sampling(max_tokens=24)
    (plain,) = OwnModel(model, 1).write([PROMPT], sampling)
    (adapted,) = OwnModel(changed, 1).write([PROMPT], sampling)
    assert plain.text != adapted.text
    assert list(engine.models()) == ["tiny", "other"]
    waits = [start(engine, Request(PROMPT, sampling, name)) for name in ("tiny", "other", "")]
    assert [wait().text for wait in waits] == [plain.text, adapted.text, plain.text]


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_that_it_means_otherwise_are_refused(engine: LlamaCpp, name: str) -> None:
    with pytest.raises(RequestError) as refused:
        engine.start(Request(PROMPT, Sampling(**{name: 0.5})), lambda _: None)
    assert refused.value.where == name


def test_parts_of_characters_are_counted_though_their_tokens_are_not_told(
    engine: LlamaCpp,
) -> None:
    sampling = Sampling(max_tokens=40, temperature=5.0, seed=3)
    said = hear(engine, Request(PROMPT, sampling))
    (answer,) = engine.write([PROMPT], sampling)
    assert (said.text, len(said.tokens)) == (answer.text, 40)
    assert all(a in (-1, b) for a, b in zip(said.tokens, answer.tokens, strict=True))


def test_a_token_it_does_not_have_is_refused(engine: LlamaCpp) -> None:
    with pytest.raises(RequestError):
        engine.write([[4000]], Sampling(max_tokens=1))


def test_special_tokens_are_spelled_where_they_are_asked_for(engine: LlamaCpp) -> None:
    sampling = Sampling(max_tokens=2, logit_bias={1: 100.0})
    request = Request(PROMPT, sampling)
    assert hear(engine, request).text == ""
    kept = Request(PROMPT, sampling, keep=frozenset({1}))
    assert hear(engine, kept).text == "<|im_start|>" * 2


def test_a_model_without_template_only_continues_text(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "bare", template=None)
    bare = load_chat_model(folder, precision="fp32", device="cpu")
    write_gguf(bare, tmp_path / "bare.gguf", "f32")
    found = LlamaCpp(tmp_path / "bare.gguf", LlamaCppOptions(slots=1, longest=64))
    try:
        speech = found.models()["bare"]
        assert (speech.can_chat, speech.longest) == (False, 64)
        with pytest.raises(ModelError, match="no chat template"):
            speech.render([{"role": "user", "content": "hi"}], (), {})
        assert speech.encode("what is it?")
    finally:
        found.close()


def test_a_file_that_it_cannot_load_is_told_in_its_words(file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(EngineError, match="after it said") as caught:
        LlamaCpp(cut)
    assert "file bounds" in caught.value.message
    assert "line " not in caught.value.message, "of our code"
    assert caught.value.where == str(cut)


def test_keys_and_values_that_have_no_room_are_refused(file: Path) -> None:
    # 2 layers, keys and values of 2 heads of 16 numbers, 2 bytes each, 256 tokens: 64 KiB a slot
    with pytest.raises(ModelError, match=r"4194304 answers of 256 tokens take 256\.0 GiB"):
        LlamaCpp(file, LlamaCppOptions(slots=1 << 22))


def test_a_gguf_is_served_by_it_and_nothing_else_is(file: Path, tiny_model: Path) -> None:
    assert which_engine(str(file)) == "llama.cpp"
    assert which_engine(str(tiny_model)) == "own"
    for name, engine in ((file, "own"), (tiny_model, "llama.cpp"), (tiny_model, "other")):
        with pytest.raises(RequestError):
            which_engine(str(name), engine)
    with pytest.raises(RequestError, match="asks no other server"):
        choose_engine(str(tiny_model), Engines(url="http://127.0.0.1:1/v1"))
    with pytest.raises(RequestError, match="no remote server"):
        choose_engine("far", Engines("remote"))


def test_special_tokens_are_a_part_of_a_form(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "thinks")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.save_pretrained(str(folder))
    grown = AutoModelForCausalLM.from_pretrained(str(folder))
    grown.resize_token_embeddings(len(tokenizer))
    grown.save_pretrained(str(folder))
    write_gguf(load_chat_model(folder, precision="fp32", device="cpu"), tmp_path / "m.gguf", "f32")
    thinking = (Thinking("<think>", "</think>"), True)
    closing = int(tokenizer.convert_tokens_to_ids("</think>"))  # type: ignore[arg-type]
    engine = LlamaCpp(tmp_path / "m.gguf", LlamaCppOptions(slots=1, threads=1))
    with closing_of(engine):
        speech = engine.models()["m"]
        assert speech.manner.specials["</think>"] == closing
        outline = Outline(Wanted("regex", "[a-z]{3}", "x"), thinking=thinking)
        (form,) = speech.forms(outline, 1)
        sampling = Sampling(max_tokens=40, logit_bias={closing: 100.0})
        kept = frozenset(speech.manner.specials.values())
        said = hear(engine, Request(PROMPT, sampling, form=form, keep=kept))
    assert re.fullmatch(r"</think>\n{0,2}[a-z]{3}", said.text)
    assert said.finish == "stop"


def test_what_is_no_adapter_is_refused_before_anything_is_started(
    file: Path, tmp_path: Path
) -> None:
    for given, says in ((str(file), "a whole model"), (str(tmp_path), "no GGUF of an adapter")):
        with pytest.raises(ModelError, match=says):
            choose_engine(file, Engines(adapters={"other": given}))


def test_an_adapter_is_found_in_the_folder_of_its_export(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter.gguf")
    assert find_gguf_adapter(str(tmp_path)) == tmp_path / "adapter.gguf"


@pytest.mark.parametrize(
    ("kind", "told", "wanted"),
    [
        ("llama", {"bos_token_id": 1}, [1]),
        ("llama", {}, [1]),
        ("llama", {"bos_token_id": 1, "add_bos_token": False}, []),
        ("gpt-2", {"bos_token_id": 2}, []),
        ("gpt-2", {"bos_token_id": 2, "add_bos_token": True}, [2]),
        ("llama-bpe", {"bos_token_id": 2}, [2]),
        ("llama-bpe", {"bos_token_id": 2, "add_bos_token": False}, []),
    ],
)
def test_plain_texts_begin_as_llama_cpp_begins_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    told: dict[str, Any],
    wanted: list[int],
) -> None:
    monkeypatch.setattr("tunesmith.export.gguf.vocabulary._describe_special", lambda _: told)
    cut = sentencepiece(prefixed=True) if kind == "llama" else byte_level(kind)
    chat = make_chat(tmp_path / "m", cut, eos_token="</s>" if kind == "llama" else tiny.SPECIALS[0])
    write_gguf(chat, tmp_path / "m.gguf", "f32")
    with closing_of(LlamaCpp(tmp_path / "m.gguf", LlamaCppOptions(slots=1, threads=1))) as engine:
        assert engine.speech.opening == wanted


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("5,2", 5), ("", 0), ("0", 0), ("many", 0), (None, 0)]
)
def test_it_computes_with_as_many_threads_as_torch_would(
    file: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, threads: int
) -> None:
    def begin(*_: Any, told: str, **__: Any) -> None:
        raise EngineError(str(json.loads(told)["threads"]), hint="none")

    monkeypatch.setattr("tunesmith.inference.llama_cpp.Child", begin)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    with pytest.raises(EngineError, match=f"^{threads or num_cores()}$"):
        LlamaCpp(file)
