"""Pairs, judged answers and questions that show images: learned from, asked, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import seeing, tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.inference.score import score
from tunesmith.models.chat import find_subject, load_chat_model, load_reward_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.templates import PLACES
from tunesmith.training.given import read_given
from tunesmith.training.train import resume, train

QUESTION = PLACES["image"] + "which colour?"
OTHER = {"red": "green", "green": "blue", "blue": "red"}
REWARDS = """
def right(messages, completions, references):
    for (message,) in messages:
        assert message["content"] == "<image>which colour?"
        assert all(file.endswith(".png") for file in message["media"])
    return [float(reference in text) - 0.01 * len(text)
            for text, reference in zip(completions, references)]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing.make_seeing_model(tmp_path_factory.mktemp("models") / "model", "Qwen 2 VL")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return seeing.write_rows(tmp_path / "rows", 4)


def rewritten(rows: Path, kind: str) -> Path:
    """The same images and questions as rows of another kind."""
    told = list(map(json.loads, rows.read_text("utf-8").splitlines()))
    made: list[dict[str, Any]] = []
    for number, row in enumerate(told):
        asked, right = row["instruction"], row["output"]
        shown = {"images": row["images"]}
        if kind == "pairs":  # as LLaMA-Factory's own set of pairs with images is written
            talk = [{"from": "human", "value": asked}]
            both = (("chosen", right), ("rejected", OTHER[right]))
            sides = {name: {"from": "gpt", "value": said} for name, said in both}
            made.append({"conversations": talk, **sides, **shown})
        elif kind == "judged":
            good = number % 2 == 0
            said = right if good else OTHER[right]
            made.append({"instruction": asked, "output": said, "label": good, **shown})
        else:
            made.append({"prompt": asked, "answer": right, **shown})
    return tiny.write_rows(rows.with_name(f"{kind}.jsonl"), made)


def train_on(folder: Path, model: Path, rows: Path, /, **sections: Any) -> Run:
    usual = {"run": {"steps": 3}, "evaluate": {"sample_rows": 1, "sample_tokens": 4}}
    path = tiny.write_recipe(folder / "recipe.json", model, rows, **{**usual, **sections})
    if sections.get("method", {}).get("name") == "reward":  # it answers nothing
        tiny.change_json(path, evaluate=None)
    return train(load_recipe(path))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "adapter_model.safetensors")


@pytest.mark.proof
def test_dpo_comes_to_prefer_what_an_image_shows_and_is_exported(
    tmp_path: Path, model: Path, rows: Path
) -> None:
    run = train_on(
        tmp_path,
        model,
        rewritten(rows, "pairs"),
        method={"name": "dpo", "sft_weight": 1.0},
        tuning={"kind": "full", "parts": ["language", "projector", "tower"]},
        run={"steps": 45},
    )
    tuned = load_chat_model(run.name, precision="fp32", device="cpu")
    said = [seeing.ask(tuned, colour)[:3] for colour in seeing.COLOURS]
    assert said == [colour[:3] for colour in seeing.COLOURS]
    scores = evaluate(run.name, data=[rewritten(rows, "pairs")])
    assert scores.tuned.pair_accuracy == 1.0
    assert export(run.name, tmp_path / "out").distance.top1 == 1.0


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "orpo": ("pairs", {"name": "orpo"}),
    "simpo": ("pairs", {"name": "simpo"}),
    "cpo": ("pairs", {"name": "cpo"}),
    "none": ("pairs", {"name": "dpo", "reference": "none"}),
    "kto": ("judged", {"name": "kto"}),
    "kto in bf16": ("judged", {"name": "kto"}),
}


@pytest.mark.proof
@pytest.mark.parametrize("way", METHODS)
def test_every_method_takes_images(tmp_path: Path, model: Path, rows: Path, way: str) -> None:
    kind, method = METHODS[way]
    precise = {"compute": {"precision": "bf16"}} if way.endswith("bf16") else {}
    run = train_on(tmp_path, model, rewritten(rows, kind), method=method, **precise)
    assert run.status().state == "done"
    assert export(run.name, tmp_path / "out").distance.top1 == 1.0


