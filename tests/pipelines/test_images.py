"""Train a classifier of images, see bad images named, measure it, ask it, export it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from tests import pictures, tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tunesmith.data.media import images
from tunesmith.errors import DataError, ModelError, RecipeError, RunError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.inference.classify import scores_of
from tunesmith.models.chat import find_subject, load_chat_model
from tunesmith.models.classes import load_classifier
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import resume, train


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.make_image_model(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return pictures.write_images(tmp_path / "images")


def train_images(folder: Path, model: Path, rows: Path, /, **sections: Any) -> Run:
    usual: dict[str, Any] = {
        "model": {"name": str(model)},
        "data": {"train": [str(rows)], "validation_share": 0.25},
        "method": {"name": "classify"},
        "optimizer": {"learning_rate": 1e-2, "batch_size": 4},
        "compute": {"precision": "fp32", "threads": 1},
        "run": {"name": "images", "steps": 10, "seed": 1},
    }
    for name, options in sections.items():
        usual[name] = {**usual.get(name, {}), **options}
    (folder / "recipe.json").write_text(json.dumps(usual), "utf-8")
    return train(load_recipe(folder / "recipe.json"))


@pytest.mark.parametrize(
    ("shape", "tuning"),
    [
        ("vit", {"kind": "full"}),
        ("vit", {"kind": "lora"}),
        pytest.param("vit", {"kind": "freeze", "layers": 1}, marks=pytest.mark.proof),
        pytest.param("resnet", {"kind": "full"}, marks=pytest.mark.proof),
        pytest.param("convnext", {"kind": "lora"}, marks=pytest.mark.proof),
    ],
)
def test_it_comes_to_tell_colours_apart_and_its_export_scores_alike_elsewhere(
    tmp_path: Path, rows: Path, command: Command, shape: str, tuning: dict[str, Any]
) -> None:
    model = pictures.make_image_model(tmp_path / shape, shape)
    before = load_file(model / "model.safetensors")
    run = train_images(
        tmp_path, model, rows, tuning=tuning, run={"steps": 10 if shape == "vit" else 30}
    )
    measured = [record for record in run.metrics() if "eval_loss" in record]
    assert measured[-1]["eval_accuracy"] == measured[-1]["eval_macro_f1"] == 1.0

    scores = evaluate(run.name)
    assert scores.tuned.accuracy == 1.0
    assert scores.tuned.loss == pytest.approx(measured[-1]["eval_loss"], rel=1e-3)

    done = export(run.name, tmp_path / "out")
    assert (done.distance.top1, done.distance.max_logit_difference < 1e-4) == (1.0, True)
    theirs: Any = AutoModelForImageClassification.from_pretrained(str(tmp_path / "out"))
    processor = AutoImageProcessor.from_pretrained(str(tmp_path / "out"))
    assert theirs.config.id2label == {0: "blue", 1: "green", 2: "red"}
    paths = [rows.with_name(f"{label}0.png") for label in pictures.COLOURS]
    with torch.no_grad():
        given = processor(images=[Image.open(path) for path in paths], return_tensors="pt")
        logits = theirs(**given).logits
    ours = load_classifier(find_subject(run.name))
    found = torch.stack([scores_of(ours, str(path)) for path in paths])
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5)

    told = command("classify", run.name, str(paths[0]))
    assert (told.code, "red" in told.out) == (0, True)
    with pytest.raises(ModelError, match="this is a classifier"):
        load_chat_model(run.name)
    if tuning["kind"] == "freeze":  # only the last layer and the head have moved
        after = tiny.weights(run)
        moved = {name for name, one in before.items() if not torch.equal(one, after[name])}
        assert all(name.startswith(("vit.encoder.layer.1.", "classifier.")) for name in moved)


def test_loss_and_gradients_are_those_of_transformers(rows: Path, vit: Path) -> None:
    from tests.golden.test_transformers_classify import gradients
    from tunesmith.methods import build_method
    from tunesmith.methods.method import Joining
    from tunesmith.models.classifier import load_classifier_model
    from tunesmith.models.image_reader import load_image_reader
    from tunesmith.recipe.method import Classify

    device, reader = torch.device("cpu"), load_image_reader(vit)
    labels = tuple(sorted(pictures.COLOURS))
    mine = load_classifier_model(vit, labels, dtype=torch.float32, device=device)
    theirs: Any = load_classifier_model(vit, labels, dtype=torch.float32, device=device)
    theirs.load_state_dict(mine.state_dict())
    paths = [rows.with_name(f"{label}{n}.png") for label in labels for n in (0, 5)]
    opened = [Image.open(path) for path in paths]
    batch = [
        {"input_ids": [0], "label": n // 2, "pixels": lambda image=image: reader.pixels(image)}
        for n, image in enumerate(opened)
    ]
    method = build_method(Classify())
    summed = method.loss(mine, method.collate(batch, Joining(flat=True)))
    (summed.total / summed.count).backward()
    given = AutoImageProcessor.from_pretrained(str(vit))(images=opened, return_tensors="pt")
    expected = theirs(**given, labels=torch.tensor([0, 0, 1, 1, 2, 2])).loss
    expected.backward()
    assert summed.total.item() / 6 == pytest.approx(expected.item(), abs=1e-5)
    found, wanted = gradients(mine), gradients(theirs)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_stopped_run_goes_on_to_the_same_weights_and_not_over_another_image(
    tmp_path: Path, rows: Path, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.weights(train_images(tmp_path, vit, rows))
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        run = train_images(tmp_path, vit, rows)
    image = rows.with_name("red3.png")
    kept = image.read_bytes()
    Image.new("RGB", (20, 20)).save(image)
    with pytest.raises(RunError, match="data: "):
        resume(Run(run.path))
    with pytest.raises(RunError, match="the data changed since the run"):
        evaluate(run.path / "checkpoints" / "step-000004")
    image.write_bytes(kept)
    again = tiny.weights(resume(Run(run.path)))
    assert all(torch.equal(again[name], one) for name, one in expected.items())


def test_bad_images_are_named_with_their_rows(
    tmp_path: Path, rows: Path, vit: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows.with_name("red1.png").read_bytes()
    rows.with_name("red1.png").write_bytes(whole[: len(whole) // 2])
    rows.with_name("red2.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    rows.with_name("red3.png").unlink()
    Image.new("RGB", (300, 200)).save(rows.with_name("red4.png"))
    monkeypatch.setattr(images, "MOST_PIXELS", 50_000)
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"image_path": "https://example.org/a.png", "label": "red"}\n')
        file.write('{"image_path": "green0.png", "label": null}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: {vit}}}\ndata: {{train: {rows}}}\nmethod: {{name: classify}}\n", "utf-8"
    )
    told = command("data", "check", str(recipe), "--json")
    report = json.loads(told.out)
    assert (report["num_read"], report["num_kept"], report["num_reported"]) == (26, 20, 6)
    said = [
        (2, "the image red1.png is damaged"),
        (3, "the image red2.png is no image that can be read"),
        (4, "red3.png cannot be read: No such file or directory"),
        (5, "the image red4.png has 300 x 200 pixels, over 50,000"),
        (25, "`image_path` is an address, and nothing is downloaded"),
        (26, "`label` is null, not the name of a class"),
    ]
    for (line, reason), problem in zip(said, report["problems"], strict=True):
        assert problem.startswith(f"{rows}:{line}:")
        assert reason in problem
    assert report["labels"] == {"red": 4, "green": 8, "blue": 8}
    with pytest.raises(DataError, match="6 of 26 rows"):
        train_images(tmp_path, vit, rows)
    run = train_images(tmp_path, vit, rows, data={"on_bad_row": "skip"}, run={"steps": 1})
    assert json.loads(run.data_file.read_bytes())["num_reported"] == 6


def test_an_image_that_changes_while_it_is_learned_is_noticed(
    tmp_path: Path, rows: Path, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.training import train as training

    learn = training.learn

    def change_first(*given: Any) -> None:
        for image in rows.parent.glob("*.png"):
            image.write_bytes(image.read_bytes() + b"x")
        learn(*given)

    monkeypatch.setattr(training, "learn", change_first)
    with pytest.raises(DataError, match="changed since its row was read"):
        train_images(tmp_path, vit, rows)


def test_images_are_decoded_upright_in_colour_and_one_at_a_time(
    tmp_path: Path, rows: Path, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = Image.new("L", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright
    turned.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "turned.jpg").read_bytes()
    picture = images.Picture(tmp_path / "turned.jpg", images.look_at(tmp_path / "turned.jpg"))
    assert (picture.open().size, picture.open().mode) == ((20, 30), "RGB")

    opened: list[str] = []
    decode = images.decode
    monkeypatch.setattr(
        images, "decode", lambda content, path: (opened.append(path.name), decode(content, path))[1]
    )
    train_images(tmp_path, vit, rows, run={"steps": 1}, data={"validation_share": 0.0})
    assert len(opened) <= 8  # of 24 those of one update, and of the next, which waits


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"data": {"max_tokens": 64}}, r"data\.max_tokens has no effect"),
        ({"tuning": {"kind": "freeze", "embeddings": True}}, r"tuning\.embeddings has no effect"),
        ({"tuning": {"kind": "lora", "tokens": [1]}}, r"tuning\.tokens has no effect"),
        ({"tuning": {"parts": ["tower"]}}, r"tuning\.parts has no effect: the model reads images"),
        ({"data": {"media": "."}}, r"data\.media has no effect: it is for what conv"),
        ({"tuning": {"kind": "lora", "from_adapter": "x"}}, "not gone on with from an adapter yet"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    tmp_path: Path, rows: Path, vit: Path, sections: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        train_images(tmp_path, vit, rows, **sections)


def test_models_and_rows_must_be_of_one_kind(
    tmp_path: Path, rows: Path, vit: Path, tiny_model: Path
) -> None:
    with pytest.raises(DataError, match="the rows are labelled images, and the model reads"):
        train_images(tmp_path, tiny_model, rows)
    texts = tiny.write_rows(tmp_path / "t.jsonl", [{"text": "a", "label": "b"}] * 3)
    with pytest.raises(DataError, match="the rows are labelled texts, and the model reads"):
        train_images(tmp_path, vit, texts)
    with pytest.raises(ModelError, match="reads images alone, and sft learns to write"):
        train_images(tmp_path, vit, rows, method={"name": "sft"})
    resnet = pictures.make_image_model(tmp_path / "resnet", "resnet")
    with pytest.raises(RecipeError, match="keeps running averages"):
        train_images(tmp_path, resnet, rows)
    with pytest.raises(RecipeError, match="stages of layers"):
        train_images(tmp_path, resnet, rows, tuning={"kind": "freeze"})
    (resnet / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        train_images(tmp_path, resnet, rows, tuning={"kind": "full"})


def test_random_weights_are_learned_too(tmp_path: Path, rows: Path, vit: Path) -> None:
    (vit_only := tmp_path / "bare").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (vit_only / name).write_bytes((vit / name).read_bytes())
    run = train_images(
        tmp_path, vit_only, rows, model={"from_scratch": True}, tuning={"kind": "full"}
    )
    assert run.metrics()[-1]["eval_accuracy"] == 1.0


@pytest.mark.proof
@pytest.mark.parametrize("count", [2])
def test_processes_learn_what_one_does(tmp_path: Path, rows: Path, vit: Path, count: int) -> None:
    alone = tiny.weights(train_images(tmp_path, vit, rows))
    several = tiny.weights(train_images(tmp_path, vit, rows, compute={"processes": count}))
    for name, one in alone.items():
        torch.testing.assert_close(several[name], one, rtol=1e-3, atol=1e-4)
    assert np.isfinite([float(one.sum()) for one in several.values()]).all()
