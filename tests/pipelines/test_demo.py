"""The whole way on what ships in the package, with the network cut off."""

from __future__ import annotations

import http.server
import json
import os
import re
import resource
import threading
import time
from pathlib import Path

import pytest

from tests.offline import can_cut_off, run_offline
from tunesmith import starter
from tunesmith.demo.demo import ask
from tunesmith.errors import TunesmithError
from tunesmith.runs.store import open_run

SECONDS = 180
GIB = 2.0


@pytest.mark.skipif(not can_cut_off(), reason="this system makes no network namespaces")
def test_the_demo_goes_all_the_way_without_a_network(tmp_path: Path) -> None:
    started = time.monotonic()
    demo = run_offline(tmp_path, "-m", "tunesmith", "demo")
    seconds = time.monotonic() - started
    print(f"the demo took {seconds:.0f} s")
    assert demo.code == 0, demo.out
    assert demo.outside() == []
    assert any("127.0.0.1" in line for line in demo.connections)
    for step in ("1 of 4", "2 of 4", "3 of 4", "4 of 4", "Next"):
        assert step in demo.out
    run = open_run("conch")
    scores = json.loads(run.scores_file.read_text("utf-8"))
    assert scores["tuned"]["fact_rate"] >= 0.8
    assert scores["base"]["fact_rate"] < scores["tuned"]["fact_rate"]
    assert (run.exported / "parity.json").is_file()
    answered = re.search(r"> What number should I dial\?\n\s+(.*)", demo.out)
    assert answered
    assert "555-0142" in answered[1]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    assert peak < GIB
    if os.environ.get("TUNESMITH_TIMED"):
        assert seconds < SECONDS


class Fake(http.server.BaseHTTPRequestHandler):
    """A server that answers as ours does, without a model."""

    def do_GET(self) -> None:
        self.reply({"object": "list", "data": [{"id": "m", "object": "model", "created": 0}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "555"}
        self.reply({"id": "c", "choices": [{"index": 0, "message": message}]})

    def reply(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_demo_asks_its_server_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Fake) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert ask(f"http://127.0.0.1:{server.server_port}", "what number?") == "555"
        finally:
            server.shutdown()


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(TunesmithError, match="the server did not answer") as caught:
        ask("http://127.0.0.1:9", "what number?")
    assert caught.value.where == "http://127.0.0.1:9"
    assert "tunesmith serve" in caught.value.hint


def test_the_sample_data_is_what_it_promises() -> None:
    for language in ("zh", "en"):
        rows = json.loads(starter.sample(language).read_text("utf-8"))
        asked = json.loads(starter.heldout(language).read_text("utf-8"))
        assert len(rows) >= 60
        assert len(asked) == 20
        assert sum(bool(row["input"]) for row in rows) >= 3
        assert sum("history" in row for row in rows) >= 3
        known = {row["instruction"] for row in rows}
        for row in asked:
            assert row["instruction"] not in known
            assert row["fact"]


def test_the_hand_written_paragraphs_stand_nowhere_in_the_corpus_frames() -> None:
    folder = Path(__file__).parents[2] / "examples" / "starter"
    for language in ("zh", "en"):
        frames = "".join(
            path.read_text("utf-8")
            for kind in ("talk", "world", "filler", "facts", "scenes")
            for path in folder.glob(f"{kind}_{language}.txt")
        )
        rows = [
            json.loads(line)
            for line in (folder / f"prompts_{language}.jsonl").read_text("utf-8").splitlines()
        ]
        assert len({row["prompt"] for row in rows}) == 50
        paragraphs = [row["prompt"] for row in rows if row["kind"] == "paragraph"]
        assert len(paragraphs) == 40
        for prompt in paragraphs:
            text, question = prompt.split("\n\n")
            assert text not in frames
            assert question not in frames
