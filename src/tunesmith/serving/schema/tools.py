"""Tools that an answer may or must call."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.errors import RequestError
from tunesmith.serving.limits import MAX_TOOLS
from tunesmith.serving.schema.sampling import Body, JsonObject, Words


class Function(Body):
    """What a model may call."""

    name: Words
    description: Words | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool that a model may use."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """Which function."""

    name: Words


class NamedTool(Body):
    """A tool that must be called."""

    type: Literal["function"]
    function: FunctionName


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool


class ToolOptions(Body):
    """What may or must be called."""

    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    def offered(self) -> list[dict[str, Any]]:
        """Return the tools that may be called, as chat templates take them.

        Raises:
            RequestError: if one must be called, or several may, and there are none.
        """
        tools = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        if not tools and self.parallel_tool_calls is not None:
            raise RequestError(
                "parallel_tool_calls has no effect without tools",
                hint="leave it out, or send some tools",
                where="parallel_tool_calls",
            )
        if not tools and self.tool_choice not in (None, "none", "auto"):
            raise RequestError(
                "there is no tool to call", hint="send some tools", where="tool_choice"
            )
        return [] if self.tool_choice == "none" else tools

    def called(self) -> list[dict[str, Any]] | None:
        """Return the tools of which one must be called; None if none must.

        Raises:
            RequestError: if it is not among them.
        """
        tools, choice = self.offered(), self.tool_choice
        if choice == "required":
            return tools
        if not isinstance(choice, NamedTool):
            return None
        name = choice.function.name
        named = [tool for tool in tools if tool["function"]["name"] == name]
        if not named:
            raise RequestError(
                f"there is no tool {name!r}",
                hint=f"there are: {', '.join(tool['function']['name'] for tool in tools)}",
                where="tool_choice.function.name",
            )
        return named

    @property
    def one_call(self) -> bool:
        """Whether an answer may call only once."""
        return self.parallel_tool_calls is False or isinstance(self.tool_choice, NamedTool)
