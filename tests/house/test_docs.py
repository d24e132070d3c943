"""The pages of the docs are built offline, and the generated ones say what the code says."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.mark.parametrize(
    ("page", "writer"),
    [
        ("recipe.md", "recipe_page"),
        ("commands.md", "commands_page"),
        ("llamafactory.md", "llamafactory_page"),
    ],
)
def test_the_reference_is_what_the_code_says(page: str, writer: str) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))
    assert (REFERENCE / page).read_text("utf-8") == tool[writer](), "run `make docs`"


def test_the_matrix_is_what_the_proofs_found() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "make_matrix.py"))
    assert (REFERENCE / "matrix.md").read_text("utf-8") == tool["matrix_page"](), "run `make docs`"


def test_every_command_has_its_place_in_the_reference() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))
    helped = subprocess.run(
        [sys.executable, "-m", "tunesmith", "--help"], capture_output=True, text=True
    ).stdout
    listed = re.findall(r"^  (\w+) +\S", helped.partition("Commands:")[2], re.MULTILINE)
    assert set(listed) == {command.split()[0] for command in tool["COMMANDS"]}


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONWARNINGS": "ignore"},
    )
    assert built.returncode == 0, built.stderr
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="([^"]+)"', page.read_text("utf-8")
        )
        assert not [address for address in loaded if "//" in address], page


def test_links_inside_the_readmes_lead_somewhere() -> None:
    for name in ("README.md", "README.zh.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text("utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{name}: {target}"
