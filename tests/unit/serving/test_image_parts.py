"""What messages show, among their parts as clients send them."""

from __future__ import annotations

from base64 import b64encode

import pytest
from pydantic import ValidationError

from tunesmith.errors import RequestError
from tunesmith.inference.remote import RemoteSpeech
from tunesmith.serving.schema.messages import ChatMessage
from tunesmith.templates import PLACES


def asked(role: str, url: str) -> ChatMessage:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": url}}]
    return ChatMessage.model_validate({"role": role, "content": parts})


def test_an_image_comes_inside_of_its_message() -> None:
    plain = asked("user", "data:image/png;base64,AAAA").plain()
    assert plain["content"] == "a" + PLACES["image"]
    assert plain["media"] == [["image", "data:image/png;base64,AAAA", ""]]


@pytest.mark.parametrize(
    ("role", "url"),
    [
        ("user", "http://127.0.0.1/a.png"),
        ("user", "https://[::1]/a.png"),
        ("user", "file:///etc/hostname"),
        ("user", "a.png"),
        ("user", ""),
        ("assistant", "data:image/png;base64,AAAA"),
    ],
)
def test_an_image_that_would_be_fetched_or_that_an_answer_shows_is_refused(
    role: str, url: str
) -> None:
    with pytest.raises(RequestError, match=r"nothing is fetched|an answer shows no image"):
        asked(role, url).plain()


def test_videos_and_sounds_come_inside_of_their_message() -> None:
    parts = [
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "text", "text": "a"},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
    ]
    plain = ChatMessage.model_validate({"role": "user", "content": parts}).plain()
    assert plain["content"] == PLACES["video"] + "a" + PLACES["audio"]
    assert plain["media"] == [
        ["video", "data:video/mp4;base64,AAAA", ""],
        ["audio", "data:;base64,BBBB", ""],
    ]
    parts[0]["video_url"] = {"url": "https://h/a.mp4"}
    with pytest.raises(RequestError, match="videos come as data: addresses alone, and nothing is"):
        ChatMessage.model_validate({"role": "user", "content": parts}).plain()
    with pytest.raises(RequestError, match="an answer shows no audio"):
        ChatMessage.model_validate({"role": "assistant", "content": parts[2:]}).plain()
    parts[2]["input_audio"] = {"data": "BBBB", "format": "aac"}
    with pytest.raises(ValidationError, match="wav"):
        ChatMessage.model_validate({"role": "user", "content": parts})


@pytest.mark.parametrize(
    ("content", "said", "reason"),
    [
        (b"RIFF\x10\0\0\0WAVEfmt ", "mp3", "said to be mp3, and begins as wav"),
        (b"ID3\x04\0\0\0\0\0\0\0\0", "wav", "said to be wav, and begins as something else"),
        (b"fLaC\0\0\0\0\0\0\0\0", "wav", "said to be wav, and begins as flac"),
        (b"OggS\0\0\0\0\0\0\0\0", "mp3", "said to be mp3, and begins as ogg"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "wav", ""),
        (b"ID3\x04\0\0\0\0\0\0\0\0", "mp3", ""),
        (b"\xff\xfb\x90\0\0\0\0\0\0\0\0\0", "mp3", ""),
    ],
)
def test_a_sound_is_what_it_is_said_to_be(content: bytes, said: str, reason: str) -> None:
    data = {"data": b64encode(content).decode(), "format": said}
    message = {"role": "user", "content": [{"type": "input_audio", "input_audio": data}]}
    if not reason:
        assert len(ChatMessage.model_validate(message).plain()["media"]) == 1
        return
    with pytest.raises(RequestError, match=reason) as caught:
        ChatMessage.model_validate(message).plain("messages.0")
    assert caught.value.where == "messages.0.content.input_audio.format"


def test_an_engine_that_passes_on_text_alone_refuses_what_is_shown() -> None:
    plain = asked("user", "data:image/png;base64,AAAA").plain()
    with pytest.raises(RequestError, match="passes on text alone"):
        RemoteSpeech().render([plain], (), {})
