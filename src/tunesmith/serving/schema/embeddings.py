"""Body of /v1/embeddings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.serving.schema.completions import Texts, parted
from tunesmith.serving.schema.sampling import Body, Words


class EmbeddingRequest(Body):
    """Body of /v1/embeddings."""

    input: Texts
    model: Words | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: Words | None = None

    def texts(self) -> list[str | list[int]]:
        """Return what is to be embedded, each a text or tokens."""
        return parted(self.input)
