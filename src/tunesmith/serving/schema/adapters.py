"""Bodies of /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM takes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.serving.schema.sampling import Body

Name = Annotated[str, Field(pattern=r"^[\w.:-]{1,64}$")]


class LoadRequest(Body):
    """A run or a folder that holds an adapter, and the name that it is to answer to."""

    lora_name: Name
    lora_path: Annotated[str, Field(min_length=1, max_length=1024)]


class UnloadRequest(Body):
    """An adapter that is not to answer any longer."""

    lora_name: Name
    lora_int_id: int | None = None
    """What vLLM calls it; the name says it all."""
