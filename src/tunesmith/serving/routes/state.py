"""What is served, and whether it can be asked."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from tunesmith import __version__
from tunesmith.serving.metrics import Metrics
from tunesmith.serving.service import Service, Stopping


def add_state(app: FastAPI, service: Service) -> None:
    """Let an application tell how it is."""
    born = int(time.time())

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Say whether requests are taken."""
        if service.stopping:
            raise Stopping("the server stops", hint="ask another one, or later")
        return {"status": "ready"}

    @app.get("/version")
    async def version() -> dict[str, str]:
        """Tell tunesmith's version."""
        return {"version": __version__}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the models."""
        entries = [model_entry(speaker.name, born) for speaker in service.speakers()]
        return {"object": "list", "data": entries}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe a model."""
        return model_entry(service.find(name).name, born)


def add_metrics(app: FastAPI, metrics: Metrics) -> None:
    """Let an application tell its figures."""

    @app.get("/metrics", response_model=None)
    async def figures() -> Response:
        """Tell figures as Prometheus reads them."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def model_entry(name: str, born: int) -> dict[str, Any]:
    """Describe a model as OpenAI's clients read it."""
    return {"id": name, "object": "model", "created": born, "owned_by": "tunesmith"}
