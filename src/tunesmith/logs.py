"""The one place that decides how messages reach a person: a console and a log file."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
console = Console()
errors_console = Console(stderr=True)


def logger(name: str) -> logging.Logger:
    """Return the logger of a module, by its `__name__`."""
    return logging.getLogger(name)


def hush() -> None:
    """Keep packages from regretting aloud what they do not have; call before their import.

    transformers and PEFT import bitsandbytes and torchao wherever they are installed.
    """
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logger(name).setLevel(logging.ERROR)
    # What was quantized looks like another layer to PEFT, and comes out right.
    warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")


@contextmanager
def without_word_of(name: str) -> Iterator[None]:
    """Let the logger of a library say nothing for a while."""
    theirs = logging.getLogger(name)
    before, theirs.disabled = theirs.disabled, True
    try:
        yield
    finally:
        theirs.disabled = before


class _LogFile(logging.FileHandler):
    """A log file whose disk may be full: what is logged matters more than the log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  as logging calls it
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class _Screen(logging.Handler):
    """Our own messages for the person who waits; errors are told by whoever catches them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.addFilter(lambda record: record.name.startswith("tunesmith"))
        self.addFilter(lambda record: record.levelno < logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        if not (console.is_terminal and "has_bar" in vars(record)):
            style = "yellow" if record.levelno >= logging.WARNING else ""
            console.print(Text(record.getMessage(), style=style))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def telling(log_file: Path | None = None) -> Iterator[None]:
    """Tell the person at the console what our modules log while the block runs.

    Args:
        log_file: a file that holds all of it; nothing is told where that is the console.
    """
    if log_file is not None and _is_stdout(log_file):
        yield
        return
    with _attached(_Screen()):
        yield


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    except (OSError, ValueError):
        return False


@contextmanager
def remembering() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged while there is no run to write it to."""
    handler = _Kept()
    with _attached(handler):
        yield handler.records


@contextmanager
def writing_log_to(path: Path, before: Iterable[logging.LogRecord] = ()) -> Iterator[None]:
    """Append every message of level INFO and up to `path`, beginning with those of `before`."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    for record in before:
        handler.handle(record)
    with _attached(handler):
        yield


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
