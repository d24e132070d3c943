"""LLaMA-Factory's files for images, videos and sounds: trained, merged, asked and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import seeing, theirs, tiny, videos
from tests.command import Command
from tests.pipelines.test_drawer import OUTPUT, SHORT, say, write
from tests.tiny import weights
from tunesmith.models.chat import find_subject

pytestmark = pytest.mark.proof
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user",
        "assistant_tag": "assistant"}  # fmt: skip
SHOWN = {
    "image": ("Qwen 2.5 VL", "qwen2_vl", {"image_max_pixels": 256, "image_min_pixels": 64}),
    "video": ("Qwen 2.5 VL", "qwen2_vl", {"video_max_pixels": 256, "video_fps": 2.0,
                                          "video_maxlen": 4}),
    "audio": ("Qwen 2 Audio", "qwen2_audio", {"audio_sampling_rate": 16000}),
}  # fmt: skip
WHOLE = {"finetuning_type": "full", "freeze_vision_tower": True, "freeze_language_model": False,
         "freeze_multi_modal_projector": True, **theirs.WITHOUT_LORA}  # fmt: skip
PROJECTOR = {**WHOLE, "freeze_language_model": True, "freeze_multi_modal_projector": False}


@pytest.fixture(scope="module", params=SHOWN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing.make_seeing_model(tmp_path_factory.mktemp("models") / kind, SHOWN[kind][0])


@pytest.fixture
def shown(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a set like mllm_demo; return a file of it."""
    data = theirs.write_sets(tmp_path)
    media, rows = data / "mllm_demo_data", []
    media.mkdir()
    for number, colour in enumerate(seeing.COLOURS):
        name = f"{number}.{ {'image': 'png', 'video': 'mp4', 'audio': 'wav'}[kind] }"
        if kind == "image":
            seeing.make_picture(colour, number).save(media / name)
        elif kind == "video":
            videos.write_film(media / name, videos.make_frames(12, colour=seeing.COLOURS[colour]))
        else:
            seeing.write_sound(media / name, 300 + 900 * number)
        asked = {"role": "user", "content": f"<{kind}>what is it?"}
        said = {"role": "assistant", "content": colour}
        rows.append({"messages": [asked, said], f"{kind}s": [f"mllm_demo_data/{name}"]})
    tiny.write_rows(data / "mllm_demo.jsonl", rows)
    entry = {"file_name": "mllm_demo.jsonl", "formatting": "sharegpt", "tags": TAGS,
             "columns": {"messages": "messages", f"{kind}s": f"{kind}s"}}  # fmt: skip
    info = json.loads((data / "dataset_info.json").read_text("utf-8"))
    (data / "dataset_info.json").write_text(json.dumps({**info, "mllm_demo": entry}), "utf-8")
    monkeypatch.chdir(tmp_path)
    return f"data/{rows[0][f'{kind}s'][0]}"


def train(command: Command, kind: str, model: Path, **keys: Any) -> None:
    _, template, pixels = SHOWN[kind]
    given = {"dataset": "mllm_demo,questions", "template": template, "cutoff_len": 256,
             "output_dir": OUTPUT, "learning_rate": 1.0e-2, "warmup_ratio": 0,
             **pixels, **keys}  # fmt: skip
    outcome = command("train", theirs.write_theirs(Path("sft.yaml"), model, **given), *SHORT)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("tuned", ["lora", "full"])
def test_what_is_shown_is_learned_merged_asked_and_measured(
    tuned: str, kind: str, model: Path, shown: str, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    train(command, kind, model, **(WHOLE if tuned == "full" else {}))
    named: dict[str, Any] = {"template": SHOWN[kind][1], "trust_remote_code": True}
    if tuned == "lora":
        named |= {"model_name_or_path": str(model), "adapter_name_or_path": OUTPUT}
    else:
        named |= {"model_name_or_path": OUTPUT}
    merged = command("export", write("merge.yaml", **named, export_dir="merged"))
    assert merged.code == 0, merged.err
    assert Path("merged/preprocessor_config.json").is_file()
    for use in (named, {"model_name_or_path": "merged"}):
        say(monkeypatch, f"/{kind} {shown}", "what is it?")
        talked = command("chat", write("chat.yaml", **use, do_sample=False), "max_new_tokens=3")
        assert talked.code == 0, talked.err
        assert not talked.err.strip(), talked.err
    asked = {"do_predict": True, "predict_with_generate": True, "eval_dataset": "mllm_demo",
             "output_dir": "predicted", "cutoff_len": 256}  # fmt: skip
    measured = command("evaluate", write("predict.yaml", **named, **asked), "max_new_tokens=3")
    assert measured.code == 0, measured.err
    lines = Path("predicted/generated_predictions.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["label"] for line in lines} == set(seeing.COLOURS)


def test_the_projector_learns_alone(kind: str, model: Path, shown: str, command: Command) -> None:
    from safetensors.torch import load_file

    train(command, kind, model, **PROJECTOR)  # some updates hold texts alone
    train(command, kind, model, **PROJECTOR, dataset="mllm_demo")
    run = find_subject(OUTPUT).run
    assert run is not None
    before = load_file(model / "model.safetensors")
    moved = {name for name, now in weights(run).items() if not now.equal(before[name])}
    assert moved
    assert not [name for name in moved if "layers" in name or "lm_head" in name], moved
