"""Let llama.cpp score what a model made on the spot would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny
from tunesmith.export.gguf.ask import Questions, ask
from tunesmith.export.gguf.write import write_gguf
from tunesmith.models.chat import ChatModel, load_chat_model


def make_loud(folder: Path, /, **options: Any) -> ChatModel:
    """Make a model of which every part is heard: large weights, and norms that are not one."""
    tiny.make_tokenizer(folder)
    given = {**tiny.COMMON, "vocab_size": 400, "num_key_value_heads": 2, "num_hidden_layers": 3}
    given |= options
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(7)
            else:
                weights.add_(torch.randn_like(weights) * 0.2)
    model.save_pretrained(str(folder))
    return load_chat_model(folder, precision="fp32", device="cpu")


def draw_tokens(count: int) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 400, (count,), generator=generator).tolist()


def score_theirs(chat: ChatModel, path: Path, tokens: list[int], packing: str = "f32") -> Any:
    """Return llama.cpp's log-probabilities of all tokens after the first four, [seq, vocab]."""
    write_gguf(chat, path, packing)
    return score_file(chat, path, tokens)


def score_file(
    chat: ChatModel, path: Path, tokens: list[int], adapter: Path | None = None
) -> torch.Tensor:
    heard = ask(path, Questions(pairs=[(tokens[:4], tokens[4:])]), chat.tokenizer, adapter)
    found = torch.full((len(tokens) - 4, 400), float("nan"))
    for row, place in enumerate(heard.likeliest[0]):
        found[row, place.ids] = torch.tensor(place.logprobs)
    return found


def score_ours(model: Any, tokens: list[int]) -> torch.Tensor:
    """Return the log-probabilities that transformers gives."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0]
    return torch.log_softmax(logits.float(), -1)[3:-1]


def largest_difference(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    """Return how far apart the likeliest tokens' log-probabilities are."""
    heard = theirs.isfinite()
    assert heard.sum(1).min() >= 200
    return float((theirs - ours)[heard].abs().max())
