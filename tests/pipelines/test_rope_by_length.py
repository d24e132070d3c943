"""A model tuned with positions that turn by length says everywhere what transformers says anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.unit.serving import inside
from tunesmith.errors import ExportError, ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.export.order import Form
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.vllm import Vllm
from tunesmith.models.chat import find_subject, load_chat_model
from tunesmith.models.load import load_config
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.serving.answers import Answering, open_answers
from tunesmith.training.train import train

SHORT, LONG = 32, 128
ASKED = ("hi", "question 3 " * 4, "question 7 and " * 6)
"""Prompts on both sides of the length from which positions turn slower."""
pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    model = tiny.make_model(
        folder / "short", seed=3, max_position_embeddings=SHORT, initializer_range=0.2
    )
    rows = [
        {"instruction": f"question {n} " * (1 + n % 5), "output": f"It is {n * 7}. " * (1 + n % 3)}
        for n in range(20)
    ]
    data = tiny.write_rows(folder / "rows.jsonl", rows)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(folder / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(folder / "cache"))
        recipe = tiny.write_recipe(
            folder / "r.json",
            model,
            data,
            model={"rope_scaling": {"kind": "dynamic"}},
            data={"validation_rows": 6, "max_tokens": LONG},
            optimizer={"learning_rate": 3e-3},
        )
        return train(load_recipe(recipe))


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run.path, tmp_path_factory.mktemp("out") / "model").folder


def new_model(folder: Path) -> Any:
    """A model that has seen no text yet: one that has turns the next otherwise."""
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def written_by_theirs(folder: Path, prompt: Sequence[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    given = new_model(folder).generate(input_ids=ids, max_new_tokens=count, do_sample=False)
    return given[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


def test_answers_of_the_run_its_export_and_a_server_are_those_of_a_new_model(
    run: Run, exported: Path
) -> None:
    model = load_chat_model(exported, precision="fp32", device="cpu")
    talks = [[{"role": "user", "content": said}] for said in ASKED]
    prompts = [encode_prompt(model, talk) for talk in talks]
    lengths = list(map(len, prompts))
    assert min(lengths) < SHORT < max(lengths)
    expected = [written_by_theirs(exported, prompt, 24) for prompt in prompts]
    assert max(map(len, expected)) > 3
    greedy = Sampling(max_tokens=24, temperature=0.0)
    for name in (run.path, exported):
        ours = load_chat_model(name, precision="fp32", device="cpu")
        assert [list(one.written) for one in answer(ours, prompts, greedy)] == expected
    text = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]
    for name in (run.path, exported):
        service = open_answers(name, Answering("tuned", precision="fp32"))
        with closing(service), inside.asking(service) as client:
            for talk, said in [*zip(talks, text, strict=True)] * 2:
                body = {"messages": talk, "max_tokens": 24, "model": "tuned", "temperature": 0}
                reply = client.post("/v1/chat/completions", json=body)
                assert reply.json()["choices"][0]["message"]["content"].strip() == said.strip()


def test_evaluate_measures_the_loss_of_new_models(run: Run, exported: Path) -> None:
    rows = tiny.write_rows(
        run.path.parent.parent / "held_out.jsonl",
        [{"instruction": said, "output": "It is 7." * n} for n, said in enumerate(ASKED, 1)],
    )
    found = evaluate(run.path, data=[rows])
    model = load_chat_model(exported, precision="fp32", device="cpu")
    total, count = 0.0, 0
    for number, said in enumerate(ASKED, 1):
        asked = encode_prompt(model, [{"role": "user", "content": said}])
        answered = "It is 7." * number
        ids = model.tokenizer.encode(answered + "<|im_end|>", add_special_tokens=False)
        newline = model.tokenizer.encode("\n", add_special_tokens=False)  # it counts as length
        given = torch.tensor([[*asked, *ids, *newline]])
        with torch.no_grad():
            logits = new_model(exported)(input_ids=given).logits[0, len(asked) - 1 :][: len(ids)]
        total += float(cross_entropy(logits, torch.tensor(ids), reduction="sum"))
        count += len(ids)
    assert found.tuned.loss == pytest.approx(total / count, rel=1e-5)


def test_what_cannot_turn_so_is_refused(run: Run, exported: Path, tmp_path: Path) -> None:
    for kind in ("gguf", "ollama"):
        with pytest.raises(ExportError, match=r"no rope of the kind dynamic") as caught:
            export(run.path, tmp_path / kind, form=Form(kind))
        assert "safetensors" in caught.value.hint
        assert not (tmp_path / kind).exists()
    with pytest.raises(ExportError, match=r"model\.rope_scaling changed"):
        export(run.path, tmp_path / "adapter", form=Form("adapter"))
    with pytest.raises(ModelError, match="vLLM turns the positions of every text") as refused:
        Vllm(find_subject(exported))
    assert "--engine own" in refused.value.hint
    assert load_config(exported).rope_parameters["rope_type"] == "dynamic"


def test_a_model_of_several_axes_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    from tests import seeing
    from tunesmith.runs.store import list_runs

    model = seeing.make_seeing_model(tmp_path / "model", "Qwen 2 VL", max_position_embeddings=16)
    data = seeing.write_rows(tmp_path / "rows", 1)
    recipe = tiny.write_recipe(
        tmp_path / "r.json", model, data, model={"rope_scaling": {"kind": "dynamic"}}
    )
    before = len(list_runs())
    with pytest.raises(RecipeError, match="several axes") as caught:
        train(load_recipe(recipe))
    assert caught.value.hint == "write model.rope_scaling.kind: yarn"
    assert len(list_runs()) == before
