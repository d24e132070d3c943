"""Run the command line in this process, as `tunesmith ...` would."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from tunesmith.cli import main
from tunesmith.logs import console


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


class Command:
    """Calls the command line and catches what it prints."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Outcome:
        """Run a command to its end."""
        self._monkeypatch.setattr(sys, "argv", ["tunesmith", *map(str, arguments)])
        self._monkeypatch.setattr(console, "_width", 200)
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)
