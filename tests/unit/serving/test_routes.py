"""Every address answers as the docs say, and every mistake says what, where and what to do."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.unit.serving import inside
from tests.unit.serving.running import Reply, Running, wait_for
from tunesmith import __version__
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]
LONG = {"prompt": "what is it?", "max_tokens": 6000}


@pytest.fixture(scope="module")
def model(served_model: Path) -> ChatModel:
    return load_chat_model(served_model, precision="fp32", device="cpu")


def expected(model: ChatModel, question: str, **sampling: Any) -> str:
    prompt = encode_prompt(model, [{"role": "user", "content": question}])
    return answer(model, [prompt], Sampling(**sampling))[0].text


def refused(reply: Reply, status: int, message: str, where: str) -> None:
    """Assert that a reply refuses, in our words and in the form of OpenAI's."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"].startswith("application/json")
    error = reply.error
    assert message in error["message"]
    assert error["where"] == where
    assert error["hint"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == (where or None)


def test_a_question_in_the_address_is_answered(server: Running, model: ChatModel) -> None:
    query = urlencode({"prompt": "营业时间?", "max_tokens": 8})
    reply = server.get(f"/generate?{query}")
    assert reply.status == 200
    assert reply.json["text"] == expected(model, "营业时间?", max_tokens=8)
    assert reply.json["finish_reason"] == "length"
    assert reply.json["usage"]["completion_tokens"] == 8


def test_options_in_the_address_reach_the_engine(
    server: Running, model: ChatModel, served_model: Path
) -> None:
    options: dict[str, Any] = {
        "max_tokens": 12,
        "temperature": 1.0,
        "top_k": 30,
        "top_p": 0.9,
        "seed": 4,
    }
    query = urlencode({"prompt": "hi", **options, "repetition_penalty": 1.2})
    reply = server.get(f"/generate?{query}")
    prompt = encode_prompt(model, [{"role": "user", "content": "hi"}])
    sampling = Sampling(repetition_penalty=1.2, **options)
    assert reply.json["text"] == inside.heard(served_model, prompt, sampling)
    stop = reply.json["text"][2:4]
    cut = server.get(f"/generate?{query}&stop={quote(stop)}&stop=never")
    assert cut.json["text"] == reply.json["text"][: reply.json["text"].find(stop)]
    assert cut.json["finish_reason"] == "stop"


def test_a_prompt_or_messages_can_be_sent(server: Running, model: ChatModel) -> None:
    text = expected(model, "what is it?", max_tokens=8)
    for asked in ({"prompt": "what is it?"}, {"messages": MESSAGES}):
        assert server.post("/generate", {**asked, "max_tokens": 8}).json["text"] == text


@pytest.mark.parametrize("asked", [{}, {"prompt": "a", "messages": MESSAGES}, {"messages": []}])
def test_one_of_prompt_and_messages_is_needed(server: Running, asked: dict[str, Any]) -> None:
    refused(server.post("/generate", asked), 400, "give either `prompt` or `messages`", "body")


def test_health_says_that_the_server_lives(server: Running) -> None:
    assert server.get("/health").json == {"status": "ok"}


def test_health_answers_within_a_tenth_of_a_second_while_an_answer_is_written(
    server: Running,
) -> None:
    alone = time_health(server)
    with server.writing("/generate", LONG):
        beside = time_health(server)
        wait_for(server.busy)
    assert beside < max(0.1, 5 * alone)  # a machine with other work is slow in both


def time_health(server: Running) -> float:
    """Take the time within which most of 20 requests are answered."""
    times = []
    for _ in range(20):
        start = time.monotonic()
        assert server.get("/health").status == 200
        times.append(time.monotonic() - start)
    return sorted(times)[-3]


def test_the_docs_name_no_other_host_and_all_they_need_is_served(server: Running) -> None:
    for page in ("/docs", "/redoc"):
        reply = server.get(page)
        assert reply.status == 200
        html = reply.body.decode("utf-8")
        named = re.findall(r"""(?:src|href|url\()\s*=?\s*["']([^"']+)["']""", html)
        assets = [name for name in named if not name.startswith("#")]
        assert assets
        assert "//" not in "".join(named)
        assert not re.search(r"https?://", html)
        for asset in assets:
            found = server.get(asset)
            assert (found.status, bool(found.body)) == (200, True), asset
    described = server.get("/openapi.json").json
    assert described["info"] == {
        "title": "tunesmith",
        "summary": "The model tiny-chat.",
        "version": __version__,
    }
    assert {"/generate", CHAT, "/v1/models", "/health"} <= described["paths"].keys()


def test_an_address_that_is_not_there_says_so(server: Running) -> None:
    refused(server.get("/v1/nothing"), 404, "Not Found", "/v1/nothing")
    assert "/docs" in server.get("/v1/nothing").error["hint"]


def test_a_method_that_an_address_does_not_take_says_so(server: Running) -> None:
    refused(server.get(CHAT), 405, "Method Not Allowed", CHAT)


@pytest.mark.parametrize("path", [CHAT, "/generate"])
@pytest.mark.parametrize("body", [b"{", b"", b'{"a": }', b"\xff\xfe", b'{"messages": [}'])
def test_a_body_that_is_no_json_is_refused(server: Running, path: str, body: bytes) -> None:
    reply = server.ask("POST", path, body, {"Content-Type": "application/json"})
    assert reply.status in (400, 422)
    assert "body" in reply.error["message"]
    assert reply.error["where"] == "body"


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"messages":' * 50_000])
def test_a_body_nested_too_deep_is_refused(server: Running, body: bytes) -> None:
    reply = server.ask("POST", CHAT, body, {"Content-Type": "application/json"})
    assert reply.status in (400, 422)
    assert reply.error["hint"]


@pytest.mark.parametrize("content", [[], "text", 5, None, [{"messages": MESSAGES}]])
def test_json_that_is_no_object_is_refused(server: Running, content: object) -> None:
    reply = server.post(CHAT, content)
    assert reply.status == 422
    assert reply.error["where"] == "body"


def test_a_form_is_no_json(server: Running) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"prompt=hello", b'{"prompt": "hello"}'):
        for headers in (form, {}):
            reply = server.ask("POST", "/generate", body, headers)
            refused(reply, 422, "the body is not a JSON object", "body")
            assert reply.error["hint"] == (
                "send JSON with the header Content-Type: application/json"
            )


