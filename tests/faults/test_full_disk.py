"""A real disk that fills up while a checkpoint is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.offline import can_cut_off

ROOT = Path(__file__).parents[2]
SCRIPT = """
set -e
mount -t tmpfs -o size=8M tmpfs {disk}
export TUNESMITH_RUNS={disk} PYTHONPATH={root}/src
{python} -m tunesmith train {recipe} > {log} 2>&1 &
while ! ls {disk}/*/checkpoints/step-000002 > /dev/null 2>&1; do sleep 0.01; done
head -c 100M /dev/zero > {disk}/filler 2> /dev/null || true
wait $! && exit 9
cp {disk}/*/status.json {out}/full.json
ls {disk}/*/checkpoints > {out}/checkpoints
rm {disk}/filler
{python} -m tunesmith runs resume {disk}/2* >> {log} 2>&1
cp {disk}/*/status.json {out}/resumed.json
"""


@pytest.mark.proof
@pytest.mark.skipif(not can_cut_off(), reason="this system makes no namespaces")
def test_a_disk_that_fills_up_costs_no_checkpoint(tmp_path: Path, tiny_model: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    recipe = tiny.write_recipe(
        tmp_path / "r.json", tiny_model, data, run={"steps": 400, "save_every_steps": 2}
    )
    script = SCRIPT.format(
        disk=disk, root=ROOT, python=sys.executable, recipe=recipe, log=out / "log", out=out
    )
    ran = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr + (out / "log").read_text("utf-8")
    full = json.loads((out / "full.json").read_text("utf-8"))
    assert full["state"] == "failed"
    assert "bytes" in full["message"]
    assert str(disk) in full["where"]
    assert "step-" in (out / "checkpoints").read_text("utf-8")
    assert json.loads((out / "resumed.json").read_text("utf-8"))["state"] == "done"


EXPORT = """
set -e
mount -t tmpfs -o size={size} tmpfs {disk}
export PYTHONPATH={root}/src OMP_NUM_THREADS=1
{python} - <<'END' > {out}/said 2>&1 && exit 9
from pathlib import Path
from tunesmith.errors import ExportError
from tunesmith.export import aside
from tunesmith.export.export import export
from tunesmith.export.order import Form
aside.OTHER_FILES_BYTES = -1 << 40  # whatever is free is said to be enough
try:
    export("{run}", Path("{disk}/out"), form=Form("{form}"))
except ExportError as problem:
    print(problem.message)
    raise SystemExit(3)
END
ls -A {disk} > {out}/left
"""


@pytest.mark.proof
@pytest.mark.skipif(not can_cut_off(), reason="this system makes no namespaces")
@pytest.mark.parametrize("form", ["safetensors", "gguf", "ollama", "adapter", "gguf-adapter"])
def test_an_export_onto_a_full_disk_leaves_nothing(
    tmp_path: Path, tiny_model: Path, form: str
) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    run = tiny.train_run(tmp_path, tiny_model, run={"steps": 2})
    script = EXPORT.format(
        size="48k", disk=disk, root=ROOT, python=sys.executable, run=run.path, form=form, out=out
    )
    ran = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True)
    said = (out / "said").read_text("utf-8")
    assert ran.returncode == 0, ran.stderr + said
    assert "the export cannot be written: " in said
    assert (out / "left").read_text("utf-8") == ""
