"""The house rules that no linter holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tunesmith"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "common", "core", "helpers", "manager", "v1", "legacy", "new_"}
READS_PEERS = "recipe/llamafactory/"
PEER_NAMES = ("cutoff_len", "finetuning_type", "model_name_or_path", "per_device_eval")
LOADERS = {
    "models/load.py",
    "models/tokenizer.py",
    "models/image_reader.py",
    "models/senses.py",
    "models/video_reader.py",
    "models/adapter.py",
}
READS_ENVIRONMENT = {"settings.py"}
LOOKS_INTO_LIBRARIES = {
    "hardware.py",  # os.sched_getaffinity exists on Linux only
    "training/stop.py",  # signals that Windows lacks
    "cli/failure.py",  # the parser's errors, of which some know their command
}


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a file by the last part of what is called."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=str)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


def test_functions_are_short() -> None:
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno
                docstring = ast.get_docstring(node, clean=False) or ""
                if lines - docstring.count("\n") > MAX_FUNCTION_LINES:
                    long.append(f"{relative(path)}:{node.name}")
    assert not long


def test_modules_have_real_names() -> None:
    assert not [path for path in FILES if path.stem in BANNED_NAMES]


def test_every_module_says_what_it_is_for() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_no_pickle_is_ever_opened() -> None:
    dangerous = {"pickle", "joblib", "shelve", "dill", "cloudpickle", "marshal"}
    for path in FILES:
        assert not dangerous & {name.split(".")[0] for name in imported(path)}, path
        for name, call in calls(path):
            assert name != "read_pickle", path
            if name == "load" and ast.unparse(call.func) == "torch.load":
                raise AssertionError(f"{path} opens a pickle")


def test_no_shell_is_ever_started() -> None:
    for path in FILES:
        for name, call in calls(path):
            assert not any(k.arg == "shell" for k in call.keywords), path
            assert ast.unparse(call.func) not in ("os.system", "os.popen"), path
            assert name not in ("eval", "exec") or "." in ast.unparse(call.func), path


def test_models_are_loaded_in_one_place_only() -> None:
    for path in FILES:
        if relative(path) in LOADERS:
            continue
        assert "from_pretrained" not in {name for name, _ in calls(path)}, path


def test_no_code_of_a_model_folder_is_trusted() -> None:
    for path in FILES:
        for _, call in calls(path):
            for keyword in call.keywords:
                if keyword.arg == "trust_remote_code":
                    assert ast.unparse(keyword.value) == "False", path


def test_yaml_is_loaded_by_the_strict_loader_only() -> None:
    for path in FILES:
        for _, call in calls(path):
            name = ast.unparse(call.func)
            if name == "yaml.load":
                assert relative(path) == "recipe/yaml_file.py"
            assert name not in ("yaml.unsafe_load", "yaml.full_load"), path


def test_the_environment_is_read_in_one_place_only() -> None:
    for path in FILES:
        if relative(path) not in READS_ENVIRONMENT:
            text = path.read_text("utf-8")
            assert "os.environ" not in text, path
            assert "getenv" not in text, path


def test_our_own_objects_are_never_looked_into() -> None:
    for path in FILES:
        if relative(path) not in LOOKS_INTO_LIBRARIES:
            names = {name for name, _ in calls(path)}
            assert not names & {"getattr", "hasattr", "setattr"}, path


def test_words_of_peers_stay_in_the_module_that_reads_their_files() -> None:
    for path in FILES:
        if relative(path).startswith(READS_PEERS):
            continue
        text = path.read_text("utf-8")
        assert not any(f'"{name}' in text for name in PEER_NAMES), path
