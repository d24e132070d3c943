"""What is served, and whether it can be asked."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse

from tunesmith import __version__
from tunesmith.serving.metrics import Metrics
from tunesmith.serving.queue import Queue


def add_alive(app: APIRouter, queue: Queue) -> None:
    """Let an application tell how it is, whoever asks."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Say whether requests are answered."""
        queue.check_ready()
        return {"status": "ready"}

    for path, told in (("/health", health), ("/ready", ready)):
        app.add_api_route(path, told, methods=["HEAD"], include_in_schema=False)


def add_state(app: APIRouter, queue: Queue) -> None:
    """Let an application tell what it is."""
    born = int(time.time())

    @app.get("/version")
    async def version() -> dict[str, str]:
        """Tell tunesmith's version."""
        return {"version": __version__}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the models."""
        entries = [model_entry(name, born) for name in queue.names()]
        return {"object": "list", "data": entries}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe a model."""
        return model_entry(queue.full_name(name), born)


PLAIN: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}


def add_metrics(app: APIRouter, metrics: Metrics) -> None:
    """Let an application tell its figures."""

    @app.get("/metrics", response_model=None, responses=PLAIN)
    async def figures() -> PlainTextResponse:
        """Tell figures as Prometheus reads them."""
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def model_entry(name: str, born: int) -> dict[str, Any]:
    """Describe a model as OpenAI's clients read it."""
    return {"id": name, "object": "model", "created": born, "owned_by": "tunesmith"}