@pytest.mark.proof
def test_what_a_reference_says_of_images_is_kept_and_asked_again_for_others(
    tmp_path: Path, model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    from tunesmith.training import reference

    computed = reference._compute

    def counting(*given: Any) -> Any:
        asked.append(given)
        return computed(*given)

    monkeypatch.setattr(reference, "_compute", counting)
    pairs, dpo = rewritten(rows, "pairs"), {"name": "dpo"}
    other = seeing.make_seeing_model(tmp_path / "other", "Qwen 2 VL", seed=1)
    for _ in range(2):
        train_on(tmp_path, model, pairs, method=dpo, run={"steps": 1})
    assert len(asked) == 1
    train_on(tmp_path, model, pairs, method={**dpo, "reference": str(other)}, run={"steps": 1})
    assert len(asked) == 2
    seeing.make_picture("red", 5).save(rows.with_name("blue0.png"))
    train_on(tmp_path, model, pairs, method=dpo, run={"steps": 1})
    assert len(asked) == 3


@pytest.mark.proof
def test_a_reward_model_scores_images_and_judges_answers_about_them(
    tmp_path: Path, model: Path, rows: Path
) -> None:
    judge = train_on(
        tmp_path,
        model,
        rewritten(rows, "pairs"),
        method={"name": "reward"},
        tuning={"kind": "full", "parts": ["language", "projector", "tower"]},
        run={"steps": 40, "name": "judge"},
    )
    assert judge.metrics()[-1]["rewards_accuracy"] == 1.0
    exported = export(judge.name, tmp_path / "out")
    assert exported.scores
    for name in (judge.name, tmp_path / "out"):
        known = load_reward_model(find_subject(name), device="cpu")
        for colour in seeing.COLOURS:
            media = [["image", seeing.as_address(seeing.make_picture(colour, 20)), ""]]
            talk = [{"role": "user", "content": QUESTION, "media": media}]
            right, wrong = (
                score(known, [*talk, {"role": "assistant", "content": said}])
                for said in (colour, OTHER[colour])
            )
            assert right > wrong
    rewards = [{"kind": "model", "model": judge.name}]
    method = {"name": "grpo", "rewards": rewards, "group_size": 2, "answer_tokens": 4}
    run = train_on(tmp_path, model, rewritten(rows, "questions"), method=method)
    assert run.status().state == "done"


@pytest.mark.proof
@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_answers_to_questions_about_images_are_rewarded(
    tmp_path: Path, model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "rewards.py").write_text(REWARDS, "utf-8")
    reward = {"kind": "function", "function": f"{tmp_path / 'rewards.py'}:right"}
    more = {"group_size": 2, "iterations": 2} if name == "grpo" else {"iterations": 2}
    given: dict[str, Any] = {
        "method": {"name": name, "rewards": [reward], "answer_tokens": 4, "beta": 0.1, **more},
        "run": {"steps": 5},
    }
    asked = rewritten(rows, "questions")
    expected = weights(train_on(tmp_path, model, asked, **given))
    with monkeypatch.context() as patch:  # in the middle of answers that are still learned from
        stop_at(patch, 3)
        run = train_on(tmp_path, model, asked, **given)
    resume(Run(run.path))
    after = weights(run)
    assert all(torch.equal(weight, after[name]) for name, weight in expected.items())


def test_what_sees_nothing_is_not_asked_about_images(
    tmp_path: Path, model: Path, rows: Path
) -> None:
    pairs = rewritten(rows, "pairs")
    blind = tiny.make_model(tmp_path / "blind", vocab_size=404)
    seeing.make_tokenizer(blind, seeing.FAMILIES["Qwen 2 VL"])
    with pytest.raises(ModelError, match="beside the one that learns reads text alone"):
        train_on(tmp_path, model, pairs, method={"name": "dpo", "reference": str(blind)})
    other = seeing.make_seeing_model(
        tmp_path / "other",
        "Qwen 2 VL",
        picture={"size": {"shortest_edge": 64, "longest_edge": 512}},
    )
    with pytest.raises(ModelError, match="makes other tokens of images or sounds"):
        train_on(tmp_path, model, pairs, method={"name": "dpo", "reference": str(other)})
    said = {
        "instruction": "<image>?",
        "chosen": "a <image>",
        "rejected": "b",
        "images": ["red0.png"],
    }
    for both in (("chosen", "rejected"), ("rejected", "chosen")):
        turned = {**said, both[0]: said["rejected"], both[1]: said["chosen"]}
        path = tiny.write_rows(rows.with_name("said.jsonl"), [turned])
        with pytest.raises(Exception, match="an answer holds image"):
            train_on(tmp_path, model, path, method={"name": "dpo"})


@pytest.mark.parametrize("option", [{"image_pixels": 100}, {"media": "."}])
def test_an_option_of_images_is_refused_where_no_row_shows_any(
    tmp_path: Path, model: Path, option: dict[str, Any]
) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    for each in (model, tiny.make_model(tmp_path / "blind")):
        with pytest.raises(RecipeError, match=f"data.{next(iter(option))} has no effect"):
            train_on(tmp_path, each, data, data=option)


@pytest.mark.proof
def test_a_file_of_theirs_learns_pairs_with_images(
    tmp_path: Path, model: Path, rows: Path, command: Command
) -> None:
    rewritten(rows, "pairs")
    columns = {
        "messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"
    }  # fmt: skip
    entry = {"file_name": "pairs.jsonl", "ranking": True, "formatting": "sharegpt"}
    info = {"rlhf_v": {**entry, "columns": columns}}
    rows.with_name("dataset_info.json").write_text(json.dumps(info), "utf-8")
    theirs = {
        "model_name_or_path": str(model), "stage": "dpo", "do_train": True, "dataset": "rlhf_v",
        "dataset_dir": str(rows.parent), "finetuning_type": "lora", "lora_rank": 2,
        "pref_beta": 0.1, "image_max_pixels": 200,
        "video_max_pixels": 200, "output_dir": str(tmp_path / "saved"),
        "max_steps": 2, "per_device_train_batch_size": 2, "template": "qwen2_vl",
    }  # fmt: skip
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(theirs), "utf-8")
    told = command("train", path)
    assert told.code == 0, told.err
    assert "data.video_pixels has no effect" in told.out + told.err
    blind = tiny.make_model(tmp_path / "blind")
    text = {**theirs, "model_name_or_path": str(blind), "freeze_vision_tower": False}
    text["output_dir"] = str(tmp_path / "other")
    path.write_text(json.dumps(text), "utf-8")
    given = read_given(path)
    assert given.notes["freeze_vision_tower"] == "the model reads text alone"
    assert given.notes["image_max_pixels"] == "the model reads text alone"
    assert given.recipe.tuning.kind == "lora"
    assert given.recipe.data.image_pixels is None
