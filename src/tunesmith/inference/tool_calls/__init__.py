"""Calls of tools in the text of an answer, as each family of models writes them."""

from __future__ import annotations

from tunesmith.inference.tool_calls.find import find_tool_format, named_tool_format, read_calls
from tunesmith.inference.tool_calls.formats import FORMATS, ToolFormat
from tunesmith.inference.tool_calls.parser import ToolParser

__all__ = [
    "FORMATS",
    "ToolFormat",
    "ToolParser",
    "find_tool_format",
    "named_tool_format",
    "read_calls",
]
