"""The jinja dialect of chat templates, in a sandbox.

What transformers offers to templates is offered here too, so that any model's template renders to
the same text: `raise_exception`, `strftime_now`, `tojson` without escapes, loop controls, and
`{% generation %}` around what the assistant says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import Template as Compiled
from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser  # noqa: TC002  as the other imports of jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.errors import ModelError
from tunesmith.templates.breaks import MARK_END, MARK_START

GIVEN = {"messages", "add_generation_prompt", "tools", "documents"}


class GenerationMarks(Extension):
    """Put marks around each `{% generation %}` block of the output."""

    tags = {"generation"}  # noqa: RUF012  jinja2 reads it as a plain class attribute

    def parse(self, parser: Parser) -> nodes.Node:
        """Turn the block into a call that gets its rendered body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return MARK_START + caller() + MARK_END


def compile_template(source: str, name: str) -> Compiled:
    """Compile a template's source.

    Raises:
        ModelError: naming the line at which it stops being jinja.
    """
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as problem:
        raise ModelError(
            f"the chat template is not valid jinja: {problem.message}",
            hint="mend it, or name another one with model.template",
            where=f"{name}:{problem.lineno}",
        ) from None


def read_names(source: str) -> set[str]:
    """Return what a template can be told by name, besides what every template is told."""
    environment = _environment()
    names = meta.find_undeclared_variables(environment.parse(source))
    return names - GIVEN - environment.globals.keys()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationMarks, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)
