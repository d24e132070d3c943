"""The recipes and the commands that we show people run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.command import Command
from tunesmith.recipe.load import load_recipe
from tunesmith.training.train import train

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]


def write_data(folder: Path, wanted: str, method: str) -> None:
    """Write a file of an example's name that holds a few rows of the right kind."""
    start = 100 if "held" in wanted else 0
    texts = [{"text": f"the quick brown fox {n}"} for n in range(start, start + 20)]
    path = folder / Path(wanted).name
    if path.suffix == ".txt":
        path.write_text("\n".join(row["text"] for row in texts), "utf-8")
    elif method == "pretrain":
        tiny.write_rows(path, texts)
    elif method == "classify":
        tiny.write_rows(path, [{**row, "label": at % 2} for at, row in enumerate(texts)])
    else:
        tiny.write_pairs(path, 20, start)


def sources(recipe: dict[str, object], part: str) -> list[str]:
    given = recipe["data"].get(part, [])  # type: ignore[attr-defined]
    return [item if isinstance(item, str) else item["path"] for item in given]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_at_tiny_size(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    raw = yaml.safe_load(path.read_text("utf-8"))
    method = raw.get("method", {"name": "sft"})["name"]
    for part in ("train", "validation"):
        for wanted in sources(raw, part):
            write_data(tmp_path, wanted if "." in wanted else f"{wanted}.jsonl", method)
    info = {"faq": {"file_name": "faq.jsonl"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info), "utf-8")
    shutil.copy(ROOT / "examples" / "rewards.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"build/starter/corpus/", "", path.read_text("utf-8"))
    copied = tmp_path / "example.yaml"
    copied.write_text(text, "utf-8")
    run = train(
        load_recipe(
            copied,
            [
                f"model.name={tiny_model}",
                "run.epochs=null",
                "run.steps=2",
                "run.save_every_steps=0",
                "run.log_every_steps=1",
                "data.max_tokens=64",
                "optimizer.early_stopping=0",
                "compute.threads=1",
                *(["data.validation_rows=4"] if "validation_rows" in raw["data"] else []),
            ],
        )
    )
    assert run.status().state == "done"
    assert len([record for record in run.metrics() if "loss" in record]) == 2


def commands(readme: Path) -> list[str]:
    """List the commands of a README's sh blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def rows(readme: Path) -> str:
    (block,) = re.findall(
        r"^```json\n(.*?)^```", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(block)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_commands_of_the_readme_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, readme: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(rows(readme), "utf-8")
    monkeypatch.setattr("builtins.input", lambda _: "/quit")
    ran = []
    for line in commands(readme):
        program, *arguments = shlex.split(line)
        assert program == "tunesmith"
        if arguments[0] == "serve":
            check_that_it_serves(arguments)
        elif "--detach" in arguments:
            assert command(*arguments).code == 0, line
            command("runs", "stop", "second", "--wait", "60")
        else:
            outcome = command(*arguments)
            assert outcome.code == 0, f"{line}\n{outcome.err}"
        ran.append(arguments[0])
    assert {"data", "recipe", "train", "runs", "evaluate", "chat", "export", "serve"} <= set(ran)


def check_that_it_serves(arguments: list[str]) -> None:
    arguments = ["0" if part == "8000" else part for part in arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "tunesmith", *arguments], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("serving ")
        process.send_signal(signal.SIGINT)


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = map(commands, READMES)
    assert english == chinese
