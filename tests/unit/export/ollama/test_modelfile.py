"""Modelfiles are written so that they read as what was meant, and read as strictly as Ollama."""

from __future__ import annotations

import pytest

from tunesmith.errors import ExportError
from tunesmith.export.ollama.modelfile import Command, read_modelfile, write_modelfile

WHOLE = [
    Command("FROM", "./model.gguf"),
    Command(
        "TEMPLATE", '{{ range .Messages }}\n"{{ .Content }}" \n{{ end }}<|im_start|>assistant\n'
    ),
    Command("SYSTEM", "Answer in one line.\nBe kind. 你好"),
    Command("PARAMETER", 4096, "num_ctx"),
    Command("PARAMETER", 0.6, "temperature"),
    Command("PARAMETER", True, "use_mmap"),
    Command("PARAMETER", "<|im_end|>", "stop"),
    Command("PARAMETER", "\n\n", "stop"),
    Command("MESSAGE", "Good morning, all", "user"),
]


def test_what_is_written_is_read_as_it_was_meant() -> None:
    assert read_modelfile(write_modelfile(WHOLE)) == WHOLE


def test_a_file_is_written_as_people_write_it() -> None:
    text = write_modelfile([WHOLE[0], WHOLE[3], WHOLE[6]])
    assert text == 'FROM ./model.gguf\nPARAMETER num_ctx 4096\nPARAMETER stop "<|im_end|>"\n'


def test_comments_blank_lines_and_small_letters_are_read() -> None:
    text = "# made by hand\n\nfrom ./model.gguf\nparameter temperature 1\nSYSTEM Be kind.  \n"
    assert read_modelfile(text) == [
        Command("FROM", "./model.gguf"),
        Command("PARAMETER", 1.0, "temperature"),
        Command("SYSTEM", "Be kind."),
    ]


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("PARAMETER num_ctx 5\n", "there is no FROM", 1),
        ("FROM a\nPARAMETER heat 1\n", "there is no parameter heat", 2),
        ("FROM a\nPARAMETER num_ctx 4.5\n", "num_ctx is of the kind int", 2),
        ("FROM a\nPARAMETER temperature warm\n", "temperature is of the kind float", 2),
        ("FROM a\nPARAMETER use_mmap yes\n", "use_mmap is of the kind bool", 2),
        ("FROM a\nMESSAGE tool hi\n", "and not by tool", 2),
        ("FROM a\nSAY hi\n", "there is no command SAY", 2),
        ('FROM a\nSYSTEM """\nhi\n', "a quoted text is not closed", 2),
        ("FROM a\nFROM b\n", "FROM stands there twice", 2),
        ("FROM\n", "FROM lacks a value", 1),
    ],
)
def test_what_ollama_would_refuse_is_refused(text: str, says: str, line: int) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        read_modelfile(text)
    assert caught.value.where == f"Modelfile:{line}"


@pytest.mark.parametrize("text", ['say """ and', 'it is "kind"', '"quoted'])
def test_what_cannot_be_quoted_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match="cannot hold this text"):
        write_modelfile([Command("SYSTEM", text)])
