"""Compare what servers write with what transformers writes, and tell near-ties from differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NEAR = 1e-4
"""Nats between the two likeliest tokens below which either is right in f32."""
UNFINISHED = "\ufffd"
ROWS = 32


def write_expected(folder: Path, tokens: int) -> list[dict[str, Any]]:
    """Let transformers answer the questions, once; note how near each choice was.

    Returns:
        for each question the text after each token, and the nats between the two likeliest.
    """
    path = folder / f"expected-{tokens}.json"
    if not path.exists():
        path.write_text(json.dumps(_write(folder, tokens)), "utf-8")
    expected: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return expected


def _write(folder: Path, tokens: int) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    prompts = torch.tensor(json.loads((folder / "prompts.json").read_text("utf-8")))
    return [
        row for some in prompts.split(ROWS) for row in _write_some(model, tokenizer, some, tokens)
    ]


def _write_some(model: Any, tokenizer: Any, prompts: Any, tokens: int) -> list[dict[str, Any]]:
    import torch

    with torch.no_grad():
        told = model.generate(
            prompts,
            max_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    best = torch.stack(told.logits).topk(2, dim=-1).values  # [steps, prompts, 2]
    gaps = (best[..., 0] - best[..., 1]).T.tolist()
    written = told.sequences[:, prompts.shape[1] :].tolist()
    return [
        {
            "texts": [
                plain(tokenizer.decode(row[:end], skip_special_tokens=True))  # no server shows them
                for end in range(1, len(row) + 1)
            ],
            "gaps": gap,
        }
        for row, gap in zip(written, gaps, strict=True)
    ]


def plain(text: str) -> str:
    """Leave out what stands for halves of characters, which servers spell in several ways."""
    return text.replace(UNFINISHED, "")


def compare(texts: list[str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    """Count answers that are those of transformers, and tell of the others where they part."""
    found: dict[str, Any] = {"identical": 0, "near_ties": [], "different": []}
    for text, known in zip(texts, expected, strict=False):
        if plain(text) == known["texts"][-1]:
            found["identical"] += 1
            continue
        gap = known["gaps"][_parts_at(plain(text), known["texts"])]
        found["near_ties" if gap < NEAR else "different"].append(gap)
    return found


def _parts_at(text: str, texts: list[str]) -> int:
    """Find the first token after which a text is another one."""
    return next((at for at, known in enumerate(texts) if not text.startswith(known)), -1)
