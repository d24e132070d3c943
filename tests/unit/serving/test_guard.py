"""Who may ask, from where, and how much at once."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.unit.serving import inside
from tests.unit.serving.running import Client, Running, raw, start
from tunesmith.errors import RequestError
from tunesmith.paths import last_part
from tunesmith.serving.guard import Guard, is_loopback, read_key
from tunesmith.serving.serve import Address, Doors, find_access, serve

KEY = "correct-horse-battery-staple"
ROUTES = [
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/score"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny-chat"),
    ("GET", "/generate?prompt=hi"),
    ("POST", "/generate"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/redoc"),
    ("GET", "/docs/"),
    ("GET", "/static-offline-docs"),
    ("GET", "/static-offline-docs-too/x"),
    ("GET", "/nothing"),
    ("GET", "/health/"),
    ("GET", "//health"),
    ("OPTIONS", "/generate"),
]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key.txt"
    path.write_text(f"{KEY}\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def guarded(served_model: Path, key_file: Path) -> Iterator[Client]:
    """A server with a key, open to other machines."""
    doors = Doors(Address("0.0.0.0"), key_file)
    with inside.service(served_model) as service:
        guard = Guard(find_access(doors), loopback=False)
        with inside.listening(service, guard) as client:
            yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_address_but_health_and_the_docs_asks_for_the_key(
    guarded: Client, method: str, path: str
) -> None:
    reply = guarded.ask(method, path)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.error == {
        "message": "the key is missing or wrong",
        "where": "Authorization",
        "hint": "send the header `Authorization: Bearer KEY`",
        "type": "authentication_error",
        "param": "Authorization",
        "code": "invalid_api_key",
    }


def test_health_needs_no_key(guarded: Client) -> None:
    assert guarded.get("/health").json == {"status": "ok"}


def test_the_docs_open_in_a_browser_and_can_send_the_key(guarded: Client) -> None:
    page = guarded.get("/docs").body.decode("utf-8")
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert guarded.get(asset).status == 200, asset
    described = guarded.get("/openapi.json").json
    schemes = described["components"]["securitySchemes"]
    assert schemes == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    for path in ("/generate", "/v1/chat/completions"):
        assert described["paths"][path]["post"]["security"] == [{"HTTPBearer": []}]


@pytest.mark.parametrize("path", ["/static-offline-docs/../v1/models", "/docs/../v1/models"])
def test_no_way_through_the_docs_leads_past_the_key(guarded: Client, path: str) -> None:
    assert guarded.get(path).status in (401, 404)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Basic {KEY}",
        f"Token {KEY}",
        KEY,
        "Bearer",
        "Bearer ",
        "",
        f"Bearer Bearer {KEY}",
        "Bearer schl\u00fcssel",
    ],
)
def test_any_other_key_or_scheme_is_refused(guarded: Client, header: str) -> None:
    assert guarded.get("/v1/models", Authorization=header).status == 401


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {KEY} "])
def test_the_key_lets_in(guarded: Client, header: str) -> None:
    assert guarded.get("/v1/models", Authorization=header).status == 200


def test_openai_s_client_is_let_in_by_its_key_only(guarded: Client) -> None:
    for key, fine in ((KEY, True), ("wrong", False)):
        with openai.OpenAI(base_url=f"{guarded.address}/v1", api_key=key, max_retries=0) as client:
            if fine:
                assert client.models.list().data
            else:
                with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
                    client.models.list()


def test_a_server_for_others_may_be_called_by_any_name(guarded: Client) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Host": "models.example.com"}
    assert guarded.ask("GET", "/v1/models", headers=headers).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_server_for_others_needs_a_key_to_start(
    served_model: Path, host: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        serve(str(served_model), doors=Doors(Address(host, 0)))
    assert caught.value.message == f"at {host} others could use the model without a key"
    assert "--api-key-file" in caught.value.hint
    assert caught.value.where == "--host"


def test_a_start_that_is_refused_ends_in_three_lines_and_code_2(
    served_model: Path, tmp_path: Path
) -> None:
    process = start(served_model, tmp_path / "log.txt", "--host", "0.0.0.0")
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    lines = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "where", "hint"]


def test_a_port_that_is_taken_is_named(served_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"127.0.0.1:{port} cannot be used") as caught:
            serve(str(served_model), doors=Doors(Address(port=port)))
    assert caught.value.where == "--port"


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 70, "::2", "1:2:3"])
def test_a_host_that_this_machine_lacks_is_named(
    served_model: Path, key_file: Path, host: str
) -> None:
    with pytest.raises(RequestError, match="cannot be used") as caught:
        serve(str(served_model), doors=Doors(Address(host, 0), key_file))
    assert (caught.value.where, caught.value.hint) == ("--host", "name an address of this machine")


@pytest.mark.parametrize("content", ["", "  \n", "two words", "schl\u00fcssel", "two\nlines"])
def test_a_file_without_a_usable_key_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content, "utf-8")
    with pytest.raises(RequestError, match="no usable key") as caught:
        read_key(tmp_path / "key")
    assert caught.value.where == str(tmp_path / "key")


def test_a_key_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        read_key(tmp_path / "gone")
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "key", Path("~nosuchuser/key"), Path("x" * 300), Path("a\0b")):
        with pytest.raises(RequestError, match="cannot be read"):
            read_key(path)


HERE = ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:9", "127.1.2.3"]
ELSEWHERE = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example:80:127.0.0.1",
    "10.0.0.1",
    "0.0.0.0",
    "[::]",
    "",
    "localhost@evil.example",
    "127.0.0.1, evil.example",
]


@pytest.mark.parametrize("host", HERE)
def test_this_machine_may_be_called_by_its_names(server: Running, host: str) -> None:
    assert server.get("/v1/models", Host=host).status == 200


@pytest.mark.parametrize("host", ELSEWHERE)
def test_a_request_that_names_another_host_is_refused(server: Running, host: str) -> None:
    for path in ("/v1/models", "/health", "/generate?prompt=hi"):
        reply = server.get(path, Host=host)
        assert reply.status == 400
        assert reply.error["message"] == f"this server is not called {host!r}"
        assert (reply.error["where"], reply.error["hint"]) == ("Host", "ask for 127.0.0.1")


def test_a_request_without_a_host_is_refused(server: Running) -> None:
    assert raw(server, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1.evil.example:8000"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_other_sites_may_not_ask(server: Running, headers: dict[str, str]) -> None:
    reply = server.get("/generate?prompt=hi&max_tokens=1", **headers)
    assert reply.status == 403
    assert reply.error["message"] == "pages of other sites may not ask"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_pages_of_this_machine_may_ask_and_no_header_invites_others(
    server: Running, headers: dict[str, str]
) -> None:
    reply = server.get("/generate?prompt=hi&max_tokens=1", **headers)
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "\u0663"])
def test_a_length_that_is_no_number_is_refused(server: Running, length: str) -> None:
    request = (
        f"POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    assert raw(server, request.encode()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_a_header_of_a_megabyte_is_refused(server: Running) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n"
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        assert raw(server, request).startswith(b"HTTP/1.1 4")
    assert server.get("/health").status == 200


def test_addresses_of_this_machine_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com", "")))


def test_other_kinds_of_connection_pass_by(server: Running) -> None:
    """The start and end of the application are no requests."""
    scope: dict[str, Any] = {"type": "lifespan"}
    seen: list[object] = []

    async def app(*given: object) -> None:
        seen.extend(given)

    guard: Any = inside.OPEN.around(app, None)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        guard(scope, "receive", "send").send(None)
    assert seen == [scope, "receive", "send"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2026-01-01-0900-polite", "2026-01-01-0900-polite"),
        ("2026-01-01-0900-polite/step-000004", "step-000004"),
        ("Org/Name", "Name"),
        (".", "here"),
        ("../here/", "here"),
    ],
)
def test_models_are_served_under_the_last_part_of_their_name(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert last_part(name) == expected
