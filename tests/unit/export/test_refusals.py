"""What cannot be exported truly is not exported at all, and nothing of it stays visible."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.faults import work
from tunesmith.errors import ExportError, ModelError, RunError, TunesmithError
from tunesmith.export import aside
from tunesmith.export import merged as merging
from tunesmith.export.aside import writing_aside
from tunesmith.export.export import export
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.load import load_model
from tunesmith.runs.run import Run

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def made(root: Path) -> Run:
    torch.set_num_threads(1)
    base = tiny.make_model(root / "base")
    data = {"train": [str(tiny.write_pairs(root / "few.jsonl", 4))]}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return tiny.train_run(root, base, data=data, tuning={"kind": "lora", "rank": 4})


@pytest.fixture
def base(root: Path, tmp_path: Path) -> Path:
    """A copy of the base that a test may spoil."""
    return Path(shutil.copytree(root / "base", tmp_path / "base"))


@pytest.fixture
def run(made: Run, root: Path, base: Path, tmp_path: Path) -> Run:
    """A copy of the run that belongs to the copy of the base."""
    copied = Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.name)))
    recipe = copied.recipe_file.read_text("utf-8")
    copied.recipe_file.write_text(recipe.replace(str(root / "base"), str(base)), "utf-8")
    return copied


def refusal(name: str | Path, to: Path, **options: Any) -> TunesmithError:
    """Export in vain; nothing may be left, visible or hidden."""
    before = sorted(to.parent.rglob("*"))
    with pytest.raises(TunesmithError) as caught:
        export(name, to, **options)
    assert sorted(to.parent.rglob("*")) == before
    assert caught.value.hint
    return caught.value


def tamper(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Let something go wrong in the merge."""
    merge = merging.merge

    def merge_badly(chat: Any) -> Any:
        merged = merge(chat)
        with torch.no_grad():
            change(merged)
        return merged

    monkeypatch.setattr(merging, "merge", merge_badly)


def test_a_folder_that_holds_something_is_left_alone(run: Run, to: Path) -> None:
    to.mkdir()
    (to / "precious.txt").write_text("keep", "utf-8")
    problem = refusal(run.path, to)
    assert problem.message == "the folder is there already and not empty"
    assert problem.where == str(to)
    assert (to / "precious.txt").read_text("utf-8") == "keep"


def test_the_folder_that_one_is_in_is_not_replaced(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to.mkdir()
    monkeypatch.chdir(to)
    before = to.stat().st_ino
    for here in (Path(), Path("../out"), to):
        problem = refusal(run.path, here)
        assert "the folder that you are in" in problem.message
        assert "--to model" in problem.hint
    assert to.stat().st_ino == before == Path.cwd().stat().st_ino


def test_an_empty_folder_is_taken(run: Run, to: Path) -> None:
    to.mkdir()
    assert export(run.path, to).folder == to
    assert (to / WEIGHTS).is_file()


def test_a_file_is_left_alone(run: Run, to: Path) -> None:
    to.write_text("keep", "utf-8")
    assert refusal(run.path, to).message == "this is a file"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_refused_before_anything_is_written(run: Run, to: Path, there: bool) -> None:
    if there:
        (to.parent / "folder").mkdir()
    to.symlink_to("folder")
    problem = refusal(run.path, to)
    assert problem.message == "this is a link"
    assert problem.hint == "choose another one, or delete it first"


def test_the_root_of_all_folders_is_refused(run: Run) -> None:
    with pytest.raises(ExportError, match="the folder cannot be made: "):
        export(run.path, Path("/"))


def test_a_folder_below_a_file_cannot_be_made(run: Run, to: Path) -> None:
    to.write_text("keep", "utf-8")
    problem = refusal(run.path, to / "deep" / "out")
    assert problem.message == f"the folder cannot be made: {to} is a file"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", f"{'x' * 300}/out"])
def test_a_name_that_no_folder_can_have_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="the folder cannot be made: "):
        export(run.path, tmp_path / name)


def test_a_home_that_nobody_has_is_a_name_like_any_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(run.path, Path("~nosuchuser")).folder == tmp_path / "~nosuchuser"


def test_two_exports_do_not_write_into_one_folder(to: Path) -> None:
    with writing_aside(to) as aside:
        (aside / "model").write_text("first", "utf-8")
        with pytest.raises(ExportError) as caught, writing_aside(to):
            pass
        assert caught.value.message == "another export writes into this folder"
        assert caught.value.where == str(to)
    assert (to / "model").read_text("utf-8") == "first"
    assert [path.name for path in to.parent.iterdir()] == [to.name]


def test_a_disk_without_room_is_noticed_before_anything_is_written(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "OTHER_FILES_BYTES", 1 << 60)
    problem = refusal(run.path, to / "deep")
    assert problem.message.startswith("the export needs 1,152,921,50")
    assert " bytes, " in problem.message
    assert problem.message.endswith(" are free")


def test_a_merge_that_changes_an_answer_is_noticed(
    run: Run, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch, lambda model: model.model.layers[0].mlp.up_proj.weight.mul_(-3))
    problem = refusal(run.path, to)
    assert isinstance(problem, ExportError)
    assert "the merged model answers differently from the tuned one: " in problem.message
    assert "nothing was published" in problem.hint


