"""Whatever our own description allows, and much that it does not, is answered without a fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.generation.modes import GenerationMode

from tests.unit.serving import inside
from tests.unit.serving.running import Client
from tunesmith.serving.access import Access, Key, digest_of
from tunesmith.serving.guard import Guard

KEY = "ts-described"
FEW, MANY = 3, 300
OPEN = ("/health", "/ready")
LONGEST = 3
"""Tokens: what is checked is how requests are read."""


@pytest.fixture(scope="module")
def described(served_model: Path) -> Iterator[tuple[Client, Any]]:
    """A server with a key, and its description."""
    keys = (Key("all", digest_of(KEY), ("admin",)),)
    with inside.service(served_model) as service:
        guard = Guard(Access(lambda: keys), loopback=True)
        with inside.listening(service, guard) as client:
            yield client, schemathesis.openapi.from_url(f"{client.address}/openapi.json")


def shorten(case: Any) -> None:
    """Ask for short answers: how long they are is no matter of form."""
    if isinstance(case.body, dict):
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if isinstance(case.body.get(name), int):
                case.body[name] = min(case.body[name], LONGEST)
        if "messages" in case.body or "prompt" in case.body or "input" in case.body:
            field = "max_output_tokens" if "input" in case.body else "max_tokens"
            if case.operation.path in ("/v1/chat/completions", "/v1/responses", "/generate"):
                case.body.setdefault(field, LONGEST)
    if case.query and "prompt" in case.query and type(case.query.get("max_tokens", 0)) is int:
        case.query["max_tokens"] = LONGEST


def check_all(described: tuple[Client, Any], examples: int, key: str = KEY) -> None:
    load_all_checks()
    client, schema = described
    # a prompt longer than the model, or an option that its template lacks, fits the description
    left_out = {"positive_data_acceptance"}
    checks = [
        check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ not in left_out
    ]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    faults: list[BaseException] = []
    for result in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = result.ok().as_strategy(generation_mode=mode)
            try:
                run(strategy, examples, lambda case: call(case, client, headers, checks))
            except FailureGroup as found:
                faults += found.exceptions
    assert not faults, "\n\n".join(map(str, faults))


def call(case: Any, client: Client, headers: dict[str, str], checks: Any) -> None:
    shorten(case)
    if case.query:  # in an address every value is a text, so that one of a wrong type is none
        checks = [check for check in checks if check.__name__ != "negative_data_rejection"]
    reply = case.call_and_validate(
        base_url=client.address, headers=headers, checks=checks, timeout=30
    )
    if not headers:
        assert (reply.status_code == 401) == (case.operation.path not in OPEN)


def run(strategy: Any, examples: int, checked: Any) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def inner(data: Any) -> None:
        checked(data.draw(strategy))

    with suppress(Unsatisfiable):  # an address that takes nothing can be asked nothing odd
        inner()


def test_a_few_requests_to_every_address_meet_no_fault(described: tuple[Client, Any]) -> None:
    check_all(described, FEW)


def test_a_few_requests_without_a_key_meet_no_fault(described: tuple[Client, Any]) -> None:
    check_all(described, FEW, "")


@pytest.mark.proof
@pytest.mark.parametrize("key", [KEY, ""])
def test_many_requests_to_every_address_meet_no_fault(
    described: tuple[Client, Any], key: str
) -> None:
    check_all(described, MANY, key)
