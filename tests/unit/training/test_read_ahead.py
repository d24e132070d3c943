"""What is read ahead in another process waits for no thread of the one it was forked from."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.settings import forbid_network, tokenize_in_one_thread

TEXTS = ["question 3", "the quick brown fox"] * 8


def test_texts_are_tokenized_in_a_forked_process(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    forbid_network()
    tokenizer = load_tokenizer(tiny_model)
    expected = tokenizer(TEXTS)["input_ids"]  # by threads, which the other process has not
    loader = DataLoader(
        TEXTS,  # type: ignore[arg-type]
        batch_size=len(TEXTS),
        collate_fn=lambda texts: tokenizer(texts)["input_ids"],
        num_workers=1,
        timeout=60,
        worker_init_fn=tokenize_in_one_thread,
        multiprocessing_context="fork",
    )
    assert list(loader) == [expected]
