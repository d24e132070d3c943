"""Look at installed packages, by their metadata alone."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import tunesmith
from tunesmith.doctor.findings import Finding, State

ROOT = Path(tunesmith.__file__).parents[2]
LOCK, PROJECT = ROOT / "constraints.txt", ROOT / "pyproject.toml"
"""Stand in a checkout, whose metadata may be older; an installed wheel has its metadata alone."""


def look_at_packages() -> Iterator[Finding]:
    """Compare what is installed with what we need and, in a checkout, with the lock."""
    yield Finding("packages", "tunesmith", tunesmith.__version__)
    locked = _read_lock()
    for extra, line in _needed():
        if extra not in ("dev", "docs"):
            wanted = Requirement(line)
            yield _look_at(wanted, extra, locked.get(_spell(wanted.name)))


def _needed() -> Iterator[tuple[str, str]]:
    """List what is needed, each with the extra that asks for it; empty where we always do."""
    if not PROJECT.is_file():
        for line in requires("tunesmith") or ():
            named = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
            yield (named[1] if named else "", line)
        return
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        yield from ((extra, line) for line in lines)


def _look_at(wanted: Requirement, extra: str, locked: str | None) -> Finding:
    part = f"extra {extra}" if extra else "packages"
    install = f"pip install 'tunesmith[{extra}]'" if extra else f"pip install '{wanted.name}'"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        state: State = "absent" if extra else "broken"
        return Finding(part, wanted.name, "not installed", state, install)
    if not wanted.specifier.contains(found, prereleases=True):
        hint = f"pip install '{wanted.name}{wanted.specifier}'"
        return Finding(part, wanted.name, f"{found}, needed {wanted.specifier}", "broken", hint)
    plain = found.partition("+")[0]  # what follows names the build
    beside = f", tested with {locked}" if locked and locked != plain else ""
    return Finding(part, wanted.name, f"{found}{beside}")


def _read_lock() -> dict[str, str]:
    if not LOCK.is_file():
        return {}
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {_spell(name): number for name, number in pairs}


def _spell(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
