"""Keys are shown once, kept as hashes, good for what they were made for, and taken back at once."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.command import Command
from tests.unit.serving import inside
from tests.unit.serving.running import Client
from tunesmith.errors import RequestError
from tunesmith.serving.access import SCOPES, Access
from tunesmith.serving.guard import Guard
from tunesmith.serving.keys import KeyStore
from tunesmith.serving.request_log import RequestLog
from tunesmith.serving.serve import Address, Doors, find_access

CHAT = "/v1/chat/completions"
SHORT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    CHAT: ("chat", SHORT),
    "/v1/completions": ("chat", {"prompt": "hi", "max_tokens": 1}),
    "/v1/responses": ("chat", {"input": "hi", "max_output_tokens": 1}),
    "/generate": ("chat", {"prompt": "hi", "max_tokens": 1}),
    "/v1/embeddings": ("embed", {"input": "hi"}),
    "/v1/load_lora_adapter": ("admin", {"lora_name": "a", "lora_path": "nowhere"}),
    "/v1/unload_lora_adapter": ("admin", {"lora_name": "a"}),
}


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "config")


@pytest.fixture(scope="module")
def keyed(
    served_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, KeyStore, Path]]:
    """A server whose keys come from a store, and its log."""
    folder = tmp_path_factory.mktemp("keyed")
    store, path = KeyStore(folder), folder / "log.txt"
    store.create("first", ["chat"])
    with inside.service(served_model) as service, path.open("w", encoding="utf-8") as file:
        guard = Guard(Access(store.keys), loopback=False)
        with inside.listening(service, guard, RequestLog(to=file)) as client:
            yield client, store, path


def status(client: Client, path: str, body: object, key: str) -> int:
    return client.post(path, body, Authorization=f"Bearer {key}").status


def test_only_the_hash_is_kept_and_only_its_owner_reads_it(store: KeyStore) -> None:
    key = store.create("team", ["embed", "chat"])
    assert re.fullmatch(r"ts-[\w-]{43}", key)
    content = store.path.read_text("utf-8")
    assert key not in content
    assert json.loads(content)["keys"][0]["digest"] == sha256(key.encode()).hexdigest()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    (kept,) = store.keys()
    assert (kept.name, kept.scopes) == ("team", ("chat", "embed"))
    assert store.create("other", ["chat"]) != key


@pytest.mark.parametrize(
    ("name", "scopes", "told"),
    [
        ("team", ["chat"], "a key team already"),
        ("../x", ["chat"], "cannot be called"),
        ("", ["chat"], "cannot be called"),
        ("a b", ["chat"], "cannot be called"),
        ("new", ["root"], "no scope 'root'"),
        ("new", [""], "no scope ''"),
    ],
)
def test_strange_names_and_scopes_are_refused(
    store: KeyStore, name: str, scopes: list[str], told: str
) -> None:
    store.create("team", ["chat"])
    with pytest.raises(RequestError, match=told) as caught:
        store.create(name, scopes)
    assert caught.value.hint


def test_a_key_that_is_not_there_cannot_be_revoked(store: KeyStore) -> None:
    store.create("team", ["chat"])
    with pytest.raises(RequestError, match="no key other") as caught:
        store.revoke("other")
    assert caught.value.hint == "there are: team"


@pytest.mark.parametrize("content", ["{", "[]", '{"keys": [{"name": 5}]}', '{"other": 1}'])
def test_a_damaged_file_lets_nobody_in_and_says_so(
    store: KeyStore, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = store.create("team", ["chat"])
    assert Access(store.keys).find(f"Bearer {key}")
    store.path.write_text(content, "utf-8")
    assert Access(store.keys).find(f"Bearer {key}") is None
    assert "cannot be read" in caplog.text
    with pytest.raises(RequestError, match="cannot be read"):
        store.create("new", ["chat"])
    assert store.path.read_text("utf-8") == content


def test_a_folder_that_cannot_hold_keys_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(RequestError, match="the keys cannot be changed") as caught:
            KeyStore(folder).create("team", ["chat"])
        assert caught.value.where == str(folder / "keys.json")
    monkeypatch.setattr("tunesmith.serving.keys.SECONDS_TO_WAIT", 0)
    (tmp_path / "config").mkdir()
    with (
        FileLock(tmp_path / "config" / ".keys.json.lock"),
        pytest.raises(RequestError, match="by another process"),
    ):
        KeyStore(tmp_path / "config").create("team", ["chat"])


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_it_was_made_for(keyed: tuple[Client, KeyStore, Path], scope: str) -> None:
    client, store, _ = keyed
    key = store.create(f"for-{scope}", [scope])
    for path, (needed, body) in BODIES.items():
        found = status(client, path, body, key)
        assert (found == 403) == (scope not in (needed, "admin")), path
        assert found != 401
    reply = client.get("/metrics", Authorization=f"Bearer {key}")
    assert (reply.status == 200) == (scope in ("metrics", "admin"))
    assert client.get("/v1/models", Authorization=f"Bearer {key}").status == 200
    refused = client.post("/v1/embeddings", {"input": "hi"}, Authorization=f"Bearer {key}")
    if scope not in ("embed", "admin"):
        assert refused.error["hint"].endswith("tunesmith keys create NAME --scope embed")
        assert refused.error["type"] == "permission_error"


def test_a_revoked_key_opens_nothing_from_the_next_request_on(
    keyed: tuple[Client, KeyStore, Path],
) -> None:
    client, store, _ = keyed
    key = store.create("leaving", ["chat"])
    assert status(client, CHAT, SHORT, key) == 200
    store.revoke("leaving")
    assert status(client, CHAT, SHORT, key) == 401
    for form in (f"bearer {key}", f"Bearer  {key}"):
        assert client.get("/v1/models", Authorization=form).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": "{key}"},
        {"Api-Key": "{key}"},
        {"Cookie": "key={key}"},
        {"Authorization": "Basic {key}"},
        {"Authorization": "{key}"},
        {"Authorization": "Bearer {key}x"},
        {"Proxy-Authorization": "Bearer {key}"},
    ],
)
def test_a_key_counts_in_one_form_only(
    keyed: tuple[Client, KeyStore, Path], headers: dict[str, str]
) -> None:
    client, store, _ = keyed
    key = store.create(f"form-{len(store.keys())}", ["admin"])
    spelled = {name: value.format(key=key) for name, value in headers.items()}
    assert client.ask("GET", "/v1/models", headers=spelled).status == 401
    assert client.get(f"/v1/models?api_key={key}").status == 401


def test_no_secret_is_in_the_log_or_in_any_answer(keyed: tuple[Client, KeyStore, Path]) -> None:
    client, store, log = keyed
    key, canary = store.create("logged", ["chat"]), "my-secret-canary"
    good = {"Authorization": f"Bearer {key}"}
    seen = b""
    for headers in ({"Authorization": f"Bearer {canary}"}, {**good, "X-Other": canary}):
        for path in (CHAT, f"/{canary}", f"/v1/models?key={canary}", "/v1/responses"):
            reply = client.post(path, {**SHORT, "user": canary}, **headers)
            seen += b"" if path == f"/{canary}" else reply.body
    asked = {**SHORT, "messages": [{"role": "user", "content": canary}], "logit_bias": {"1": 900}}
    seen += client.post(CHAT, asked, **good).body
    client.get("/v1/models", **good, **{"X-Request-Id": f"{canary} with blanks"})
    said = log.read_text("utf-8")
    for secret in (key, canary):
        assert secret not in said
        assert secret.encode() not in seen
    assert '"key":"logged"' in said


def test_the_command_line_makes_lists_and_takes_back(command: Command, tmp_path: Path) -> None:
    made = command("keys", "create", "team", "--scope", "chat, metrics")
    assert made.code == 0
    key = made.out.strip()
    assert key.startswith("ts-")
    listed = command("keys", "list")
    assert "team" in listed.out
    assert "chat, metrics" in listed.out
    assert key not in listed.out + listed.err
    assert Access(KeyStore(tmp_path / "config").keys).find(f"Bearer {key}")
    assert command("keys", "revoke", "team").code == 0
    assert not KeyStore(tmp_path / "config").keys()


def test_keys_of_the_store_are_asked_for_unless_the_server_is_open(tmp_path: Path) -> None:
    here, anywhere = Address(), Address("0.0.0.0")
    assert find_access(Doors(here)).keys is None
    with pytest.raises(RequestError, match="without a key"):
        find_access(Doors(anywhere))
    key = KeyStore(tmp_path / "config").create("team", ["chat"])
    for address in (here, anywhere):
        assert find_access(Doors(address)).find(f"Bearer {key}")
    assert find_access(Doors(here, is_open=True)).keys is None
    for doors in (Doors(anywhere, is_open=True), Doors(here, tmp_path / "key", is_open=True)):
        with pytest.raises(RequestError, match="--open asks for no key"):
            find_access(doors)
