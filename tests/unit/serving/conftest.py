"""One server for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests import tiny
from tests.unit.serving import watching
from tests.unit.serving.accepted import Theirs
from tests.unit.serving.running import Running, serving
from tests.unit.serving.watching import Watch


@pytest.fixture(scope="package")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes on for long: random weights, and room for many tokens."""
    folder = tmp_path_factory.mktemp("served") / "tiny-chat"
    return tiny.make_model(folder, seed=3, max_position_embeddings=20_000)


@pytest.fixture(scope="package")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """What the server of this folder opens, and whom it asks."""
    return Watch(tmp_path_factory.mktemp("watch"))


@pytest.fixture(scope="package")
def server(
    served_model: Path, watch: Watch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server without a key on this machine."""
    log = tmp_path_factory.mktemp("log") / "server.txt"
    environment = {**watch.environment(), **watching.SECRETS}
    with serving(served_model, log, "--precision", "fp32", environment=environment) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, which shows every failure at once."""
    with openai.OpenAI(
        base_url=f"{server.address}/v1", api_key="unused", max_retries=0, timeout=60
    ) as found:
        yield found


@pytest.fixture(scope="package")
def theirs(server: Running) -> Theirs:
    """Where the acceptance tests ask: here, or at the server that the environment names."""
    address = os.environ.get("TUNESMITH_OPENAI_URL", f"{server.address}/v1")
    return Theirs(
        openai.OpenAI(
            base_url=address,
            api_key=os.environ.get("TUNESMITH_OPENAI_KEY", "unused"),
            max_retries=0,
            timeout=120,
        ),
        os.environ.get("TUNESMITH_OPENAI_MODEL", server.model),
    )
