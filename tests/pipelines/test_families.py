"""Each family of models that transformers holds: trained, asked, exported, opened by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.families import FAMILIES
from tests.matrix import RUNS, Matrix
from tunesmith.export.export import export
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import load_chat_model
from tunesmith.models.layout import find_layout
from tunesmith.recipe.load import load_recipe
from tunesmith.training.train import train

NO_SAMPLES = {"sample_rows": 0, "sample_tokens": 64}
QUICK = ("Llama 3", "BLOOM", "gpt-oss")
CASES = [
    pytest.param(family, kind, marks=[] if quick else pytest.mark.proof)
    for family in FAMILIES
    for kind in ("lora", "full")
    for quick in [family in QUICK and kind == "lora"]
]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(
            input_ids=torch.arange(5, 25)[None], use_cache=False
        ).logits
    return out


def close(one: torch.Tensor, other: torch.Tensor, share: float = 1e-5) -> bool:
    return float((one - other).abs().max()) <= share * float(other.abs().max())


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_family_is_trained_asked_and_opened_by_others(
    tmp_path: Path, family: str, kind: str, matrix: Matrix
) -> None:
    model = tiny.make_model(tmp_path / "model", family)
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    given = {"tuning": {"kind": kind}, "run": {"steps": 2}, "evaluate": NO_SAMPLES}
    run = train(load_recipe(tiny.write_recipe(tmp_path / "recipe.json", model, data, **given)))
    tuned = load_chat_model(run.path, precision="fp32", device="cpu")
    said = logits(tuned.model)

    theirs = AutoModelForCausalLM.from_pretrained(model if kind == "lora" else run.model)
    if kind == "lora":
        assert not close(logits(theirs), said, 1e-3)
        theirs = PeftModel.from_pretrained(theirs, str(run.model))
    assert close(logits(theirs), said)

    prompt = encode_prompt(tuned, [{"role": "user", "content": "question 3"}])
    (given,) = answer(tuned, [prompt], Sampling(max_tokens=6))
    ids = torch.tensor([prompt])
    whole = theirs.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
    )
    assert whole[0, len(prompt) :].tolist()[: len(given.tokens)] == list(given.tokens)

    exported = export(run.path, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(exported.folder)
    assert close(logits(back), said)

    layout = find_layout(back)
    matrix.note("families", family, "model_type", str(FAMILIES[family]["model_type"]))
    lie = "end to end" if layout.is_flat else f"padded: {layout.padded_because}"
    matrix.note("families", family, "rows", lie)
    matrix.note("families", family, kind, RUNS)
