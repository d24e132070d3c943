"""A tokenizer and a chat template for the tests of data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import tiny
from tunesmith.models.reader import Reader
from tunesmith.models.tokenizer import load_template, load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level tokenizer of 400 tokens and the chatml template."""
    folder = tmp_path_factory.mktemp("readers") / "chatml"
    tiny.make_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    return folder


@pytest.fixture(scope="session")
def reader(reader_folder: Path) -> Reader:
    """The tokenizer and template of that folder."""
    tokenizer = load_tokenizer(reader_folder)
    return Reader(reader_folder, tokenizer, load_template(reader_folder, tokenizer), ())
