"""A run is measured beside its base, on held-out rows or on files, and the result is kept."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tunesmith.errors import DataError, ModelError, RunError, TunesmithError
from tunesmith.evaluation import metrics
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.evaluation.scores import Measures, Scores
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import load_chat_model
from tunesmith.runs.run import Run

TOKENS = 8
CLOSE = 2e-5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def held_out(root: Path) -> Path:
    return tiny.write_pairs(root / "held.jsonl", 6, start=100)


@pytest.fixture(scope="module")
def made(root: Path, held_out: Path) -> dict[str, Run]:
    torch.set_num_threads(1)
    model = tiny.make_model(root / "model")
    data = {"validation": [str(held_out)]}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return {
            kind: tiny.train_run(root, model, data=data, run={"name": kind}, tuning={"kind": kind})
            for kind in ("lora", "full")
        }


@pytest.fixture
def runs(made: dict[str, Run], tmp_path: Path) -> dict[str, Run]:
    """Copies that a test may write scores into."""
    (tmp_path / "runs").mkdir()
    return {
        kind: Run(Path(shutil.copytree(run.path, tmp_path / "runs" / run.name)))
        for kind, run in made.items()
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def mean_loss(model: Any, folder: Path, path: Path) -> float:
    """The loss of the answers, one row at a time, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for row in rows_of(path):
        messages = [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
        rendered = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        ids = torch.tensor([rendered["input_ids"]])
        with torch.no_grad():
            logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        for place, learned in enumerate(rendered["assistant_masks"][1:]):
            if learned:
                total -= float(logps[place, ids[0, place + 1]])
                count += 1
    return total / count


def measure(run: Run, **options: Any) -> Scores:
    return evaluate(run.path, max_tokens=TOKENS, **options)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_losses_are_those_of_an_independent_computation(
    runs: dict[str, Run], root: Path, held_out: Path, kind: str
) -> None:
    scores = measure(runs[kind])
    base = AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.float32)
    assert scores.base is not None
    assert scores.base.loss == pytest.approx(mean_loss(base, root / "model", held_out), rel=CLOSE)
    tuned = load_chat_model(runs[kind].path, precision="fp32", device="cpu").model
    if kind == "full":
        tuned = AutoModelForCausalLM.from_pretrained(runs[kind].model, dtype=torch.float32)
    assert scores.tuned.loss == pytest.approx(mean_loss(tuned, root / "model", held_out), rel=CLOSE)
    assert scores.tuned.loss < scores.base.loss
    assert scores.tuned.perplexity == pytest.approx(math.exp(scores.tuned.loss))
    logged = [record["eval_loss"] for record in runs[kind].metrics() if "eval_loss" in record]
    assert scores.tuned.loss == pytest.approx(logged[-1], rel=1e-4)


def test_answers_are_those_that_both_models_give(runs: dict[str, Run], held_out: Path) -> None:
    scores = measure(runs["lora"])
    for base_only in (False, True):
        model = load_chat_model(runs["lora"].path, base_only=base_only, precision="fp32")
        asked = [
            encode_prompt(model, [{"role": "user", "content": row["instruction"]}])
            for row in rows_of(held_out)
        ]
        said = [given.text for given in answer(model, asked, Sampling(max_tokens=TOKENS))]
        shown = [row.base if base_only else row.tuned for row in scores.answers]
        assert shown == said
    assert [(row.question, row.expected) for row in scores.answers] == [
        (row["instruction"], row["output"]) for row in rows_of(held_out)
    ]


def test_scores_are_those_of_the_answers(runs: dict[str, Run]) -> None:
    scores = measure(runs["lora"])
    said = [row.tuned for row in scores.answers]
    expected = [row.expected for row in scores.answers]
    pairs = list(zip(said, expected, strict=True))
    assert scores.tuned == Measures(
        loss=scores.tuned.loss,
        perplexity=scores.tuned.perplexity,
        rouge_l=sum(metrics.rouge_l(*pair) for pair in pairs) / len(pairs),
        bleu=metrics.bleu(said, expected),
        chrf=metrics.chrf(said, expected),
        exact_match=sum(metrics.exact_match(*pair) for pair in pairs) / len(pairs),
        fact_rate=None,
    )
    assert scores.tuned.chrf > scores.base.chrf  # type: ignore[union-attr,operator]


def test_the_result_is_kept_in_the_run(runs: dict[str, Run]) -> None:
    scores = measure(runs["lora"])
    kept = json.loads(runs["lora"].scores_file.read_text("utf-8"))
    assert kept == json.loads(json.dumps(asdict(scores)))
    assert (kept["run"], kept["rows"], kept["num_rows"]) == (
        runs["lora"].name,
        "held-out rows",
        6,
    )
    assert kept["base"]["loss"] > kept["tuned"]["loss"]
    assert len(kept["answers"]) == 6


def test_measuring_twice_gives_the_same(runs: dict[str, Run]) -> None:
    assert measure(runs["lora"]) == measure(runs["lora"])


