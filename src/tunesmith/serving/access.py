"""Which key may do what."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

Scope = Literal["chat", "embed", "score", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
USUAL: tuple[Scope, ...] = ("chat", "embed", "score")
"""What a key may do if nothing else is said."""
OPEN_PATHS = ("/health", "/ready", "/docs", "/openapi.json")
OPEN_FOLDER = "/static-offline-docs/"
"""What a browser loads for /docs, which asks for the key itself."""
NEEDED: dict[str, Scope] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "chat",
    "/v1/responses": "chat",
    "/generate": "chat",
    "/v1/embeddings": "embed",
    "/score": "score",
    "/metrics": "metrics",
    "/v1/load_lora_adapter": "admin",
    "/v1/unload_lora_adapter": "admin",
}
"""What a key must be allowed for; any key will do elsewhere."""


@dataclass(frozen=True)
class Key:
    """A key that clients may send.

    Attributes:
        digest: SHA-256 of it, in hexadecimal digits; a key of 256 random bits needs no slow hash.
        scopes: what it is for; `admin` is all.
        created: the day.
    """

    name: str
    digest: str
    scopes: tuple[Scope, ...]
    created: str = ""

    def may(self, path: str) -> bool:
        """Whether it opens an address."""
        needed = NEEDED.get(path)
        return needed is None or needed in self.scopes or "admin" in self.scopes


@dataclass(frozen=True)
class Access:
    """Who is let in.

    Attributes:
        keys: reads the keys that are good at this moment; None lets everybody in.
    """

    keys: Callable[[], Sequence[Key]] | None = None

    def find(self, header: str) -> Key | None:
        """Find the key that an Authorization header holds; every one is compared."""
        scheme, _, given = header.partition(" ")
        digest, found = digest_of(given.strip()), None
        for key in self.keys() if self.keys else ():
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found if scheme.lower() == "bearer" else None


def digest_of(key: str) -> str:
    """Return what is kept of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def is_open(path: str) -> bool:
    """Whether an address asks for no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
