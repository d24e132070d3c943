"""Several models behind one address: adapters, points, scores, and clients for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fastapi.testclient import TestClient  # noqa: TC002  fixtures are read at run time
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.command import Command
from tests.unit.serving import inside
from tests.unit.serving.running import wait_for
from tests.unit.serving.watching import SECRET, SECRETS
from tunesmith.errors import RequestError
from tunesmith.export.export import export
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.score import score
from tunesmith.methods.rewards.endpoint import ask_scores
from tunesmith.methods.rewards.sample import Sample
from tunesmith.models.chat import find_subject, load_chat_model, load_reward_model
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.rewards import Endpoint
from tunesmith.runs.run import Run
from tunesmith.serving.answers import Answering, open_answers
from tunesmith.serving.limits import SECONDS_TO_TOKENIZE
from tunesmith.serving.service import Service
from tunesmith.templates import named_template
from tunesmith.training.train import train

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "question 3"}]
LORA = {"kind": "lora", "rank": 4}


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that trained an adapter."""
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("run")
        environment.setenv("TUNESMITH_RUNS", str(folder / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(folder / "cache"))
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        return tiny.train_run(folder, tiny_model, tuning=LORA)


def test_nothing_of_the_environment_is_kept_in_a_run_or_in_what_is_exported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    export(run.path, tmp_path / "out")
    files = [path for top in (run.path, tmp_path / "out") for path in top.rglob("*")]
    assert (run.path / "environment.json") in files
    assert not [path for path in files if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_further_runs_are_served_beside_the_first_by_their_names(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("tunesmith.serving.serve.serve", lambda *asked, **_: given.extend(asked))
    assert command("serve", "one", "two", "runs/three", "--adapter", "four=five").code == 0
    name, how, _ = given
    assert (name, how.adapters) == ("one", {"two": "two", "three": "runs/three", "four": "five"})
    assert command("serve", "one", "two", "else/two").code == 2


@pytest.fixture(scope="module")
def adapted(run: Run) -> Iterator[TestClient]:
    """The run beside its base."""
    service = open_answers(run.path, Answering("tuned", precision="fp32"))
    with closing(service), inside.asking(service) as client:
        yield client


def said(client: TestClient, model: str | None) -> str:
    body = {"messages": MESSAGES, "max_tokens": 12, "model": model}
    reply = client.post(CHAT, json=body)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def test_the_name_of_the_model_chooses_the_adapter(adapted: TestClient) -> None:
    names = [entry["id"] for entry in adapted.get("/v1/models").json()["data"]]
    assert names == ["tuned", "base"]
    assert said(adapted, "tuned") == said(adapted, None) != said(adapted, "base")
    body = {"messages": MESSAGES, "model": "other"}
    reply = adapted.post(CHAT, json=body)
    assert reply.status_code == 404
    assert reply.json()["error"]["hint"] == "there are 'tuned', 'base'"


def test_an_engine_that_takes_no_adapters_says_so(tiny_model: Path, run: Run) -> None:
    own = OwnModel(load_chat_model(tiny_model, precision="fp32", device="cpu"), 1)
    with closing(Service(own, "tiny")) as service, inside.asking(service) as client:
        body = {"lora_name": "second", "lora_path": str(run.path)}
        reply = client.post("/v1/load_lora_adapter", json=body)
    assert reply.status_code == 400
    assert "takes no adapters while it answers" in reply.json()["error"]["message"]


def test_the_last_part_of_a_run_s_name_is_enough(run: Run) -> None:
    assert run.name.endswith("-tiny")
    with closing(open_answers(run.path, Answering(precision="fp32"))) as service:
        found = service.find("tiny")
        assert found == service.find(run.name) == service.find(None)
        with pytest.raises(RequestError, match="there is no model 'ny' here"):
            service.find("ny")
        with inside.asking(service) as client:
            assert client.get("/v1/models/tiny").json()["id"] == run.name
            assert client.get("/v1/models/ny").status_code == 404
            load = {"lora_name": "2026-01-02-0304-other", "lora_path": str(run.path)}
            assert client.post("/v1/load_lora_adapter", json=load).status_code == 200
            for name, status in (("tiny", 404), ("other", 200), ("other", 404)):
                reply = client.post("/v1/unload_lora_adapter", json={"lora_name": name})
                assert reply.status_code == status


def test_adapters_come_and_go_while_others_answer(adapted: TestClient, run: Run) -> None:
    load = {"lora_name": "second", "lora_path": str(run.path)}
    assert adapted.post("/v1/load_lora_adapter", json=load).status_code == 200
    assert said(adapted, "second") == said(adapted, "tuned")
    again = adapted.post("/v1/load_lora_adapter", json=load)
    assert (again.status_code, "already" in again.text) == (400, True)
    assert adapted.post("/v1/unload_lora_adapter", json={"lora_name": "second"}).status_code == 200
    assert adapted.post(CHAT, json={"messages": MESSAGES, "model": "second"}).status_code == 404
    assert said(adapted, "tuned")
    for name in ("second", "base", "tuned"):
        reply = adapted.post("/v1/unload_lora_adapter", json={"lora_name": name})
        assert 400 <= reply.status_code < 500
        assert reply.json()["error"]["hint"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../..", "no-such-run", "a\0b", "https://x.example/a"]
)
def test_an_adapter_that_is_none_is_refused(adapted: TestClient, path: str) -> None:
    reply = adapted.post("/v1/load_lora_adapter", json={"lora_name": "odd", "lora_path": path})
    assert reply.status_code == 400
    assert "odd" not in [entry["id"] for entry in adapted.get("/v1/models").json()["data"]]


def test_embeddings_are_the_mean_of_the_last_states(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = load_tokenizer(tiny_model).encode("what is it?", add_special_tokens=False)
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    mean = states[0].mean(dim=0)
    with inside.service(tiny_model) as service, inside.asking(service) as client:
        for given in ("what is it?", ids):
            reply = client.post("/v1/embeddings", json={"input": given}).json()
            expected = (mean / mean.norm()).tolist()
            assert reply["data"][0]["embedding"] == pytest.approx(expected, abs=1e-5)
            assert reply["usage"]["prompt_tokens"] == len(ids)
        short = client.post("/v1/embeddings", json={"input": given, "dimensions": 8}).json()
        cut = mean[:8] / mean[:8].norm()
        assert short["data"][0]["embedding"] == pytest.approx(cut.tolist(), abs=1e-5)
        for odd in ({"dimensions": 33}, {"input": ""}, {"input": []}, {"input": [5000]}):
            reply = client.post("/v1/embeddings", json={"input": given, **odd})
            assert reply.status_code in (400, 422), odd


def test_tokens_go_to_and_fro(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    with inside.service(tiny_model) as service, inside.asking(service) as client:
        found = client.post(
            "/tokenize", json={"prompt": "what 你好", "return_token_strs": True}
        ).json()
        assert found["tokens"] == tokenizer.encode("what 你好", add_special_tokens=False)
        assert (found["count"], found["max_model_len"]) == (len(found["tokens"]), 256)
        assert "".join(found["token_strs"]).startswith("what ")
        back = client.post("/detokenize", json={"tokens": found["tokens"]}).json()
        assert back == {"prompt": "what 你好"}
        talk = client.post("/tokenize", json={"messages": MESSAGES}).json()
        answered = client.post(CHAT, json={"messages": MESSAGES, "max_tokens": 1}).json()
        assert talk["count"] == answered["usage"]["prompt_tokens"]
        for odd in ({}, {"prompt": "a", "messages": MESSAGES}, {"prompt": "a", "tools": [{}]}):
            assert client.post("/tokenize", json=odd).status_code in (400, 422)
        assert client.post("/detokenize", json={"tokens": [400]}).status_code == 400


@pytest.fixture(scope="module")
def judge(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that trained a reward model."""
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("judge")
        environment.setenv("TUNESMITH_RUNS", str(folder / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(folder / "cache"))
        rows = [
            {"instruction": f"question {n}", "chosen": f"It is {n}.", "rejected": "no"}
            for n in range(16)
        ]
        data = tiny.write_rows(folder / "pairs.jsonl", rows)
        recipe = {
            "model": {"name": str(tiny_model)},
            "data": {"train": [str(data)], "max_tokens": 64},
            "method": {"name": "reward"},
            "tuning": LORA,
            "optimizer": {"learning_rate": 1e-2, "batch_size": 4},
            "compute": {"precision": "fp32", "threads": 1},
            "run": {"name": "judge", "steps": 3},
        }
        (folder / "recipe.json").write_text(json.dumps(recipe), "utf-8")
        return train(load_recipe(folder / "recipe.json"))


def test_a_reward_model_scores_talks_and_texts(judge: Run) -> None:
    model = load_reward_model(find_subject(judge.path), device="cpu")
    talks = [[*MESSAGES, {"role": "assistant", "content": text}] for text in ("It is 3.", "no")]
    expected = [score(model, talk) for talk in talks]
    texts = [
        "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in talk)[:-1]
        for talk in talks
    ]
    service = open_answers(judge.path, Answering("judge"))
    with closing(service), inside.listening(service) as client:
        for given in (talks, texts):
            reply = client.post("/score", {"model": "judge", "messages": given})
            assert reply.json["scores"] == pytest.approx(expected, abs=1e-5)
        one = client.post("/score", {"messages": talks[0]}).json
        assert one["scores"] == pytest.approx(expected[:1], abs=1e-5)
        samples = [Sample(MESSAGES, text, "", "", ()) for text in texts]
        told = ask_scores(Endpoint(url=f"{client.address}/score"), samples)
        assert told == pytest.approx(expected, abs=1e-5)
        assert client.get("/v1/models").json["data"][0]["id"] == "judge"
        for path, body, status in (
            (CHAT, {"messages": MESSAGES}, 404),
            ("/score", {"messages": MESSAGES}, 400),
            ("/score", {"messages": []}, 422),
            ("/score", {"messages": talks, "model": "other"}, 404),
            ("/score", {"messages": ["word " * 1000]}, 400),
        ):
            assert client.post(path, body).status == status, (path, body)


@pytest.mark.parametrize(
    "options", [{"adapters": {"a": "b"}}, {"max_active": 3}, {"tool_format": "hermes"}]
)
def test_a_reward_model_takes_no_options_of_answers(judge: Run, options: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="a reward model scores"):
        open_answers(judge.path, Answering(**options))


@pytest.mark.parametrize(("engine", "code"), [("auto", 2), ("generate", 2), ("vllm", 0)])
def test_a_client_is_printed_for_a_reward_model_that_writes(
    command: Command, judge: Run, engine: str, code: int
) -> None:
    printed = command("serve", judge.path, "--engine", engine, "--print-client", "curl")
    assert (printed.code, "/score" in printed.err) == (code, code == 2)


def test_a_template_is_told_what_it_can_be_told(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "thinking")
    told = "{% if enable_thinking is defined and not enable_thinking %}no thoughts {% endif %}"
    source = named_template("chatml") + told
    tiny.change_json(folder / "tokenizer_config.json", chat_template=source)

    def count(**fields: Any) -> int:
        reply = client.post(CHAT, json={"messages": MESSAGES, "max_tokens": 1, **fields})
        assert reply.status_code == 200, reply.text
        found: int = reply.json()["usage"]["prompt_tokens"]
        return found

    with inside.service(folder) as service, inside.asking(service) as client:
        plain = count()
        assert count(chat_template_kwargs={"enable_thinking": True}) == plain
        assert count(chat_template_kwargs={"enable_thinking": False}) > plain
        assert count(reasoning_effort="none") > plain
        assert count(reasoning_effort="high") == plain
        for odd in ("messages", "bos_token", "tools", "add_generation_prompt", "raise_exception"):
            body = {"messages": MESSAGES, "chat_template_kwargs": {odd: "x"}}
            reply = client.post(CHAT, json=body)
            assert reply.status_code == 400
            assert reply.json()["error"]["hint"] == "it has: enable_thinking"


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_that_loops_is_broken_off_and_others_are_served(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "looping", max_position_embeddings=20_000)
    source = f"{{% if messages[-1].content == 'loop' %}}{LOOPS}{{% endif %}}" + named_template(
        "chatml"
    )
    tiny.change_json(folder / "tokenizer_config.json", chat_template=source)
    with inside.service(folder) as service, inside.listening(service) as client:
        other = client.connect()
        long = {"messages": MESSAGES, "max_tokens": 19_000, "stream": True}
        other.request("POST", CHAT, json.dumps(long), {"Content-Type": "application/json"})
        heard = other.getresponse()
        start = time.monotonic()
        reply = client.post(CHAT, {"messages": [{"role": "user", "content": "loop"}]})
        seconds = time.monotonic() - start
        assert (reply.status, reply.error["where"]) == (400, "messages")
        assert SECONDS_TO_TOKENIZE <= seconds < SECONDS_TO_TOKENIZE + 3
        assert heard.read(200)
        start = time.monotonic()
        assert client.post(CHAT, {"messages": MESSAGES, "max_tokens": 2}).status == 200
        assert time.monotonic() - start < 5
        other.close()
        wait_for(lambda: service.taken == 0)


@pytest.mark.parametrize("kind", ["curl", "python", "spring"])
def test_a_client_is_printed_without_loading_weights(
    command: Command, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tunesmith.serving.serve.open_answers", lambda *_: pytest.fail("it was loaded")
    )
    printed = command("serve", tiny_model, "--port", 8123, "--print-client", kind)
    assert printed.code == 0
    assert "http://127.0.0.1:8123/v1" in printed.out
    assert "tiny" in printed.out
    if kind == "python":
        compile(printed.out, "client", "exec")
    elif kind == "spring":
        options = yaml.safe_load(printed.out)["spring"]["ai"]["openai"]
        assert options["base-url"] == "http://127.0.0.1:8123/v1"
        assert options["chat"]["model"] == options["embedding"]["model"] == "tiny"
    else:
        (body,) = {line.split("'")[1] for line in printed.out.splitlines() if "stream" in line}
        assert json.loads(body)["model"] == "tiny"


def test_a_client_that_cannot_be_written_is_refused(command: Command, tiny_model: Path) -> None:
    for options in (("--print-client", "cobol"), ("--print-client", "curl", "--port", "0")):
        assert command("serve", tiny_model, *options).code == 2
