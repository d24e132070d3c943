"""A model that sees: trained on conversations that show images, asked, measured, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests import seeing, tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import DataError, ExportError, ModelError, RecipeError, RequestError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.export.order import Form
from tunesmith.inference.generate import encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.session import ChatSession
from tunesmith.models.chat import load_chat_model
from tunesmith.models.roles import load_roles
from tunesmith.models.senses import load_senses
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.tuning import LoRA
from tunesmith.runs.run import Run
from tunesmith.templates import PLACES
from tunesmith.training.beginning import find_directions
from tunesmith.training.prepare import prepare_run
from tunesmith.training.train import resume, train

ALL = ["language", "projector", "tower"]
QUESTION = PLACES["image"] + "which colour?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing.make_seeing_model(tmp_path_factory.mktemp("models") / "model", "Qwen 2.5 VL")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return seeing.write_rows(tmp_path / "rows", 4)


def train_seeing(folder: Path, model: Path, rows: Path, /, **sections: Any) -> Run:
    usual = {"run": {"steps": 40}, "evaluate": {"sample_rows": 1, "sample_tokens": 4}}
    path = tiny.write_recipe(folder / "recipe.json", model, rows, **{**usual, **sections})
    return train(load_recipe(path))


def test_it_comes_to_tell_colours_and_is_exported_with_all_that_sees(
    tmp_path: Path, model: Path, rows: Path, command: Command
) -> None:
    run = train_seeing(
        tmp_path, model, rows, tuning={"kind": "full", "parts": ALL}, run={"steps": 45}
    )
    tuned = load_chat_model(run.name, precision="fp32", device="cpu")
    assert [seeing.ask(tuned, colour) for colour in seeing.COLOURS] == list(seeing.COLOURS)
    scores = evaluate(run.name, data=[rows])
    assert scores.tuned.exact_match == 1.0
    assert scores.base is not None
    assert scores.base.exact_match == 0.0

    with pytest.raises(ExportError, match="calibrated on texts alone"):
        export(run.name, tmp_path / "few", form=Form("safetensors", "gptq-4"))
    done = export(run.name, tmp_path / "out")
    assert (done.distance.top1, done.distance.max_logit_difference < 1e-4) == (1.0, True)
    theirs: Any = AutoModelForImageTextToText.from_pretrained(str(tmp_path / "out"))
    senses = load_senses(tmp_path / "out", load_tokenizer(tmp_path / "out"))
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "which colour?"}]}
    ]
    text = tuned.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    given = senses.processor(
        text=[text], images=[[seeing.make_picture("green", 20)]], return_tensors="pt"
    )
    whole = theirs.generate(**given, max_new_tokens=6, do_sample=False)
    said = whole[0, given["input_ids"].shape[1] :].tolist()
    assert tuned.tokenizer.decode(said, skip_special_tokens=True) == "green"

    told = command("data", "show", tmp_path / "recipe.json", "--row", "1")
    assert (told.code, "image_pad" in told.out) == (0, True)


@pytest.mark.parametrize(
    ("tuning", "moves"),
    [
        ({"kind": "full"}, {"language"}),
        pytest.param(
            {"kind": "full", "parts": ["projector"]}, {"projector"}, marks=pytest.mark.proof
        ),
        pytest.param(
            {"kind": "freeze", "layers": 1, "parts": ["language", "tower"]},
            {"language", "tower"},
            marks=pytest.mark.proof,
        ),
        pytest.param(
            {"kind": "lora", "targets": ["q_proj", "v_proj"]},
            {"language"},
            marks=pytest.mark.proof,
        ),
        pytest.param(
            {"kind": "lora", "parts": ALL},
            {"language", "projector", "tower"},
            marks=pytest.mark.proof,
        ),
    ],
)
def test_only_the_parts_that_are_named_learn(
    tmp_path: Path, model: Path, rows: Path, tuning: dict[str, Any], moves: set[str]
) -> None:
    before = load_file(model / "model.safetensors")
    run = train_seeing(tmp_path, model, rows, tuning=tuning, run={"steps": 2})
    export(run.name, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {part_of(name) for name in moved} == moves
    if tuning["kind"] == "freeze":
        assert all(".layers.1." in name for name in moved if part_of(name) == "language")


WAYS: dict[str, dict[str, Any]] = {
    "hqq": {"model": {"quantize": {"kind": "hqq", "bits": 8}}},
    "nf4": {"model": {"quantize": {"kind": "nf4"}}},
    "eva": {"tuning": {"kind": "lora", "init": "eva"}},
    "checkpointing": {"compute": {"gradient_checkpointing": "on"}},
    "workers": {"data": {"workers": 1}},
    "bf16": {"compute": {"precision": "bf16"}},
    "two processes": {"compute": {"processes": 2}},
    "dft": {"method": {"loss": "dft"}},
    "asft": {"method": {"loss": "asft"}},
    "smaller images": {"data": {"image_pixels": 100}},
}


@pytest.mark.proof
@pytest.mark.parametrize("way", WAYS)
def test_images_are_learned_from_in_every_way(
    tmp_path: Path, model: Path, rows: Path, way: str
) -> None:
    given = {"tuning": {"kind": "lora"}, "run": {"steps": 3}, **WAYS[way]}
    run = train_seeing(tmp_path, model, rows, **given)
    assert run.metrics()[-1]["loss"] < 7
    assert export(run.name, tmp_path / "out").distance.top1 == 1.0


def part_of(name: str) -> str:
    if "visual" not in name:
        return "language"
    return "projector" if "merger" in name else "tower"


def test_a_stopped_run_goes_on_to_the_same_weights_and_not_over_another_image(
    tmp_path: Path, model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.weights(train_seeing(tmp_path, model, rows, run={"steps": 6}))
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        run = train_seeing(tmp_path, model, rows, run={"steps": 6})
    image = rows.with_name("red1.png")
    kept = image.read_bytes()
    Image.new("RGB", (20, 20)).save(image)
    with pytest.raises(Exception, match="data"):
        resume(Run(run.path))
    image.write_bytes(kept)
    resume(Run(run.path))
    after = tiny.weights(run)
    assert all(torch.equal(weight, after[name]) for name, weight in expected.items())


def test_a_talk_shows_images_and_is_kept_to_be_learned_from(
    tmp_path: Path, model: Path, rows: Path
) -> None:
    chat = load_chat_model(model, precision="fp32", device="cpu")
    session = ChatSession(chat, Sampling(max_tokens=4))
    with pytest.raises(RequestError, match="is no image that can be read"):
        session.show("image", rows)
    with pytest.raises(RequestError, match="No such file"):
        session.show("image", tmp_path / "none.png")
    session.show("image", rows.with_name("red0.png"))
    list(session.ask("which colour?"))
    list(session.ask("and now?"))
    assert session.messages[0]["content"] == QUESTION
    session.save(tmp_path / "talk.jsonl")
    (kept,) = map(json.loads, (tmp_path / "talk.jsonl").read_text("utf-8").splitlines())
    assert kept["messages"][0]["content"][0] == {
        "type": "image",
        "image": str(rows.with_name("red0.png")),
    }
    alone = ChatSession(chat, Sampling(max_tokens=4))
    list(alone.ask("which colour?"))
    assert len(encode_prompt(chat, session.messages[:1])) > len(
        encode_prompt(chat, alone.messages[:1])
    )
    with pytest.raises(RequestError, match="reserved"):
        list(alone.ask("what is \ufdd3?"))


def test_what_cannot_be_learned_with_images_is_refused(
    tmp_path: Path, model: Path, rows: Path
) -> None:
    blind = tiny.make_model(tmp_path / "blind")
    with pytest.raises(DataError, match="it holds an image, and the model reads text alone"):
        train_seeing(tmp_path, blind, rows)
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    with pytest.raises(RecipeError, match="parts has no effect: the model reads text alone"):
        train_seeing(tmp_path, blind, data, tuning={"parts": ["tower"]})
    with pytest.raises(DataError, match="and what it shows would be cut"):
        train_seeing(tmp_path, model, rows, data={"max_tokens": 5})
    teacher = tiny.make_model(tmp_path / "teacher", vocab_size=404)
    seeing.make_tokenizer(teacher, seeing.FAMILIES["Qwen 2.5 VL"])
    with pytest.raises(ModelError, match="beside the one that learns reads text alone"):
        train_seeing(tmp_path, model, rows, method={"name": "distill", "teacher": str(teacher)})


def test_eva_looks_at_what_rows_show(tmp_path: Path, model: Path, rows: Path) -> None:
    tuning = {"kind": "lora", "init": "eva", "parts": ALL}
    prepared = prepare_run(
        load_recipe(tiny.write_recipe(tmp_path / "r.json", model, rows, tuning=tuning))
    )
    roles = load_roles(prepared.recipe, prepared.reader)
    assert isinstance(prepared.recipe.tuning, LoRA)
    found = find_directions(prepared, roles, prepared.recipe.tuning)
    assert {part_of(name) for name in found} == set(ALL)


def test_images_are_found_where_they_were_moved_to(tmp_path: Path, model: Path, rows: Path) -> None:
    places = []
    for name in ("before", "after"):
        folder = rows.parent.rename(tmp_path / name)
        rows = (folder / "rows.jsonl").rename(tmp_path / "rows.jsonl")
        given = tiny.write_recipe(tmp_path / "r.json", model, rows, data={"media": str(folder)})
        shown = prepare_run(load_recipe(given)).splits.train[0]["shown"]
        assert shown.open()
        places.append(shown.media[0].source)
        rows = rows.rename(folder / "rows.jsonl")
    assert [Path(place).parent.name for place in places] == ["before", "after"]


def test_text_is_learned_where_the_processor_misses_a_package(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("this needs the package pillow")

    monkeypatch.setattr("tunesmith.models.senses._load", missing)
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    recipe = load_recipe(tiny.write_recipe(tmp_path / "r.json", model, data))
    assert len(prepare_run(recipe).splits.train) == 4