def test_a_merge_that_gives_no_numbers_is_noticed(run: Run, to: Path) -> None:
    path = run.model / "adapter_model.safetensors"
    weights = {name: torch.full_like(tensor, 1e30) for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    problem = refusal(run.path, to)
    assert isinstance(problem, ExportError)
    assert "take an earlier checkpoint" in problem.hint


def change_base(run: Run, base: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a weight of the base, and let the adapter take the outcome for its own."""
    weights = load_file(base / WEIGHTS)
    weights[name] = change(weights[name])
    save_file(weights, base / WEIGHTS, metadata={"format": "pt"})
    tiny.change_json(run.model / "base.json", weights_sha256=weights_sha256(base))


def test_a_cast_that_moves_the_model_too_far_is_refused_with_figures(
    run: Run, base: Path, to: Path
) -> None:
    # Far from zero, the steps of bf16 are larger than what the tokens differ by.
    change_base(run, base, "model.embed_tokens.weight", lambda weight: weight + 40)
    problem = refusal(run.path, to, precision="bf16")
    assert problem.message.startswith("in bf16 the model moves too far from the tuned one: KL ")
    assert "(limit 0.02)" in problem.message
    assert problem.hint == "export with --precision fp32"
    assert problem.where == str(to)
    assert export(run.path, to, precision="fp32").distance.top1 == 1.0


def test_a_cast_that_overflows_is_refused(run: Run, base: Path, to: Path) -> None:
    change_base(run, base, "model.norm.weight", lambda weight: weight * 1e6)
    assert "in fp16 the model moves too far" in refusal(run.path, to, precision="fp16").message


def spoil_tokens(base: Path) -> None:
    content = json.loads((base / "tokenizer.json").read_text("utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:20]
    (base / "tokenizer.json").write_text(json.dumps(content), "utf-8")


def spoil_template(base: Path) -> None:
    config = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    changed = config["chat_template"].replace(
        "assistant\\n' }}\n{%- endif", "robot\\n' }}\n{%- endif"
    )
    assert changed != config["chat_template"]
    tiny.change_json(base / "tokenizer_config.json", chat_template=changed)


@pytest.mark.parametrize("spoil", [spoil_tokens, spoil_template])
def test_a_tokenizer_that_changed_since_training_is_refused(
    run: Run, base: Path, to: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(base)
    problem = refusal(run.path, to)
    assert isinstance(problem, ExportError)
    assert problem.message.startswith("tokenizer or template give other tokens than in training")
    assert problem.hint == "the files of the base model changed since; put them back"
    assert problem.where == str(base)


def test_a_template_that_is_gone_is_refused(run: Run, base: Path, to: Path) -> None:
    tiny.change_json(base / "tokenizer_config.json", chat_template=None)
    assert "has no chat template" in refusal(run.path, to).message


def test_a_base_that_changed_since_training_is_refused(run: Run, base: Path, to: Path) -> None:
    tiny.make_model(base, seed=8)
    problem = refusal(run.path, to)
    assert isinstance(problem, ModelError)
    assert "trained on another base" in problem.message


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"5"])
def test_a_run_without_prompts_to_compare_on_is_refused(
    run: Run, to: Path, content: bytes | None
) -> None:
    run.probes_file.unlink()
    if content is not None:
        run.probes_file.write_bytes(content)
    problem = refusal(run.path, to)
    assert problem.message == "the run kept no prompts to compare the export on"
    assert problem.where == str(run.probes_file)


def test_a_run_that_is_not_finished_is_refused(run: Run, to: Path) -> None:
    shutil.rmtree(run.model)
    problem = refusal(run.path, to)
    assert isinstance(problem, RunError)
    assert "no trained model yet" in problem.message


def test_a_model_is_no_run(base: Path, to: Path) -> None:
    problem = refusal(base, to)
    assert problem.message == f"{base} is a model, and only runs are exported"


@contextmanager
def files_no_larger_than(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to write on, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("num_bytes", [100, 10_000, 50_000])
def test_what_the_disk_refuses_is_not_published(run: Run, to: Path, num_bytes: int) -> None:
    with files_no_larger_than(num_bytes):
        problem = refusal(run.path, to)
    assert isinstance(problem, ExportError)
    assert problem.message.startswith("the export cannot be written: ")
    assert "File too large" in problem.message
    assert problem.where == str(to)


def partial_of(to: Path) -> Path:
    return to.with_name(f".{to.name}.partial")


@pytest.mark.parametrize(
    "moment",
    [
        WEIGHTS,
        *(
            pytest.param(each, marks=pytest.mark.proof)
            for each in ("", "config.json", "tokenizer.json")
        ),
    ],
)
def test_a_kill_while_writing_leaves_nothing_visible_and_the_next_export_works(
    run: Run, to: Path, moment: str
) -> None:
    process = work.start(export, run.path, to)
    work.wait_for((partial_of(to) / moment).exists)
    process.kill()
    assert work.finish(process) == -signal.SIGKILL
    assert not to.exists()
    assert partial_of(to).is_dir()
    hidden = sorted(path.name for path in to.parent.iterdir())
    assert hidden == [f".{to.name}.lock", partial_of(to).name]

    export(run.path, to)
    assert [path.name for path in to.parent.iterdir()] == ["out"]
    assert load_model(to, dtype=torch.float32, device=torch.device("cpu"))


def test_ctrl_c_while_writing_leaves_nothing(run: Run, to: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tunesmith", "export", str(run.path), "--to", str(to)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    work.wait_for(partial_of(to).exists)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert list(to.parent.iterdir()) == []
