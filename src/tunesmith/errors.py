"""Errors a person can act on: what is wrong, where, and what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class TunesmithError(Exception):
    """Base of every error we expect a person to mend.

    Args:
        message: what is wrong, one line.
        hint: what to do about it, one line.
        where: the file, line, option or address that is wrong; empty if there is none.
    """

    def __init__(self, message: str, *, hint: str, where: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.where = message, hint, where


class RecipeError(TunesmithError):
    """The recipe cannot be run as written."""


class DataError(TunesmithError):
    """A data file or a row of it cannot be used."""


class ModelError(TunesmithError):
    """A model, tokenizer or adapter folder cannot be used."""


class RunError(TunesmithError):
    """A run directory is missing, damaged, busy or cannot go on."""


class TrainingError(TunesmithError):
    """Training had to stop before its end."""


class ExportError(TunesmithError):
    """An export was refused; nothing was published."""


class RequestError(TunesmithError):
    """A request to the server cannot be answered; the message is safe to send back."""


class EngineError(TunesmithError):
    """An engine cannot be started, or does not answer as it should."""


class NoOdds(EngineError):
    """What a model expects next is not a number."""


class MissingPackage(TunesmithError):
    """An optional package is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency where it is used.

    Raises:
        MissingPackage: naming the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise MissingPackage(
            f"the package {missing.name} is not installed",
            hint=f"pip install 'tunesmith[{extra}]'",
        ) from None
