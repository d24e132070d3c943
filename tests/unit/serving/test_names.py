"""Whatever clients write where a name or an address belongs, nothing else is opened or asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving import watching
from tests.unit.serving.running import Running, raw, serving
from tests.unit.serving.watching import Watch, strange
from tunesmith.serving.workspace import find_workspace

CHAT = "/v1/chat/completions"
CANARY = "the-canary-outside"
TRAVERSALS = [
    "..",
    "../..",
    "../../../../../../../../etc/passwd",
    "/etc",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "./../../etc",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%c0%af..%c0%afetc/passwd",
    "....//....//....//etc/passwd",
    "..\\..\\..\\windows\\win.ini",
    "C:\\Windows\\win.ini",
    "C:/Windows/win.ini",
    "C:secret",
    "\\\\host\\share\\adapter",
    "//host/share/adapter",
    "\\\\?\\C:\\secret",
    "config.json::$DATA",
    "adapter:stream",
    "nul",
    "adapter\0/etc/passwd",
    "\0",
    "~",
    "~root",
    "~root/.ssh",
    "$HOME/.ssh",
    "file:///etc/passwd",
    "\uff0e\uff0e/\uff0e\uff0e/etc/passwd",
    "\u2025/\u2025/etc/passwd",
    "x" * 1000,
    "models--../../etc",
]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside those of the server, whose adapter is nobody's business."""
    folder = tmp_path_factory.mktemp("outside")
    for name in ("adapter_config.json", "config.json", "recipe.yaml", "adapter_model.safetensors"):
        (folder / name).write_text(json.dumps({CANARY: 1}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def names(served_model: Path, outside: Path) -> Iterator[list[str]]:
    """What must lead nowhere: outside, and links out of the server's own folders."""
    link, holder = served_model.parent / "link", served_model.parent / "holder"
    link.symlink_to(outside)
    holder.mkdir()
    for path in outside.iterdir():
        (holder / path.name).symlink_to(path)
    circle = served_model.parent / "circle"
    circle.symlink_to(circle)
    up = f"{served_model.parent}/../{outside.name}"
    yield [*TRAVERSALS, str(outside), up, str(link), f"{link}/.", str(holder), str(circle)]
    link.unlink()
    circle.unlink()
    shutil.rmtree(holder)


def send_everywhere(server: Running, name: str) -> list[tuple[int, bytes]]:
    """Write a name wherever one belongs; return what was answered."""
    text = [{"role": "user", "content": "hi"}]
    spelled = name.replace("\0", "%00").encode("utf-8")
    tool = {"type": "function", "function": {"name": name, "parameters": {"$ref": name}}}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/load_lora_adapter", {"lora_name": "odd", "lora_path": name}),
        ("/v1/load_lora_adapter", {"lora_name": name, "lora_path": name}),
        ("/v1/unload_lora_adapter", {"lora_name": name}),
        (CHAT, {"messages": text, "model": name}),
        (CHAT, {"messages": text, "tools": [{**tool, "function": {**tool["function"]}}]}),
        (CHAT, {"messages": text, "guided_json": {"$ref": name}}),
        (CHAT, {"messages": text, "guided_grammar": f'%import {name}\nstart: "a"'}),
        ("/v1/completions", {"prompt": "hi", "model": name}),
        ("/v1/embeddings", {"input": "hi", "model": name}),
        ("/v1/responses", {"input": "hi", "model": name, "previous_response_id": name}),
        ("/tokenize", {"prompt": "hi", "model": name}),
        ("/generate", {"prompt": "hi", "model": name}),
    ]
    said = []
    for path, body in bodies:
        limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
        asks = path in (CHAT, "/v1/completions", "/generate", "/v1/responses")
        reply = server.post(path, {**body, limit: 1} if asks else body)
        said.append((reply.status, reply.body))
    for place in (b"/v1/models/", b"/static-offline-docs/", b"/", b"/docs?file="):
        target = place + b"".join(
            b"%%%02x" % byte if byte > 126 or byte < 33 else bytes([byte]) for byte in spelled
        )
        request = b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        answer = raw(server, request + b"X-Request-Id: ../../x\r\n\r\n")
        said.append((int(answer.split(b" ", 2)[1]), answer))
    return said


def refuse_all(server: Running, names: list[str]) -> None:
    for name in names:
        for status, answer in send_everywhere(server, name):
            assert status < 500, (name, answer)
            assert b"root:" not in answer, name
            assert CANARY.encode() not in answer, name
        reply = server.post("/v1/load_lora_adapter", {"lora_name": "odd", "lora_path": name})
        assert 400 <= reply.status < 500, name
        assert reply.error["hint"]
        assert "it holds" not in reply.error["hint"], "what else lies there is nobody's business"


def test_no_name_leads_out_of_the_workspace(
    server: Running, watch: Watch, served_model: Path, names: list[str]
) -> None:
    since = watch.length()
    refuse_all(server, names)
    opened = watch.opened(since)
    assert opened, "the hook notes what is opened"
    assert not strange(opened, served_model.parent)
    assert not watch.asked(since)


ADDRESSES = [
    "http://127.0.0.1:9/a.png",
    "http://localhost:9/a.png",
    "http://10.0.0.1/a.png",
    "http://192.168.1.1/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://[::1]:9/a.png",
    "http://[::ffff:127.0.0.1]:9/a.png",
    "http://[fe80::1%25eth0]/a.png",
    "http://0x7f000001/a.png",
    "http://2130706433/a.png",
    "http://127.1/a.png",
    "http://0/a.png",
    "http://127.0.0.1.nip.io/a.png",
    "http://user@127.0.0.1:9/a.png",
    "http://example.com#@127.0.0.1/a.png",
    "https://example.com/redirect?to=http://127.0.0.1:9/",
    "ftp://127.0.0.1/a.png",
    "gopher://127.0.0.1:9/_x",
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "jar:file:///etc/passwd!/x",
    "\\\\host\\share\\a.png",
    "//example.com/a.png",
    "/etc/passwd",
    "data:text/html,<img src=http://127.0.0.1:9/>",
    "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4=",
    "data:application/pdf;base64,JVBERi0=",
    "data:,http://127.0.0.1:9/",
    "data:image/png;base64,http://127.0.0.1:9/",
    " http://127.0.0.1:9/a.png",
    "h\tttp://127.0.0.1:9/a.png",
    "http:\\\\127.0.0.1:9\\a.png",
    "blob:http://127.0.0.1:9/x",
    "",
]


def show(address: str) -> list[tuple[str, dict[str, Any]]]:
    """Write an address wherever clients of OpenAI may write one."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "image_url", "image_url": address},
        {"type": "video_url", "video_url": {"url": address}},
        {"type": "audio_url", "audio_url": {"url": address}},
        {"type": "input_audio", "input_audio": {"data": address, "format": "wav"}},
        {"type": "input_image", "image_url": address},
        {"type": "image", "image": address},
        {"type": "video", "video": [address]},
        {"type": "file", "file": {"file_data": address, "file_id": address}},
    ]
    bodies = [(CHAT, {"messages": [{"role": "user", "content": [part]}]}) for part in parts]
    items = [
        {"type": "input_image", "image_url": address, "detail": "auto"},
        {"type": "input_file", "file_url": address},
        {"type": "input_audio", "input_audio": {"data": address, "format": "mp3"}},
    ]
    bodies += [("/v1/responses", {"input": [{"role": "user", "content": [one]}]}) for one in items]
    tool = {"type": "mcp", "server_label": "x", "server_url": address}
    return [*bodies, ("/v1/responses", {"input": "hi", "tools": [tool]})]


def refuse_addresses(server: Running) -> None:
    for address in ADDRESSES:
        for path, body in show(address):
            reply = server.post(path, body)
            assert 400 <= reply.status < 500, (path, body, reply.body)
            assert reply.error["hint"]
            assert b"root:" not in reply.body


def test_no_address_is_asked_for_a_client(server: Running, watch: Watch) -> None:
    since = watch.length()
    refuse_addresses(server)
    assert not watch.asked(since)
    assert not strange(watch.opened(since))


@pytest.mark.proof
def test_strace_sees_no_file_opened_and_no_address_asked_for_a_client(
    served_model: Path, names: list[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.txt"
    with serving(served_model, tmp_path / "log.txt", before=watching.traced(trace)) as server:
        server.post(CHAT, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
        since = trace.stat().st_size
        refuse_all(server, names)
        refuse_addresses(server)
    seen = trace.read_bytes()[since:].decode("utf-8", "replace")
    opened = [Path(name) for name in watching.OPENED.findall(seen)]
    assert not strange(opened, served_model.parent)
    assert not watching.ASKED.findall(seen)


def test_an_adapter_within_reach_is_found_by_its_run_its_folder_and_a_link_inside(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(outside, tmp_path / "mine")
    (tmp_path / "alias").symlink_to("mine")
    workspace = find_workspace()
    for name in ("mine", str(tmp_path / "mine"), "./mine/../mine", "alias"):
        assert workspace.find_adapter(name) == str((tmp_path / "mine").resolve())


def test_the_root_of_the_disk_is_no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert Path("/") not in find_workspace().roots
