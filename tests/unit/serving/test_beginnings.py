"""Plain texts begin for a model as they began in training: as its tokenizer begins them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient  # noqa: TC002  fixtures are read at run time
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.unit.serving import inside

BEGINNING = "<|im_start|>"
TEXT = "what is it?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer puts a token before each text, as Llama's do."""
    folder = tmp_path_factory.mktemp("begun") / "begun"
    tiny.make_model(folder, "llama", seed=3, template=None, initializer_range=0.2)
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    first = (BEGINNING, tokenizer.token_to_id(BEGINNING))
    tokenizer.post_processor = TemplateProcessing(single=f"{BEGINNING} $A", special_tokens=[first])
    tokenizer.save(file)
    tiny.change_json(folder / "tokenizer_config.json", bos_token=BEGINNING)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with inside.service(folder) as service, inside.asking(service) as found:
        yield found


def asked(client: TestClient, path: str, **body: Any) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_prompt_is_tokenized_as_transformers_does(client: TestClient, folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    whole, bare = theirs(TEXT).input_ids, theirs(TEXT, add_special_tokens=False).input_ids
    assert whole[1:] == bare
    assert asked(client, "/tokenize", prompt=TEXT)["tokens"] == whole
    assert asked(client, "/tokenize", prompt=BEGINNING + TEXT)["tokens"] == whole
    without = asked(client, "/tokenize", prompt=TEXT, add_special_tokens=False)
    assert without["tokens"] == bare


@pytest.mark.parametrize("path", ["/v1/completions", "/generate"])
def test_a_prompt_is_continued_as_transformers_does(
    client: TestClient, folder: Path, path: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer(TEXT, return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]
    wanted = tokenizer.decode(ids[prompt.input_ids.shape[1] :], skip_special_tokens=True)
    told = asked(client, path, prompt=TEXT, max_tokens=8)
    assert told.get("text", "") + told.get("choices", [{"text": ""}])[0]["text"] == wanted
    assert told["usage"]["prompt_tokens"] == prompt.input_ids.shape[1]


def test_texts_are_embedded_with_their_beginning(client: TestClient, folder: Path) -> None:
    ids = AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    text, tokens = (
        asked(client, "/v1/embeddings", input=given)["data"][0]["embedding"]
        for given in (TEXT, ids)
    )
    assert text == tokens
