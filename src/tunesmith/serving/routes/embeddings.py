"""POST /v1/embeddings."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tunesmith.errors import RequestError
from tunesmith.serving.note import note_of
from tunesmith.serving.replies.events import answered
from tunesmith.serving.schema.embeddings import EmbeddingRequest
from tunesmith.serving.service import Service, check_tokens

SECONDS_TO_EMBED = 120


def add_embeddings(app: APIRouter, service: Service) -> None:
    """Let an application turn texts into points."""

    @app.post("/v1/embeddings", response_model=None)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Return a point of each text, of length one.

        The mean of the model's last hidden states, or what an embedding model's folder says.
        """
        return await answered(_embed(body, request, service), request)


async def _embed(body: EmbeddingRequest, request: Request, service: Service) -> dict[str, Any]:
    note, speaker = note_of(request.scope), service.find(body.model)
    service.enter(note, speaker.name)
    prompts: list[list[int]] = []
    for place, text in enumerate(body.texts()):
        if isinstance(text, str):
            prompts.append(await service.encode(speaker, text, f"input.{place}"))
        else:
            check_tokens(speaker.speech, text, f"input.{place}")
            prompts.append(text)
    note.prompt_tokens = sum(map(len, prompts))
    points = await service.work(
        "embeddings",
        lambda: service.engine.embed(prompts, speaker.model),
        SECONDS_TO_EMBED,
        "input",
    )
    spell = _as_floats if body.encoding_format != "base64" else _as_base64
    data = [
        {"object": "embedding", "index": index, "embedding": spell(_cut(point, body.dimensions))}
        for index, point in enumerate(points)
    ]
    counts = {"prompt_tokens": note.prompt_tokens, "total_tokens": note.prompt_tokens}
    return {"object": "list", "data": data, "model": speaker.name, "usage": counts}


def _cut(point: Sequence[float], dimensions: int | None) -> list[float]:
    """Keep the first dimensions and scale to length one.

    Raises:
        RequestError: if there are not so many.
    """
    if dimensions is not None and dimensions > len(point):
        raise RequestError(
            f"the model's embeddings have {len(point)} dimensions, not {dimensions}",
            hint="ask for fewer",
            where="dimensions",
        )
    kept = point[:dimensions]
    length = math.sqrt(sum(value * value for value in kept)) or 1.0
    return [value / length for value in kept]


def _as_floats(point: list[float]) -> list[float]:
    return point


def _as_base64(point: list[float]) -> str:
    """Spell it as numbers of 32 bits, little end first."""
    return base64.b64encode(struct.pack(f"<{len(point)}f", *point)).decode()
