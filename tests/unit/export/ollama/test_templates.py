"""Templates for Ollama say what the tokenizer's do, and Go renders them as we do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.export.ollama.families import SOURCES
from tunesmith.errors import ExportError
from tunesmith.export.ollama.choose import choose_template, read_templates
from tunesmith.export.ollama.conversations import TALKS, as_ollama
from tunesmith.export.ollama.go_template import render_go
from tunesmith.starter import MODEL
from tunesmith.templates import named_template

GOLDEN = Path(__file__).parents[3] / "golden" / "ollama"
OURS = {
    "chatml": (MODEL / "chat_template.jinja").read_text("utf-8"),
    "chatml-tools": named_template("chatml"),
    "alpaca": named_template("alpaca"),
}


class Opening:
    """What is asked of a tokenizer that opens each text."""

    bos_token, eos_token, bos_token_id, eos_token_id = "<s>", "</s>", 1, 2
    special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}  # noqa: RUF012

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [1, 5] if add_special_tokens else [5]}


def chat_with(source: str) -> Any:
    return SimpleNamespace(template=SimpleNamespace(source=source, name="x"), tokenizer=Opening())


@pytest.mark.parametrize(("name", "source"), [*SOURCES.items(), *OURS.items()])
def test_each_family_has_a_template_that_says_the_same(name: str, source: str) -> None:
    wanted = read_templates()[name].replace("%eos%", Opening.eos_token)
    assert choose_template(chat_with(source)) == wanted


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("qwen3", "<think>\\n\\n</think>", "<think>\\n</think>"),
        ("qwen3", "<tool_response>", "<tool_result>"),
        ("qwen2.5", "helpful", "careful"),
        ("llama3", "<|eot_id|>", "<|eom_id|>"),
        ("gemma", 'content + "\\n\\n"', 'content + "\\n"'),
        ("glm4", '|>\\n" + message', '|> " + message'),
        ("mistral-v3", "first and loop.last", "first and loop.first"),
    ],
)
def test_a_template_that_says_something_else_has_none(name: str, old: str, new: str) -> None:
    source = SOURCES[name]
    assert old in source
    chosen = choose_template(chat_with(source.replace(old, new)))
    assert chosen != read_templates()[name]
    assert chosen is None


def test_a_model_without_a_template_has_none() -> None:
    assert choose_template(SimpleNamespace(template=None)) is None  # type: ignore[arg-type]


def test_json_is_written_as_go_writes_it() -> None:
    text = render_go("{{ range .Tools }}{{ . }}{{ end }}", as_ollama(TALKS[5]))
    assert text.startswith('{"type":"function","function":{"name":"weather",')
    assert render_go("{{ json .System }}", {"System": "<a> & b"}) == r'"\u003ca\u003e \u0026 b"'


def render_all() -> dict[str, list[str]]:
    return {
        name: [render_go(source, as_ollama(talk)) for talk in TALKS]
        for name, source in read_templates().items()
    }


def hashes_of(rendered: dict[str, list[str]]) -> dict[str, list[str]]:
    return {
        name: [sha256(text.encode()).hexdigest()[:16] for text in texts]
        for name, texts in rendered.items()
    }


def test_our_renderer_writes_what_go_wrote() -> None:
    golden = json.loads((GOLDEN / "rendered.json").read_text("utf-8"))
    assert hashes_of(render_all()) == golden


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_itself_writes_the_same(tmp_path: Path) -> None:
    tasks = [
        {"Template": source, "Data": as_ollama(talk)}
        for source in read_templates().values()
        for talk in TALKS
    ]
    ran = subprocess.run(
        ["go", "run", str(GOLDEN / "main.go")],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        env={**os.environ, "GOCACHE": str(tmp_path), "GOPROXY": "off", "GO111MODULE": "off"},
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    ours = render_all()
    for place, name in enumerate(ours):
        theirs = found[place * len(TALKS) : (place + 1) * len(TALKS)]
        assert theirs == ours[name], name


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ if .System }}a", "if is not closed"),
        ("{{ end }}", "closes nothing"),
        ("{{ .System", "an action is not closed"),
        ("{{ .Nothing }}", "there is no Nothing"),
        ("{{ shout .System }}", "there is no function shout"),
        ("{{ $x }}", "was never declared"),
        ("{{ .System ) }}", "cannot be read"),
        ('{{ template "x" }}', "template is not read here"),
    ],
)
def test_what_is_no_template_is_refused(source: str, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        render_go(source, {"System": "a"})
