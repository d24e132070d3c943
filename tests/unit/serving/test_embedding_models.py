"""Embedding models make the points that sentence-transformers would make, and write nothing."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from tests import tiny
from tests.command import Command
from tests.unit.serving import inside
from tunesmith.errors import ModelError, RequestError
from tunesmith.inference.choose import Engines, choose_engine
from tunesmith.serving.answers import Answering, open_answers

TEXTS = ["what is it?", "the quick brown fox <|im_end|> jumps", "你好"]
FIRST, LAST = "<|im_start|>", "<|endoftext|>"


def make_embedder(folder: Path, shape: str, **pooling: Any) -> Path:
    """Write a model with the files that sentence-transformers writes beside it."""
    if shape == "bert":
        tiny.make_tokenizer(folder, template=None)
        torch.manual_seed(5)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        config = BertConfig(
            vocab_size=400, num_attention_heads=4, max_position_embeddings=64, **sizes
        )
        BertModel(config, add_pooling_layer=False).save_pretrained(str(folder))
    else:
        tiny.make_model(folder, shape, seed=5, template=None)
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{FIRST} $A {LAST}",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in (FIRST, LAST)],
    )
    tokenizer.save(file)
    kind = "sentence_transformers.models."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{kind}Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kind}Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40}', "utf-8")
    return folder


def points(folder: Path, kind: str) -> torch.Tensor:
    """What transformers makes of the texts in one padded batch, pooled by their mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    # as text, though it spells a special token
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt", split_special_tokens=True)
    with torch.no_grad():
        states = model(**{name: batch[name] for name in ("input_ids", "attention_mask")})[0]
    mask = batch["attention_mask"][..., None].float()
    ends = batch["attention_mask"].sum(1) - 1
    pooled = {
        "mean": (states * mask).sum(1) / mask.sum(1),
        "cls": states[:, 0],
        "lasttoken": states[torch.arange(len(TEXTS)), ends],
    }
    return torch.nn.functional.normalize(pooled[kind], dim=-1)


@pytest.mark.parametrize(
    ("shape", "kind", "pooling"),
    [
        ("bert", "mean", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}),
        ("bert", "cls", {"pooling_mode": "cls"}),
        ("qwen3", "lasttoken", {"pooling_mode_lasttoken": True, "include_prompt": True}),
    ],
)
def test_points_are_pooled_as_the_folder_says(
    tmp_path: Path, shape: str, kind: str, pooling: dict[str, Any]
) -> None:
    folder = make_embedder(tmp_path / "points", shape, **pooling)
    service = open_answers(str(folder), Answering(precision="fp32"))
    with closing(service), inside.asking(service) as client:
        reply = client.post("/v1/embeddings", json={"input": TEXTS}).json()
        long = client.post("/v1/embeddings", json={"input": "a b c d e f g h " * 40})
        chat = client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}
        )
        whole, bare = (
            client.post("/tokenize", json={"prompt": TEXTS[0], "add_special_tokens": added})
            for added in (True, False)
        )
    first, last = whole.json()["tokens"][0], whole.json()["tokens"][-1]
    assert whole.json()["tokens"] == [first, *bare.json()["tokens"], last]
    told = torch.tensor([each["embedding"] for each in reply["data"]])
    assert torch.allclose(told, points(folder, kind), atol=1e-5)
    assert (long.status_code, "40" in long.json()["error"]["message"]) == (400, True)
    assert chat.json()["error"]["hint"] == "ask /v1/embeddings"
    assert reply["model"] == "points"


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_max_tokens": True}, {}, {"pooling_mode": ["cls", "mean"]}]
)
def test_points_that_are_made_otherwise_are_refused(
    tmp_path: Path, pooling: dict[str, Any]
) -> None:
    folder = make_embedder(tmp_path / "points", "bert", **pooling)
    with pytest.raises(ModelError, match="points are made by"):
        choose_engine(folder, Engines())


def test_options_of_answers_mean_nothing_to_it(tmp_path: Path, command: Command) -> None:
    folder = make_embedder(tmp_path / "points", "bert", pooling_mode="mean")
    with pytest.raises(RequestError, match="writes no answers"):
        choose_engine(folder, Engines(rows=3))
    ran = command("serve", str(folder), "--print-client", "curl")
    assert (ran.code, "/v1/embeddings" in ran.err) == (2, True)
    assert command("serve", folder, "--engine", "generate", "--print-client", "curl").code == 0
