"""The doctor tries things instead of looking them up, and says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command
from tunesmith.cli.show_doctor import show_examination
from tunesmith.doctor import abilities, packages
from tunesmith.doctor.examine import examine
from tunesmith.doctor.findings import Ability, Finding
from tunesmith.doctor.machine import look_at_machine
from tunesmith.errors import ModelError
from tunesmith.hardware import cpu_features, cpu_name

TRIED = {*abilities.PRECISIONS, *(f"quantize: {name}" for name in abilities.QUANTIZED)}


@pytest.fixture(scope="module")
def examined() -> list[Finding | Ability]:
    """All that an examination of this machine tells."""
    return list(examine())


def test_this_installation_is_whole(examined: list[Finding | Ability]) -> None:
    assert show_examination(iter(examined), as_json=True)
    (answers,) = (one for one in examined if one.name == "answers")
    assert isinstance(answers, Finding)
    assert answers.value.startswith("one token: ")
    parts = {one.part for one in examined if isinstance(one, Finding)}
    assert {"machine", "packages", "devices", "starter", "extra quant"} <= parts


def test_what_is_always_there_can_be_done(examined: list[Finding | Ability]) -> None:
    pytest.importorskip("bitsandbytes")
    tried = {one.name: one for one in examined if isinstance(one, Ability)}
    names = {name for name in TRIED if "torchao" not in name}
    names |= {f"{method} folder, bits: {bits}" for method, bits in abilities.PACKED}
    for name in names:
        one = tried[name]
        assert (one.loads, one.trains, one.merges) == (True, True, True), one


def test_everything_is_told_as_json_too(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [Finding("machine", "memory", "1 GiB"), Ability("nf4", loads=True, why_not="no kernel")]
    monkeypatch.setattr("tunesmith.doctor.examine.examine", lambda: iter(told))
    content = json.loads(command("doctor", "--json").out)
    assert content["whole"]
    assert content["found"][0]["state"] == "good"
    assert content["found"][1] == {
        "name": "nf4", "loads": True, "trains": False, "merges": False, "why_not": "no kernel",
        "hint": "", "needed": False, "state": "absent",
    }  # fmt: skip


def test_what_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr(abilities, "PRECISIONS", ())
    monkeypatch.setattr(abilities, "PACKED", ())
    monkeypatch.setattr(abilities, "QUANTIZED", {"torchao": abilities.TorchAO()})
    (one,) = abilities.try_abilities()
    assert one.state == "absent"
    assert not one.loads
    assert one.why_not == "the package torchao is not installed"
    assert one.hint == "pip install 'tunesmith[torchao]'"


@pytest.mark.parametrize(("step", "able"), [("loads", 0), ("trains", 1), ("merges", 2)], ids=str)
def test_what_fails_is_told_and_what_comes_after_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, step: str, able: int
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no kernel\nfor this device")

    monkeypatch.setattr(abilities, "QUANTIZED", {})
    monkeypatch.setattr(abilities, "PACKED", ())
    monkeypatch.setattr(abilities, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(abilities._Trial, step, fail)
    (one,) = abilities.try_abilities()
    assert [one.loads, one.trains, one.merges].count(True) == able
    assert one.why_not == "RuntimeError: no kernel"
    assert one.state == "broken"


def test_a_merge_that_moves_logits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from peft import LoraModel

    def spoil(self: Any, **_: Any) -> Any:
        merged: Any = unspoiled(self)
        with torch.no_grad():
            merged.lm_head.weight.mul_(1.1)
        return merged

    unspoiled = LoraModel.merge_and_unload
    monkeypatch.setattr(LoraModel, "merge_and_unload", spoil)
    monkeypatch.setattr(abilities, "QUANTIZED", {})
    monkeypatch.setattr(abilities, "PACKED", ())
    monkeypatch.setattr(abilities, "PRECISIONS", ("fp32",))
    (one,) = abilities.try_abilities()
    assert one.trains
    assert "merging moves logits" in one.why_not


def test_torch_is_not_imported_before_the_first_lines() -> None:
    code = (
        "import sys; from tunesmith.doctor.examine import examine\n"
        "for finding in examine():\n"
        "    assert 'torch' not in sys.modules, finding\n"
        "    print(finding.part)\n"
        "    if finding.part == 'extra quant': break"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert {"machine", "packages"} <= set(told.stdout.split("\n"))


def lines(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> dict[str, Finding]:
    def version(name: str) -> str:
        if name not in installed:
            raise packages.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(packages, "version", version)
    return {finding.name: finding for finding in packages.look_at_packages()}


def test_versions_are_compared_with_the_lock_and_with_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["numpy>=2.0", "rich>=13", "psutil>=6", "peft>=0.21"]\n'
        '[project.optional-dependencies]\nquant = ["bitsandbytes>=0.50"]\ndev = ["ruff"]\n'
    )
    lock = tmp_path / "constraints.txt"
    lock.write_text("# written\nnumpy==2.4.6\nrich==15.0.0\n")
    monkeypatch.setattr(packages, "PROJECT", project)
    monkeypatch.setattr(packages, "LOCK", lock)
    told = lines(monkeypatch, {"numpy": "2.4.6+cpu", "rich": "14.0.0", "psutil": "5.9"})
    assert (told["numpy"].value, told["numpy"].state) == ("2.4.6+cpu", "good")
    assert (told["rich"].value, told["rich"].state) == ("14.0.0, tested with 15.0.0", "good")
    assert (told["psutil"].value, told["psutil"].state) == ("5.9, needed >=6", "broken")
    assert told["peft"].state == "broken"
    assert told["bitsandbytes"].state == "absent"
    assert told["bitsandbytes"].hint == "pip install 'tunesmith[quant]'"
    assert "ruff" not in told


def test_a_broken_installation_ends_with_1(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.doctor import examine as module

    broken = Finding("packages", "peft", "not installed", "broken", "pip install peft")
    monkeypatch.setattr(module, "look_at_packages", lambda: iter([broken]))
    told = command("doctor")
    assert told.code == 1
    assert "peft" in told.out
    assert "pip install peft" in told.out
    assert "this installation is broken" in told.out
    assert "fp32" not in told.out  # nothing else was tried


def test_an_ability_is_spelled_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    one = Ability("nf4", loads=True, why_not="no kernel", hint="take another")
    assert show_examination(iter([one]), as_json=False)
    assert "load, no train, no merge (no kernel)" in capsys.readouterr().out


def test_a_damaged_starter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.doctor.starter import try_starter
    from tunesmith.models import chat

    def fail(_: str) -> None:
        raise ModelError("the weights cannot be loaded", hint="copy it again")

    monkeypatch.setattr(chat, "load_chat_model", fail)
    one = try_starter()
    assert (one.state, one.hint) == ("broken", "copy it again")


def test_no_room_for_temporary_files_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    *_, found = look_at_machine()
    assert (found.name, found.state) == ("temporary files", "broken")
    assert "TMPDIR" in found.hint
    assert not any(isinstance(each, Ability) for each in examine())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists what a processor can do")
def test_the_processor_is_what_the_system_says() -> None:
    said = Path("/proc/cpuinfo").read_text("utf-8")
    assert ("AVX2" in cpu_features()) == (" avx2 " in said)
    assert ("AMX bf16" in cpu_features()) == ("amx_bf16" in said)
    assert cpu_name()
