"""What LLaMA-Factory's files of chat, api, export and prediction ask for, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import theirs
from tests.theirs import become, use
from tunesmith.errors import RecipeError
from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.file import RENAMED
from tunesmith.recipe.llamafactory.keys import list_keys
from tunesmith.recipe.llamafactory.use import ACTS, OF_ROWS, Verb

PREDICT: dict[str, Any] = {
    "stage": "sft",
    "do_predict": True,
    "predict_with_generate": True,
    "eval_dataset": "questions,pairs",
    "cutoff_len": 32,
    "max_samples": 5,
    "output_dir": "saves/predict",
}


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs.write_sets(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_a_file_of_prediction_names_rows_answers_and_a_folder() -> None:
    measured = use("evaluate", **PREDICT, max_new_tokens=7, default_system="Be short.").measured
    assert measured is not None
    assert (measured.answers, measured.tokens) == (True, 7)
    assert measured.to == Path("saves/predict").absolute()
    assert measured.rows is not None
    assert [(s.path, s.max_rows) for s in measured.rows.train] == [("questions", 5), ("pairs", 5)]
    assert (measured.rows.max_tokens, measured.rows.system) == (32, "Be short.")
    assert measured.rows.info == Path("data/dataset_info.json").absolute()


def test_a_file_of_evaluation_asks_for_the_loss_alone() -> None:
    loss = use("evaluate", do_eval=True, eval_dataset="questions").measured
    assert loss is not None
    assert not loss.answers
    plain = use("evaluate").measured
    assert plain is not None
    assert (plain.answers, plain.tokens, plain.rows, plain.to) == (True, None, None, None)
    held_out = use("evaluate", do_eval=True, dataset="questions", val_size=0.1).measured
    assert held_out is not None
    assert held_out.rows is None


@pytest.mark.parametrize(
    "verb", ["chat", *(pytest.param(v, marks=pytest.mark.proof) for v in ACTS if v != "chat")]
)
def test_no_key_is_dropped_silently(verb: Verb) -> None:
    plain = use(verb)
    samples: dict[str, Any] = {"count": 7, "number": 0.25, "mapping": {"a": 1}, "list": "a"}
    for key in list_keys().values():
        words = [word for word in key.type if word != key.default]
        value = words[-1] if isinstance(key.type, list) else samples.get(str(key.type), "questions")
        value = not key.default if key.type == "flag" else value
        try:
            found = use(verb, **{key.name: value})
        except RecipeError:
            continue
        name = RENAMED.get(key.name, key.name)
        assert found != plain or name in ACTS[verb], name
        both = name == "template" or name in OF_ROWS  # with an eval_dataset only
        assert (name in found.notes) != (name in ACTS[verb]) or both


def test_a_note_says_what_a_key_is_for() -> None:
    notes = use(infer_backend="vllm", export_dir="out", lora_rank=4, infer_dtype="float16").notes
    assert "--engine vllm" in notes["infer_backend"]
    assert notes["export_dir"] == "it is for export"
    assert notes["lora_rank"] == "it is for training and evaluation"
    assert "--precision" in notes["infer_dtype"]
    assert use("export", export_dir="out", temperature=0.5).notes == {
        "temperature": "it is for chat and serve"
    }


@pytest.mark.parametrize(
    ("verb", "keys", "key"),
    [
        ("chat", {"do_train": True, "output_dir": "saves/a"}, "do_train"),
        ("export", {"do_train": True, "export_dir": "o"}, "do_train"),
        ("evaluate", {"task": "mmlu_test", "template": "fewshot"}, "task"),
        ("evaluate", {"eval_dataset": "questions", "val_size": 0.1}, "val_size"),
        ("evaluate", {"eval_dataset": "questions", "dataset": "pairs"}, "dataset"),
        ("evaluate", {"dataset": "questions"}, "dataset"),
        ("evaluate", {"val_size": 0.1}, "val_size"),
        ("evaluate", {"do_predict": True, "eval_dataset": "questions"}, "do_predict"),
        ("evaluate", {**PREDICT, "compute_accuracy": True}, "compute_accuracy"),
        ("evaluate", {**PREDICT, "dataset_dir": "nowhere"}, "dataset_dir"),
    ],
    ids=str,
)
def test_what_a_file_of_use_cannot_ask_for(verb: Verb, keys: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as refused:
        use(verb, **keys)
    assert refused.value.where.endswith(f", {key}")
    assert refused.value.hint


@pytest.mark.parametrize(
    ("keys", "key", "command"),
    [
        ({**PREDICT, "dataset": None}, "do_predict", "evaluate their.yaml"),
        ({"do_eval": True, "eval_dataset": "questions"}, "do_eval", "evaluate their.yaml"),
        ({"export_dir": "out"}, "export_dir", "export their.yaml"),
        ({"infer_backend": "huggingface"}, "infer_backend", "chat their.yaml"),
        ({}, "do_train", "chat, serve, export and evaluate take their.yaml"),
    ],
    ids=str,
)
def test_a_file_that_is_not_for_training_names_the_command(
    keys: dict[str, Any], key: str, command: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        become(**{"do_train": None, **keys})
    assert refused.value.where.endswith(f", {key}")
    assert command in refused.value.hint


BENT: dict[str, dict[str, Any]] = {
    **theirs.EXAMPLES,
    "packed": {"packing": True},
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze"},
    "oft": {"finetuning_type": "oft"},
    "ppo": theirs.PPO,
    "qlora": theirs.QLORA,
    "badam": {"finetuning_type": "full", "use_badam": True},
}


@pytest.mark.proof
@pytest.mark.parametrize("name", BENT)
def test_a_key_that_changes_nothing_is_told(name: str) -> None:
    samples: dict[str, Any] = {"count": 7, "number": 0.25, "list": "a", "text": "x"}
    plain = become(**BENT[name])
    told = ("lora_", "oft_", "pref_", "kto_", "galore_", "badam_", "quantization_", "freeze_",
            "dpo_", "simpo_", "packing", "ref_model", "optim", "max_grad_norm")  # fmt: skip
    for key in list_keys().values():
        if not key.to or not key.name.startswith(told) or key.name in BENT[name]:
            continue
        words = [word for word in key.type if word != key.default]
        value = words[-1] if isinstance(key.type, list) else samples.get(str(key.type))
        value = not key.default if key.type == "flag" else value
        try:
            found = become(**{**BENT[name], key.name: value})
        except RecipeError:
            continue
        assert found.recipe != plain.recipe or key.name in found.notes, key.name


def test_a_key_of_another_stage_is_told_with_its_own() -> None:
    notes = become(pref_beta=0.3, oft_block_size=8, quantization_method="hqq").notes
    assert notes["pref_beta"] == "it is for stage: dpo"
    assert notes["oft_block_size"] == "it is for finetuning_type: oft"
    assert "quantization_bit is not given" in notes["quantization_method"]
    assert "pref_beta" not in become(**theirs.EXAMPLES["dpo"], around=Around()).notes


def test_names_and_flags_of_earlier_versions_are_read() -> None:
    old = {"dpo_beta": 0.3, "dpo_ftx": 0.5, "pref_beta": None}
    method = become(**{**theirs.EXAMPLES["dpo"], **old}).recipe.method.model_dump()
    assert (method["beta"], method["sft_weight"]) == (0.3, 0.5)
    few = become(quantization_bit=4, quantization_method="bitsandbytes").recipe.model.quantize
    assert few is not None
    assert few.kind == "nf4"
    notes = become(include_num_input_tokens_seen=True, flash_attn=True).notes
    assert {"include_num_input_tokens_seen", "flash_attn"} <= set(notes)
    with pytest.raises(RecipeError) as refused:
        become(**{**theirs.EXAMPLES["dpo"], "pref_beta": None, "dpo_beta": "much"})
    line = Path("their.yaml").read_text().splitlines().index("dpo_beta: much") + 1
    assert refused.value.where == f"their.yaml:{line}, dpo_beta"


def test_positions_are_stretched_only_where_rows_need_it() -> None:
    long = Around(positions=lambda name: 64)
    fitting = become(rope_scaling="linear", cutoff_len=64, around=long)
    assert fitting.recipe.model.rope_scaling is None
    assert "as it is" in fitting.notes["rope_scaling"]
    stretched = become(rope_scaling="linear", cutoff_len=65, around=long)
    assert stretched.recipe.model.rope_scaling is not None
    assert "rope_scaling" not in stretched.notes


def test_a_run_that_has_not_ended_is_named_to_go_on() -> None:
    asked: list[Path] = []
    around = Around(unfinished=lambda folder: asked.append(folder) or "2026-tiny")  # type: ignore[func-returns-value]
    for keys in ({"resume_from_checkpoint": True}, {"overwrite_output_dir": False}):
        with pytest.raises(RecipeError) as refused:
            become(around=around, **keys)
        assert "`tunesmith runs resume 2026-tiny` goes on" in refused.value.hint
    assert asked[0] == Path("saves/tiny/lora/sft").absolute()
    assert become(around=around).recipe.run.publish_to == asked[0]


def test_rows_that_are_not_measured_are_told() -> None:
    found = use("evaluate", do_eval=True, dataset="questions", val_size=0.5, max_samples=3)
    assert {"dataset", "val_size", "max_samples"} <= found.notes.keys()
    assert "held out" in found.notes["dataset"]


def test_what_a_file_measures_is_what_its_flags_say() -> None:
    def asked(**keys: Any) -> tuple[bool, bool]:
        measured = use("evaluate", **keys).measured
        assert measured is not None
        return measured.loss, measured.answers

    answered = {"do_predict": True, "predict_with_generate": True}
    assert asked(**answered) == (False, True)
    assert asked(do_eval=True) == (True, False)
    assert asked(do_eval=True, **answered) == (True, True)
    assert asked() == (True, True)


def test_a_folder_with_a_blank_is_quoted_in_the_hint() -> None:
    with pytest.raises(RecipeError) as refused:
        use("chat", do_train=True, output_dir="saves/x y")
    assert "'saves/x y'" in (refused.value.hint or "")


def test_no_key_that_counts_is_called_idle() -> None:
    notes = become(overwrite_output_dir=True, output_dir="saves/new").notes
    assert "overwrite_output_dir" not in notes
    packed = become(stage="pt", packing=True, dataset="texts").notes
    assert "not packed" not in packed.get("packing", "")
