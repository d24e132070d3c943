"""What is printed after an export can be typed as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tunesmith.cli.show_export import next_step
from tunesmith.export.order import Exported
from tunesmith.export.parity import Distance

FOLDER = Path("/exports/Our Model (1)")


@pytest.mark.parametrize(
    ("form", "last"),
    [
        ("safetensors", FOLDER),
        ("gguf", FOLDER / "model.gguf"),
        ("gguf-adapter", FOLDER / "adapter.gguf"),
        ("ollama", FOLDER / "Modelfile"),
    ],
)
def test_a_path_with_blanks_is_one_word(form: str, last: Path) -> None:
    words = shlex.split(_command(form, FOLDER))
    assert words[-1] == str(last)


@pytest.mark.parametrize("name", ["Our Model (1)", "_first", "\u6a21\u578b"])
def test_the_name_for_ollama_is_one_that_it_takes(name: str) -> None:
    word = shlex.split(_command("ollama", Path("/exports", name)))[2]
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", word)


def _command(form: str, folder: Path) -> str:
    return next_step(Exported(folder, "fp32", 1, 1, 0, Distance(1, 0.0, 1.0, 0.0), form=form))[1]
