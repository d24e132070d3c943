"""A model in the batching engine, and vocabularies to hold to forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.asking import load
from tests.vocabularies import KINDS, Vocabulary, make_vocabulary
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.structured import Forms
from tunesmith.models.chat import ChatModel


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model that never ends by itself."""
    return replace(load(tmp_path_factory.mktemp("models") / "one", "qwen3"), stop_ids=())


@pytest.fixture
def engine(one: ChatModel) -> Iterator[BatchingEngine]:
    """It, answering many at once."""
    made = BatchingEngine(one, rows=8, memory=0.05)
    yield made
    made.close()


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Vocabulary:
    """A vocabulary of each kind."""
    return make_vocabulary(request.param, tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def forms(tokenizer: Vocabulary) -> Forms:
    """What makes forms of it."""
    return Forms(tokenizer, [int(tokenizer.eos_token_id or 0)])
