"""What the project says of itself is true."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tunesmith import __version__
from tunesmith.methods import METHODS
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules import check_rules
from tunesmith.recipe.schema import describe_section, list_options

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HELP_SECONDS = 0.3
MAX_FIELDS = 25


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def cpu_seconds(*command: str) -> float:
    """Measure the CPU time of a command, the least of five."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
        for _ in range(5)
    ]
    return min(float(run.stdout) for run in runs)


def test_imports_point_down_the_pipeline() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([str(lint)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_command_line_imports_no_torch() -> None:
    heavy = ("torch", "transformers", "peft", "numpy", "pyarrow", "fastapi")
    code = f"import sys, tunesmith.cli; print([n for n in {heavy} if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_help_answers_at_once() -> None:
    bare = cpu_seconds(sys.executable, "-c", "pass")
    helped = cpu_seconds(sys.executable, "-m", "tunesmith", "--help")
    assert helped - bare < HELP_SECONDS


def test_every_option_is_documented() -> None:
    for option in list_options():
        assert option.help.endswith((".", "?")), option.dotted


def test_sections_stay_small() -> None:
    for section in Recipe.model_fields:
        for kind in describe_section(section):  # as a person sees it who has chosen one
            options = [option for option in list_options() if option.section == section]
            names = {o.name for o in options if o.choice is None or kind in o.choice}
            assert len(names) <= MAX_FIELDS, kind


def test_every_method_has_a_section_a_class_and_a_page() -> None:
    assert set(METHODS) == set(describe_section("method"))
    for name in METHODS:
        assert (ROOT / "docs" / "concepts" / f"{name}.md").is_file(), name


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=str)
def test_examples_are_sound(path: Path) -> None:
    check_rules(load_recipe(path))


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_locks_and_constraints_agree_and_every_file_has_a_hash() -> None:
    lock = (ROOT / "locks" / "packages.txt").read_text("utf-8")
    torch = (ROOT / "locks" / "torch.sha256").read_text("utf-8").splitlines()
    (version,) = {re.fullmatch(r"[0-9a-f]{64}  torch-([\d.]+)[-+]\S+\.whl", t)[1] for t in torch}  # type: ignore[index]
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    locked = {*re.findall(r"^(\S+==\S+)", lock, re.MULTILINE), f"torch=={version}"}
    assert locked == {line for line in constraints if not line.startswith("#")}
    assert f"torch=={version}" in (ROOT / "Makefile").read_text("utf-8")
    for block in re.split(r"\n(?=[a-z])", lock):
        assert block.startswith("#") or "--hash=sha256:" in block, block


def test_floors_of_known_vulnerabilities_are_kept() -> None:
    versions = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    floors = {"transformers": (5, 10), "torch": (2, 11), "datasets": (5, 2), "pyyaml": (5, 4)}
    floors |= {"starlette": (0, 49), "jinja2": (3, 1), "orjson": (3, 11)}
    for name, floor in floors.items():
        assert tuple(map(int, versions[name].split(".")[:2])) >= floor, name


def test_every_dependency_has_a_decision_record() -> None:
    records = "\n".join(
        path.read_text("utf-8") for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))
    )
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *extras["optim"], *extras["serve"]]
    for line in needed:
        name = re.split(r"[<>=\[]", line)[0]
        assert f"`{name}`" in records, name


def test_the_repository_names_no_path_of_a_machine() -> None:
    banned = ("/wo" + "rk/", "/ro" + "ot/", "/op" + "t/")
    for path in tracked():
        if path.suffix in (".safetensors", ".png"):
            continue
        text = path.read_text("utf-8", errors="replace")
        assert not any(word in text for word in banned), path
