"""Images come to a server inside of requests alone; nothing is ever fetched for a client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from tests import seeing, videos
from tests.unit.serving.running import Reply, Running, serving
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import load_chat_model
from tunesmith.templates import PLACES

pytestmark = pytest.mark.proof
RED, BLUE = (seeing.as_address(seeing.make_picture(colour)) for colour in ("red", "blue"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "sees"
    return seeing.make_seeing_model(folder, "Qwen 2.5 VL", max_position_embeddings=20_000)


@pytest.fixture(scope="module")
def sees(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(folder, tmp_path_factory.mktemp("log") / "server.txt") as running:
        yield running


def part(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def asked(*parts: object, role: str = "user") -> list[Any]:
    return [{"role": role, "content": list(parts)}]


def send(server: Running, messages: list[Any]) -> Reply:
    body = json.dumps({"messages": messages, "max_tokens": 4}).encode()
    return server.ask("POST", "/v1/chat/completions", body, {"content-type": "application/json"})


def test_what_is_shown_is_seen(folder: Path, sees: Running) -> None:
    model = load_chat_model(folder, device="cpu")
    said = []
    for addresses in ([RED], [BLUE], [RED, BLUE]):
        media = [["image", address, ""] for address in addresses]
        content = PLACES["image"] * len(media) + "what?"
        prompt = encode_prompt(model, [{"role": "user", "content": content, "media": media}])
        (expected,) = answer(model, [prompt], Sampling(max_tokens=8))
        with openai.OpenAI(base_url=f"{sees.address}/v1", api_key="unused", timeout=60) as client:
            reply = client.chat.completions.create(
                model="sees",
                messages=asked(*map(part, addresses), {"type": "text", "text": "what?"}),
                max_tokens=8,
                temperature=0,
            )
        assert reply.choices[0].message.content == expected.text
        assert reply.usage is not None
        assert reply.usage.prompt_tokens == len(prompt)
        said.append(expected.tokens)
    assert said[0] != said[1], "the images make a difference"


ELSEWHERE = [
    "http://127.0.0.1:1/a.png",
    "https://example.com/a.png",
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:127.0.0.1]/a.png",
    "file:///etc/hostname",
    "FILE:///etc/hostname",
    "/etc/hostname",
    "ftp://example.com/a.png",
    "//example.com/a.png",
    " data:image/png;base64,AA==",
    "",
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_an_image_that_lies_elsewhere_is_refused(sees: Running, address: str) -> None:
    reply = send(sees, asked(part(address)))
    assert reply.status == 400
    assert "nothing is fetched" in reply.error["message"]
    assert b"root" not in reply.body


def bomb() -> str:
    return seeing.as_address(Image.new("1", (16_000, 16_000)))


BADLY = [
    ("data:image/png;base64,AAAA", "is no image that can be read"),
    ("data:image/png;base64,%%%", "holds no base64"),
    ("data:text/html,<b>", "holds no base64"),
    ("data:image/svg+xml;base64,PHN2Zy8+", "is no image that can be read"),
]


@pytest.mark.parametrize(("address", "reason"), BADLY)
def test_what_is_no_image_is_refused(sees: Running, address: str, reason: str) -> None:
    reply = send(sees, asked(part(address)))
    assert reply.status == 400
    assert reason in reply.error["message"]


def test_images_that_would_fill_the_memory_are_refused(sees: Running) -> None:
    large = seeing.as_address(Image.new("1", (6_000, 6_000)))
    for addresses in ([bomb()], [large, large]):
        reply = send(sees, asked(*map(part, addresses)))
        assert reply.status == 400
        assert "pixels" in reply.error["message"]


def test_a_video_is_seen(folder: Path, sees: Running, tmp_path: Path) -> None:
    path = videos.write_film(tmp_path / "a.mp4", videos.make_frames(12))
    address = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    model = load_chat_model(folder, device="cpu")
    content = PLACES["video"] + "what?"
    talk = [{"role": "user", "content": content, "media": [["video", str(path), ""]]}]
    prompt = encode_prompt(model, talk)
    (expected,) = answer(model, [prompt], Sampling(max_tokens=4))
    shown = {"type": "video_url", "video_url": {"url": address}}
    reply = send(sees, asked(shown, {"type": "text", "text": "what?"}))
    assert reply.json["choices"][0]["message"]["content"] == expected.text
    assert reply.json["usage"]["prompt_tokens"] == len(prompt)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("data:video/mp4;base64,AAAA", "is no video that can be read"),
        (
            "data:video/mp4;base64," + base64.b64encode(b"#EXTM3U\nfile:///etc/passwd").decode(),
            "is no video that can be read",
        ),
        ("http://127.0.0.1:1/a.mp4", "nothing is fetched"),
        ("file:///etc/hostname", "nothing is fetched"),
    ],
)
def test_what_is_no_video_is_refused(sees: Running, address: str, reason: str) -> None:
    reply = send(sees, asked({"type": "video_url", "video_url": {"url": address}}))
    assert reply.status == 400
    assert reason in reply.error["message"]


def test_an_answer_shows_nothing_and_a_model_of_text_sees_nothing(
    sees: Running, server: Running
) -> None:
    talk = [*asked({"type": "text", "text": "a"}), *asked(part(RED), role="assistant")]
    assert send(sees, talk).status == 400
    reply = send(server, asked(part(RED)))
    assert (reply.status, "reads text alone" in json.dumps(reply.json)) == (400, True)