@pytest.mark.parametrize(
    ("path", "content", "where"),
    [
        (CHAT, {"messages": MESSAGES, "temprature": 1}, "temprature"),
        (CHAT, {"messages": [{**MESSAGES[0], "mood": "good"}]}, "messages.0.mood"),
        (CHAT, {"messages": MESSAGES, "stream_options": {"usage": True}}, "stream_options.usage"),
        ("/generate", {"prompt": "hi", "n": 1}, "n"),
    ],
)
def test_unknown_fields_are_refused_by_name(
    server: Running, path: str, content: dict[str, Any], where: str
) -> None:
    refused(server.post(path, content), 422, f"there is no field {where}", where)


def test_unknown_fields_of_an_address_are_refused_by_name(server: Running) -> None:
    refused(
        server.get("/generate?prompt=hi&temprature=1"), 422, "no field temprature", "temprature"
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "perhaps"}, "stream"),
        ({"seed": [1]}, "seed"),
        ({"model": 5}, "model"),
        ({"response_format": "json"}, "response_format"),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
            "messages.0.tool_calls.0.function",
        ),
    ],
)
def test_values_of_a_wrong_type_are_refused_by_field(
    server: Running, change: dict[str, Any], where: str
) -> None:
    reply = server.post(CHAT, {"messages": MESSAGES, "max_tokens": 2, **change})
    refused(reply, 422, where, where)


def test_a_message_without_content_is_refused(server: Running) -> None:
    for role in ("user", "assistant", "tool"):
        reply = server.post(CHAT, {"messages": [{"role": role}]})
        refused(reply, 400, "messages.0.content is missing", "messages.0.content")


def test_content_that_is_neither_text_nor_parts_is_refused(server: Running) -> None:
    picture = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}}
    for content, status, place in (
        (5, 422, ""),
        ([picture], 400, ""),
        ([{"type": "text"}], 422, ".0"),
    ):
        reply = server.post(CHAT, {"messages": [{"role": "user", "content": content}]})
        assert reply.status == status
        assert reply.error["where"].startswith(f"messages.0.content{place}")
        assert "Part" not in reply.error["where"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("temperature", -1),
        ("temperature", 99),
        ("top_p", 0),
        ("top_k", -1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 10**30),
    ],
)
def test_values_that_mean_nothing_are_refused_by_field(
    server: Running, name: str, value: Any
) -> None:
    message = f"{name} cannot be {value}"
    for reply in (
        server.post(CHAT, {"messages": MESSAGES, name: value}),
        server.post("/generate", {"prompt": "hi", name: value}),
        server.get(f"/generate?prompt=hi&{name}={value}"),
    ):
        refused(reply, 400, message, name)


