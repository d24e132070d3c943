"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from tunesmith.errors import RequestError
from tunesmith.serving.routes.state import PLAIN
from tunesmith.serving.schema.adapters import LoadRequest, UnloadRequest
from tunesmith.serving.service import Service

SECONDS_TO_LOAD = 300


def add_adapters(app: APIRouter, service: Service) -> None:
    """Let an application take and drop adapters while it answers."""

    @app.post("/v1/load_lora_adapter", response_model=None, responses=PLAIN)
    async def load(body: LoadRequest) -> PlainTextResponse:
        """Let another adapter over the same base answer."""
        if not service.engine.takes_adapters:
            raise RequestError(
                "this server's engine takes no adapters while it answers",
                hint="name them where it is started, with --adapter, or choose another --engine",
                where="lora_path",
            )
        if body.lora_name in service.names():
            raise RequestError(
                f"there is a model {body.lora_name!r} already",
                hint="take another name, or unload it first",
                where="lora_name",
            )
        await service.work(
            "adapters",
            lambda: service.engine.add(
                body.lora_name, service.workspace.find_adapter(body.lora_path)
            ),
            SECONDS_TO_LOAD,
            "lora_path",
        )
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter", response_model=None, responses=PLAIN)
    async def unload(body: UnloadRequest) -> PlainTextResponse:
        """Let an adapter answer no further request; those it answers now are finished."""
        name = service.full_name(body.lora_name)
        if name == service.name:
            raise service.unknown(body.lora_name)
        await service.work(
            "adapters",
            lambda: service.engine.remove(name),
            SECONDS_TO_LOAD,
            "lora_name",
        )
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")
