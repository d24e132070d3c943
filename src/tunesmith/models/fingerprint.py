"""Tell whether two folders hold the same model, by content and not by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WEIGHTS = ("*.safetensors", "config.json", "adapter_config.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "preprocessor_config.json",
)


def weights_sha256(folder: Path) -> str:
    """Hash config and weights of a model, about a second a GiB."""
    return _hash(folder, WEIGHTS)


def tokenizer_sha256(folder: Path) -> str:
    """Hash all files that decide how text becomes tokens."""
    return _hash(folder, TOKENIZER)


def weight_sums(model: torch.nn.Module) -> torch.Tensor:
    """Add up the bits of each weight, read as whole numbers: far quicker than a hash, [weights]."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [
        weight.detach().view(whole[weight.element_size()]).sum(dtype=torch.int64)
        for weight in model.parameters()
    ]
    return torch.stack(sums).cpu()


def file_sha256(path: Path) -> str:
    """Hash one file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(folder: Path, patterns: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
