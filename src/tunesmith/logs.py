"""The one place that decides how messages reach a person: a console and a log file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from rich.console import Console

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
console = Console()
errors_console = Console(stderr=True)


def logger(name: str) -> logging.Logger:
    """Return the logger of a module, by its `__name__`."""
    return logging.getLogger(name)


class _LogFile(logging.FileHandler):
    """A log file whose disk may be full: what is logged matters more than the log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  as logging calls it
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def write_log_to(path: Path) -> logging.Handler:
    """Also append every message of level INFO and up to `path`; return the handler to remove."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(min(root.level or logging.INFO, logging.INFO))
    return handler


def stop_writing(handler: logging.Handler) -> None:
    """Detach and close a handler that `write_log_to` returned."""
    logging.getLogger().removeHandler(handler)
    handler.close()
