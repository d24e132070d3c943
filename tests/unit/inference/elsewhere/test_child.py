"""A server of our own: it tells why it fails, and never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.serving.running import wait_for
from tunesmith.errors import EngineError, ModelError
from tunesmith.inference.elsewhere.child import Child
from tunesmith.inference.llama_cpp import LlamaCpp
from tunesmith.inference.vllm import Vllm, VllmOptions
from tunesmith.models.chat import find_subject
from tunesmith.settings import environment_offline

PYTHON = Path(sys.executable)
FAMILY = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("ready", grandchild.pid, TOLD, flush=True)
time.sleep(60)
"""
PARENT = """
import sys, time
from pathlib import Path
from tunesmith.inference.elsewhere.child import Child
child = Child(Path(sys.executable), [sys.argv[1]], environment={}, told="secret")
child.wait_until(lambda: child.lines or None, 30)
print(child.pid, child.lines[0].split()[1], flush=True)
time.sleep(60)
"""


def script(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text, "utf-8")
    return path


def start(folder: Path, text: str, told: str = "") -> Child:
    return Child(PYTHON, [str(script(folder, text))], environment={}, told=told)


def lives(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return False
    return "State:\tZ" not in status


def check_for_ten_seconds(child: Child) -> None:
    for _ in range(100):  # it is a zombie before its last thread has ended
        child.check()
        time.sleep(0.1)


def test_what_it_is_told_stands_on_no_command_line(tmp_path: Path) -> None:
    child = start(tmp_path, FAMILY, "secret")
    line = child.wait_until(lambda: child.lines[0] if child.lines else None, 30)
    assert line.split()[2] == "secret"
    assert b"secret" not in Path(f"/proc/{child.pid}/cmdline").read_bytes()
    grandchild = int(line.split()[1])
    child.close()
    assert not lives(child.pid)
    wait_for(lambda: not lives(grandchild), 5)


def test_it_ends_when_we_are_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(script(tmp_path, FAMILY))],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert all(map(lives, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    wait_for(lambda: not any(map(lives, pids)), 10)


def test_the_error_holds_what_it_said_last(tmp_path: Path) -> None:
    child = start(tmp_path, "print('loading')\nraise SystemExit('no memory left')")
    with pytest.raises(EngineError, match=r"(?s)ended with code 1.*loading.*no memory left"):
        child.wait_until(lambda: None, 30)
    assert not lives(child.pid)


def test_one_that_has_ended_is_told_apart(tmp_path: Path) -> None:
    child = start(tmp_path, FAMILY, "secret")
    child.wait_until(lambda: child.lines or None, 30)
    child.check()
    os.kill(child.pid, signal.SIGKILL)
    with closing(child), pytest.raises(EngineError, match="the engine ended with code -9"):
        check_for_ten_seconds(child)


def test_it_has_so_much_time_and_no_more(tmp_path: Path) -> None:
    child = start(tmp_path, "import time\nprint('slow', flush=True)\ntime.sleep(60)")
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"(?s)not ready after 1 seconds.*slow"):
        child.wait_until(lambda: None, 1)
    assert time.monotonic() - began < 10
    assert not lives(child.pid)


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as failed:
        Child(tmp_path / "python", ["x"], environment={})
    assert failed.value.where == str(tmp_path / "python")


def test_nothing_of_it_may_reach_a_hub() -> None:
    environment = environment_offline(MORE="1")
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK", "MORE")
    assert [environment[name] for name in names] == ["1"] * 4


def test_vllm_needs_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNESMITH_VLLM_PYTHON", raising=False)
    with pytest.raises(EngineError) as failed:
        Vllm(find_subject("starter"))
    assert "TUNESMITH_VLLM_PYTHON" in failed.value.hint


def test_a_python_without_vllm_says_so() -> None:
    with pytest.raises(EngineError, match="No module named 'vllm'"):
        Vllm(find_subject("starter"), VllmOptions(PYTHON))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40, b"PK\x03\x04"])
def test_a_damaged_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        LlamaCpp(path)