def test_facts_are_looked_for_in_the_answers(runs: dict[str, Run], tmp_path: Path) -> None:
    rows = [
        {"instruction": "question 5", "output": "It is 35.", "fact": "It is"},
        {"instruction": "question 6", "output": "It is 42.", "fact": ["never", "it IS"]},
        {"instruction": "question 7", "output": "It is 49.", "fact": "never said"},
        {"instruction": "question 8", "output": "It is 56."},
    ]
    scores = measure(runs["lora"], data=[tiny.write_rows(tmp_path / "facts.jsonl", rows)])
    expected = [metrics.holds_fact(row.tuned, ["It is"]) for row in scores.answers]
    assert [row.tuned_has_fact for row in scores.answers] == [*expected[:2], False, None]
    assert [row.base_has_fact for row in scores.answers] == [False, False, False, None]
    assert any(expected[:2])
    assert scores.tuned.fact_rate == sum(expected[:2]) / 3
    assert scores.base is not None
    assert scores.base.fact_rate == 0.0


@pytest.mark.parametrize("kind", ["array", "csv", "messages"])
def test_facts_are_read_from_every_kind_of_file(
    runs: dict[str, Run], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "facts"
    if kind == "array":
        rows = [{"instruction": f"question {n}", "output": "a", "fact": "It"} for n in range(2)]
        path = path.with_suffix(".json")
        path.write_text(json.dumps(rows), "utf-8")
    elif kind == "csv":
        path = path.with_suffix(".csv")
        path.write_text("instruction,output,fact\nquestion 0,a,It\nquestion 1,b,It\n", "utf-8")
    else:
        talk = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "question 0"},
            {"role": "assistant", "content": "a"},
        ]
        rows = [{"messages": talk, "fact": "It"}, {"messages": talk[2:], "fact": "It"}]
        path = tiny.write_rows(path.with_suffix(".jsonl"), rows)
    scores = measure(runs["lora"], data=[path])
    assert [row.tuned_has_fact for row in scores.answers] == [
        metrics.holds_fact(row.tuned, ["It"]) for row in scores.answers
    ]
    assert len(scores.answers) == 2


def test_max_rows_limits_the_questions_and_not_the_loss(runs: dict[str, Run]) -> None:
    every, some = measure(runs["lora"]), measure(runs["lora"], max_rows=2)
    assert some.answers == every.answers[:2]
    assert some.num_rows == 6
    assert some.tuned.loss == every.tuned.loss


def test_several_files_are_measured_together(
    runs: dict[str, Run], root: Path, held_out: Path, tmp_path: Path
) -> None:
    more = tiny.write_pairs(tmp_path / "more.jsonl", 3, start=200)
    scores = measure(runs["lora"], data=[held_out, more])
    assert scores.rows == f"{held_out}, {more}"
    assert scores.num_rows == 9
    assert [row.question for row in scores.answers][6:] == [
        row["instruction"] for row in rows_of(more)
    ]
    joined = tiny.write_rows(tmp_path / "joined.jsonl", rows_of(held_out) + rows_of(more))
    tuned = load_chat_model(runs["lora"].path, precision="fp32", device="cpu").model
    assert scores.tuned.loss == pytest.approx(mean_loss(tuned, root / "model", joined), rel=CLOSE)


def test_a_checkpoint_is_measured_as_itself(runs: dict[str, Run]) -> None:
    (checkpoint,) = runs["lora"].checkpoints.glob("step-*")
    run = runs["lora"]
    final = measure(run)
    before = run.scores_file.read_bytes()
    scores = evaluate(checkpoint, max_tokens=TOKENS)
    assert scores.tuned == final.tuned
    assert scores.run == f"{run.name}/{checkpoint.name}"
    assert run.scores_file.read_bytes() == before
    kept = run.path / f"scores-{checkpoint.name}.json"
    assert json.loads(kept.read_text("utf-8")) == json.loads(json.dumps(asdict(scores)))


def test_a_run_whose_data_changed_has_no_held_out_rows(tmp_path: Path, root: Path) -> None:
    data = tiny.write_pairs(tmp_path / "rows.jsonl", 20)
    run = tiny.train_run(
        tmp_path,
        root / "model",
        data={"train": [str(data)], "validation_share": 0.2},
        run={"steps": 1},
    )
    assert measure(run, max_rows=1).num_rows == 4
    tiny.write_pairs(data, 21)
    problem = refusal(run.path)
    assert isinstance(problem, RunError)
    assert "the data changed since the run" in problem.message
    assert problem.hint == "put the data back, or use --data"
    assert measure(run, data=[data], max_rows=1).num_rows == 21


