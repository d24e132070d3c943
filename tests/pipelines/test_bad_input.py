"""Broken recipes, data, models and commands are answered in three lines, never with a traceback."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.command import Command

Case = Callable[[Path, Path], list[object]]
CASES: dict[str, tuple[Case, str]] = {}
"""By name: what prepares a folder and returns a command, and what its error must say."""


def case(says: str) -> Callable[[Case], Case]:
    def register(prepare: Case) -> Case:
        CASES[prepare.__name__] = (prepare, says)
        return prepare

    return register


def recipe(folder: Path, model: Path | str, data: Path | str, /, **sections: object) -> Path:
    return tiny.write_recipe(folder / "r.json", model, data, **sections)


def good_rows(folder: Path) -> Path:
    return tiny.write_pairs(folder / "rows.jsonl", 8)


def train_rows(folder: Path, model: Path, *rows: object, **sections: object) -> list[object]:
    return [
        "train",
        recipe(folder, model, tiny.write_rows(folder / "rows.jsonl", rows), **sections),
    ]


def train_model(folder: Path, model: Path | str) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder))]


def copy(folder: Path, model: Path) -> Path:
    return shutil.copytree(model, folder / "model")


def edit_config(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}), "utf-8")


@case("there is no option learnin_rate in optimizer")
def typo(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "optimizer.learnin_rate=1"]


@case("there is no option rank in optimizer")
def misplaced_option(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "optimizer.rank=4"]


@case("not valid YAML")
def broken_yaml(folder: Path, model: Path) -> list[object]:
    (folder / "r.yaml").write_text("model: [", "utf-8")
    return ["train", folder / "r.yaml"]


@case("the recipe cannot be read")
def missing_recipe(folder: Path, model: Path) -> list[object]:
    return ["train", folder / "none.yaml"]


@case("optimizer.batch_size cannot be 0")
def batch_of_nothing(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "optimizer.batch_size=0"]


@case("optimizer.batch_size has no effect")
def rows_and_tokens_of_an_update(folder: Path, model: Path) -> list[object]:
    options = ["optimizer.update_tokens=100", "optimizer.batch_size=4"]
    return ["train", recipe(folder, model, good_rows(folder)), *options]


@case("both run.epochs and run.steps are given")
def two_lengths(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "run.epochs=2"]


@case("'nonsense' is no option")
def no_override(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "nonsense"]


@case("no linear layer of the model is called q_prj")
def unknown_target(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "tuning.targets=[q_prj]"]


@case("the model has 2 layers, 9 are to be trained")
def too_many_layers(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "tuning={kind: freeze, layers: 9}"]


@case("CUDA is asked for")
def no_such_device(folder: Path, model: Path) -> list[object]:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    return ["train", recipe(folder, model, good_rows(folder)), "compute.device=cuda"]


@case("there is no such file or folder")
def missing_data(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, folder / "none.jsonl")]


@case("there are no rows")
def empty_data(folder: Path, model: Path) -> list[object]:
    return train_rows(folder, model)


@case("1 of 2 rows are bad")
def bad_row(folder: Path, model: Path) -> list[object]:
    return train_rows(
        folder, model, {"instruction": "a", "output": "b"}, {"instruction": "a", "output": 3}
    )


@case("the answer is empty")
def empty_answers(folder: Path, model: Path) -> list[object]:
    return train_rows(folder, model, {"instruction": "a", "output": " "})


@case("the rows look like no format")
def unknown_columns(folder: Path, model: Path) -> list[object]:
    return train_rows(folder, model, {"frage": "a", "antwort": "b"})


@case("preference pairs")
def rows_of_another_method(folder: Path, model: Path) -> list[object]:
    return train_rows(folder, model, {"instruction": "a", "chosen": "b", "rejected": "c"})


@case("the rows are plain text")
def texts_for_sft(folder: Path, model: Path) -> list[object]:
    return train_rows(folder, model, {"text": "abc"})


@case("files of kind .docx are not read")
def unknown_file(folder: Path, model: Path) -> list[object]:
    (folder / "rows.docx").write_text("x", "utf-8")
    return ["train", recipe(folder, model, folder / "rows.docx")]


@case("there is no text encoding 'klingon'")
def unknown_encoding(folder: Path, model: Path) -> list[object]:
    return ["train", recipe(folder, model, good_rows(folder)), "data.encoding=klingon"]


@case("over data.max_tokens")
def long_rows(folder: Path, model: Path) -> list[object]:
    return [
        "train",
        recipe(folder, model, good_rows(folder)),
        "data.max_tokens=9",
        "data.on_long_row=stop",
    ]


@case("the model takes 256")
def rows_longer_than_the_model(folder: Path, model: Path) -> list[object]:
    long = {"instruction": "word " * 60, "output": "b"}
    return train_rows(folder, model, long, data={"max_tokens": 900})


@case("every validation row is a training row too")
def nothing_held_out(folder: Path, model: Path) -> list[object]:
    rows = good_rows(folder)
    return ["train", recipe(folder, model, rows), f"data.validation={rows}"]


@case("there is no set 'nobody'")
def unknown_set(folder: Path, model: Path) -> list[object]:
    (folder / "dataset_info.json").write_text('{"a": {"file_name": "rows.jsonl"}}', "utf-8")
    return ["train", recipe(folder, model, "nobody"), f"data.info={folder / 'dataset_info.json'}"]


@case("there is no model Org/None")
def unknown_model(folder: Path, model: Path) -> list[object]:
    return train_model(folder, "Org/None")


@case("the folder holds no config.json")
def folder_of_something_else(folder: Path, model: Path) -> list[object]:
    (folder / "photos").mkdir()
    return train_model(folder, folder / "photos")


@case("not readable as JSON")
def broken_config(folder: Path, model: Path) -> list[object]:
    (copy(folder, model) / "config.json").write_text("{", "utf-8")
    return train_model(folder, folder / "model")


@case("the architecture 'magic' is not")
def unknown_architecture(folder: Path, model: Path) -> list[object]:
    edit_config(copy(folder, model), model_type="magic")
    return train_model(folder, folder / "model")


@case("asks for code from outside")
def remote_code(folder: Path, model: Path) -> list[object]:
    edit_config(copy(folder, model), auto_map={"AutoModel": "evil.Model"})
    return train_model(folder, folder / "model")


@case("the weights are a pickle")
def pickle(folder: Path, model: Path) -> list[object]:
    copied = copy(folder, model)
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    return train_model(folder, copied)


@case("tensors are missing")
def missing_tensor(folder: Path, model: Path) -> list[object]:
    path = copy(folder, model) / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    return train_model(folder, folder / "model")


@case("the weights cannot be loaded")
def truncated_weights(folder: Path, model: Path) -> list[object]:
    path = copy(folder, model) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return train_model(folder, folder / "model")


@case("the model has no chat template")
def no_template(folder: Path, model: Path) -> list[object]:
    return train_model(folder, tiny.make_model(folder / "plain", template=None))


@case("there is no chat template 'chatlm'")
def unknown_template(folder: Path, model: Path) -> list[object]:
    return [*train_model(folder, model), "model.template=chatlm"]


@case("tokenizer has 400 tokens, the model 100 embeddings")
def small_vocabulary(folder: Path, model: Path) -> list[object]:
    return train_model(folder, tiny.make_model(folder / "small", vocab_size=100))


@case("there is no run nobody")
def unknown_run(folder: Path, model: Path) -> list[object]:
    return ["runs", "show", "nobody"]


@case("there is no model nobody")
def chat_with_nobody(folder: Path, model: Path) -> list[object]:
    return ["chat", "nobody"]


@case("there is no model ~nosuchperson/model")
def chat_in_no_home(folder: Path, model: Path) -> list[object]:
    return ["chat", "~nosuchperson/model"]


@case("there is no run ~nosuchperson/run")
def run_in_no_home(folder: Path, model: Path) -> list[object]:
    return ["runs", "show", "~nosuchperson/run"]


@case("there is no run xxx")
def run_with_a_name_no_file_can_have(folder: Path, model: Path) -> list[object]:
    return ["runs", "show", "x" * 300]


@case("only runs are exported")
def export_of_a_model(folder: Path, model: Path) -> list[object]:
    return ["export", model, "--to", folder / "out"]


@case("only runs are evaluated")
def evaluation_of_a_model(folder: Path, model: Path) -> list[object]:
    return ["evaluate", model]


@case("there is no row 99")
def row_that_is_not_there(folder: Path, model: Path) -> list[object]:
    return ["data", "show", good_rows(folder), "--row", 99, "--model", model]


@case("others could use the model without a key")
def open_server(folder: Path, model: Path) -> list[object]:
    return ["serve", model, "--host", "0.0.0.0"]


@case("the key cannot be read")
def missing_key(folder: Path, model: Path) -> list[object]:
    return ["serve", model, "--api-key-file", folder / "none"]


@case("cannot be used")
def port_in_use(folder: Path, model: Path) -> list[object]:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    KEPT.append(taken)
    return ["serve", model, "--port", taken.getsockname()[1]]


@case("No such command 'trian'")
def unknown_command(folder: Path, model: Path) -> list[object]:
    return ["trian"]


@case("No such option")
def unknown_flag(folder: Path, model: Path) -> list[object]:
    return ["train", "r.yaml", "--fast"]


@case("there is no section or option tunning")
def explain_nothing(folder: Path, model: Path) -> list[object]:
    return ["recipe", "explain", "tunning"]


KEPT: list[socket.socket] = []


@pytest.fixture(autouse=True)
def let_ports_go() -> Iterator[None]:
    yield
    while KEPT:
        KEPT.pop().close()


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_in_three_lines(
    tmp_path: Path, tiny_model: Path, command: Command, name: str
) -> None:
    prepare, says = CASES[name]
    outcome = command(*prepare(tmp_path, tiny_model))
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    error, *_, where, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert where.startswith("where: ")
    assert hint.startswith("hint:  ")
    assert not list((tmp_path / "runs").glob("*/model"))


def test_there_are_more_than_thirty_kinds() -> None:
    assert len(CASES) > 30


def test_a_bug_of_ours_says_so_and_keeps_its_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("tunesmith.recipe.schema.json_schema", fail)
    outcome = command("recipe", "schema")
    assert outcome.code == 1
    assert "this is a bug of tunesmith" in outcome.err
    kept = outcome.err.splitlines()[1].removeprefix("where: ")
    assert "ZeroDivisionError: oops" in Path(kept).read_text("utf-8")


def test_debug_shows_where_an_error_arose(command: Command) -> None:
    outcome = command("--debug", "runs", "show", "nobody")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert "hint:" in outcome.err
