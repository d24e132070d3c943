"""Answers that have the form that was asked for, token by token."""

from __future__ import annotations

from tunesmith.inference.structured.calls import Calling
from tunesmith.inference.structured.forms import Forms
from tunesmith.inference.structured.grammar import Outline
from tunesmith.inference.structured.wanted import Wanted

__all__ = ["Calling", "Forms", "Outline", "Wanted"]