@pytest.mark.parametrize("format_name", ["auto", "alpaca"])
def test_a_file_may_be_written_as_the_run_s_own(
    tmp_path: Path, root: Path, format_name: str
) -> None:
    def write(name: str, question: str, answer: str) -> Path:
        rows = [{question: f"question {n}", answer: f"It is {n}."} for n in range(6)]
        return tiny.write_rows(tmp_path / name, rows)

    own = write("own.jsonl", "frage", "antwort")
    columns = {"instruction": "frage", "output": "antwort"}
    run = tiny.train_run(
        tmp_path,
        root / "model",
        data={"train": [{"path": str(own), "columns": columns, "format": format_name}]},
        run={"steps": 1},
    )
    plain = write("plain.jsonl", "instruction", "output")
    scores = [measure(run, data=[path]) for path in (own, plain)]
    assert scores[0].tuned == scores[1].tuned
    assert [row.question for row in scores[0].answers] == [f"question {n}" for n in range(6)]


def test_a_question_longer_than_the_model_is_answered_with_nothing(
    tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = {"train": [str(tiny.write_pairs(tmp_path / "few.jsonl", 8))], "max_tokens": 3000}
    run = tiny.train_run(tmp_path, root / "model", data=pairs, run={"steps": 2})
    rows = [
        {"instruction": "word " * 400, "output": "It is 35."},
        {"instruction": "question 5", "output": "It is 35."},
    ]
    scores = measure(run, data=[tiny.write_rows(tmp_path / "long.jsonl", rows)])
    assert (scores.answers[0].base, scores.answers[0].tuned) == ("", "")
    assert scores.answers[1].base
    assert "questions that are longer than the model takes: 1" in caplog.text


def test_rows_that_are_left_out_are_not_asked(tmp_path: Path, root: Path) -> None:
    pairs = {"train": [str(tiny.write_pairs(tmp_path / "few.jsonl", 8))], "on_bad_row": "skip"}
    run = tiny.train_run(tmp_path, root / "model", data=pairs, run={"steps": 1})
    rows = [
        {"instruction": "word " * 40, "output": "its prompt fills the row"},
        {"instruction": 5, "output": "no text"},
        {"instruction": "question 5", "output": "It is 35."},
    ]
    scores = measure(run, data=[tiny.write_rows(tmp_path / "mixed.jsonl", rows)])
    assert scores.num_rows == 1
    assert [row.question for row in scores.answers] == ["question 5"]


def test_a_model_from_scratch_has_no_base(tmp_path: Path, root: Path, held_out: Path) -> None:
    run = tiny.train_run(
        tmp_path,
        root / "model",
        model={"from_scratch": True},
        data={"validation": [str(held_out)]},
        tuning={"kind": "full"},
        run={"steps": 2},
    )
    scores = measure(run, max_rows=2)
    assert scores.base is None
    assert all(row.base is None and row.base_has_fact is None for row in scores.answers)
    assert json.loads(run.scores_file.read_text("utf-8"))["base"] is None


def test_a_model_of_plain_text_has_a_loss_and_no_answers(tmp_path: Path, root: Path) -> None:
    texts = [{"text": f"the quick brown fox jumps over {n}"} for n in range(12)]
    data = tiny.write_rows(tmp_path / "texts.jsonl", texts)
    run = tiny.train_run(
        tmp_path,
        root / "model",
        method={"name": "pretrain"},
        data={"train": [str(data)], "validation_share": 0.25},
        run={"steps": 2},
    )
    scores = measure(run)
    assert scores.answers == []
    assert scores.tuned == Measures(scores.tuned.loss, math.exp(scores.tuned.loss))
    assert scores.base is not None
    assert scores.tuned.loss < scores.base.loss


def refusal(name: str | Path, **options: Any) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        evaluate(name, **options)
    return caught.value


def test_a_run_without_held_out_rows_is_refused(tmp_path: Path, root: Path) -> None:
    run = tiny.train_run(tmp_path, root / "model", run={"steps": 1})
    problem = refusal(run.name)
    assert isinstance(problem, DataError)
    assert problem.message == "the run held out no rows to measure on"
    assert "--data" in problem.hint
    assert "validation_share" in problem.hint
    assert not run.scores_file.exists()


def test_a_model_is_no_run(root: Path) -> None:
    problem = refusal(root / "model")
    assert isinstance(problem, RunError)
    assert "only runs are evaluated beside their base" in problem.message


def test_a_run_that_is_not_there_is_refused(runs: dict[str, Run]) -> None:
    assert isinstance(refusal("lorra"), ModelError)


def test_a_file_that_is_not_there_is_named(runs: dict[str, Run], tmp_path: Path) -> None:
    problem = refusal(runs["lora"].path, data=[tmp_path / "gone.jsonl"])
    assert "gone.jsonl" in f"{problem.message} {problem.where}"


def test_bad_rows_of_a_file_are_refused_by_line(runs: dict[str, Run], tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"instruction": "q", "output": "a"}\n{"instruction": 5}\n', "utf-8")
    problem = refusal(runs["lora"].path, data=[path])
    assert isinstance(problem, DataError)
    assert f"{path}:2" in f"{problem.message} {problem.where}"
