"""Conversation to text, the way a model's own chat template writes it; never tokenizes."""

from __future__ import annotations

from tunesmith.templates.breaks import BREAK, PLACES, Breaker, has_reserved
from tunesmith.templates.named import named_template
from tunesmith.templates.pieces import Piece
from tunesmith.templates.template import Template, build_template

__all__ = [
    "BREAK",
    "PLACES",
    "Breaker",
    "Piece",
    "Template",
    "build_template",
    "has_reserved",
    "named_template",
]