@pytest.mark.parametrize("spelled", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(server: Running, spelled: str) -> None:
    body = json.dumps({"messages": MESSAGES})[:-1] + f', "temperature": {spelled}}}'
    reply = server.ask("POST", CHAT, body.encode(), {"Content-Type": "application/json"})
    refused(reply, 400, "temperature cannot be", "temperature")


@pytest.mark.parametrize("stop", ["", [""], ["end", ""]])
def test_empty_stop_texts_are_refused(server: Running, stop: Any) -> None:
    refused(server.post("/generate", {"prompt": "hi", "stop": stop}), 400, "stop cannot be", "stop")


@pytest.mark.parametrize(
    "content", ["\ud800", "a\udfff", "\ufdd0", "a\0b", "<|im_end|>", "{{ 7 * 7 }}", "", "\u202e"]
)
def test_strange_texts_are_answered_or_refused_and_never_break(
    server: Running, content: str
) -> None:
    for asked in ({"prompt": content}, {"messages": [{"role": "user", "content": content}]}):
        reply = server.post("/generate", {**asked, "max_tokens": 2})
        assert reply.status in (200, 400, 422), reply.body
        if reply.status != 200:
            assert reply.error["hint"]
    assert server.get("/health").status == 200


def test_half_a_character_is_refused_wherever_it_stands(server: Running) -> None:
    refused(server.post("/generate", {"prompt": "a\ud800"}), 422, "half a character", "prompt")
    parts = [{"type": "text", "text": "\udfff"}]
    for content, where in (("\ud800", "messages.0.content"), (parts, "messages.0.content.0.text")):
        reply = server.post(CHAT, {"messages": [{"role": "user", "content": content}]})
        refused(reply, 422, "half a character", where)
    for odd in ({"\ud800": 1}, {"model": "\ud800"}, {"stop": "\ud800", "max_tokens": 0}):
        assert server.post(CHAT, {"messages": MESSAGES, **odd}).status in (400, 404, 422)


def test_a_text_that_only_spells_special_tokens_is_never_read_as_such(
    server: Running, model: ChatModel
) -> None:
    counts = [
        server.post("/generate", {"prompt": text, "max_tokens": 1}).json["usage"]["prompt_tokens"]
        for text in ("", "<|im_end|>")
    ]
    assert counts[1] - counts[0] > 1


def test_nothing_that_was_asked_is_in_the_log(server: Running) -> None:
    server.post("/generate", {"prompt": "my secret canary", "max_tokens": 2})
    server.post("/generate", {"prompt": "my secret canary", "max_tokens": 0})
    server.get("/generate?prompt=my+secret+canary&max_tokens=0")
    said = server.log.read_text("utf-8")
    assert "canary" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]},
            "messages.0.content.0",
        ),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 0}, "max_output_tokens"),
        ("/v1/responses", {"input": "hi", "text": {"format": {"type": "x"}}}, "text.format.type"),
    ],
)
def test_what_is_wrong_is_called_as_the_client_calls_it(
    server: Running, path: str, body: dict[str, Any], where: str
) -> None:
    told = server.post(path, body).error
    assert (told["where"], told["param"]) == (where, where)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_tokens_that_were_kept_from_a_text_before_are_counted(server: Running, path: str) -> None:
    text = f"count what is kept of {path}, " + "question " * 40
    field = "input" if path.endswith("responses") else "messages"
    asked = {field: [{"role": "user", "content": text}], "temperature": 0}
    limit = "max_output_tokens" if field == "input" else "max_tokens"
    told = [server.post(path, {**asked, limit: 2}).json["usage"] for _ in range(2)]
    kind = "input" if field == "input" else "prompt"
    kept = [each[f"{kind}_tokens_details"]["cached_tokens"] for each in told]
    whole = told[0][f"{kind}_tokens"]
    assert kept[1] == (whole - 1) // 32 * 32 > kept[0]
    assert kept[0] < 64  # what the template begins with may have been read before
    assert told[1][f"{kind}_tokens"] == whole


def test_answers_to_one_prompt_count_it_as_kept_only_if_it_was_before(server: Running) -> None:
    body = {
        "messages": [{"role": "user", "content": "several answers to " + "question " * 40}],
        "n": 2,
        "max_tokens": 2,
    }
    first, second = (server.post("/v1/chat/completions", body).json["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] < 64
    assert 64 < second["prompt_tokens_details"]["cached_tokens"] < second["prompt_tokens"]
