"""What can never be answered is refused before anybody waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.unit.serving import inside
from tunesmith.errors import EngineError, RequestError
from tunesmith.inference.batching.engine import BatchingEngine
from tunesmith.inference.sampling import Sampling
from tunesmith.serving.answers import Answering, open_answers
from tunesmith.serving.limits import BESIDE, SLOW_WRITERS
from tunesmith.serving.queue import Kind
from tunesmith.serving.service import LONGEST_TOKEN, Service, several
from tunesmith.serving.workspace import find_workspace
from tunesmith.templates import Template

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def service(tiny_model: Path) -> Iterator[Service]:
    with inside.service(tiny_model) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A model that only continues text."""
    folder = tiny.make_model(tmp_path_factory.mktemp("models") / "plain", template=None)
    with inside.service(folder) as found:
        yield found


def refusal(work: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        asyncio.run(work)
    return caught.value


def test_a_text_that_no_tokens_could_hold_is_not_tokenized(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker, text = service.find(None), "a" * (256 * LONGEST_TOKEN + 1)
    for name in ("write", "encode"):
        monkeypatch.setattr(type(speaker.speech), name, lambda *_: pytest.fail("it was tokenized"))
    for work in (
        service.encode(speaker, text),
        service.render(speaker, [{"role": "user", "content": text}]),
    ):
        assert "the model takes 256 tokens with its answer" in refusal(work).message


def test_messages_to_a_model_without_template_tell_no_path(plain: Service) -> None:
    problem = refusal(plain.render(plain.find(None), MESSAGES))
    assert "has no chat template" in problem.message
    assert problem.where == "messages"


def test_requests_are_not_answered_by_an_engine_that_has_stopped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.check_ready()
    monkeypatch.setattr(service.engine, "_dead", RuntimeError("out of something"))
    with pytest.raises(EngineError, match="3 times on end: out of something"):
        service.check_ready()


def test_slow_work_of_one_kind_keeps_no_other_waiting(service: Service) -> None:
    async def ask() -> None:
        over, speaker = threading.Event(), service.find(None)
        kinds: tuple[Kind, ...] = ("forms", "adapters", "scores")
        slow = [
            asyncio.create_task(service.work(kind, lambda: over.wait(60), 90, "it"))
            for kind in kinds
            for _ in range(BESIDE[kind] + 1)
        ]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(20):
                tokens = await service.encode(speaker, "hi")
                found = await service.work(
                    "embeddings", lambda: service.engine.embed([tokens]), 60, "input"
                )
            assert len(found) == 1
        finally:
            over.set()
            await asyncio.gather(*slow)

    asyncio.run(ask())


def test_time_in_which_others_are_tokenized_for_does_not_count(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.serving.service.SECONDS_TO_TOKENIZE", 0.5)

    async def tokenize() -> list[int]:
        speaker, begun = service.find(None), threading.Event()

        def long() -> None:
            with speaker.speech._lock:  # type: ignore[attr-defined]
                begun.set()
                time.sleep(1)

        other = asyncio.create_task(service.tokenize(long, 1_000_000, "it"))
        await asyncio.to_thread(begun.wait, 20)
        found = await service.encode(speaker, "hi")
        await other
        return found

    assert asyncio.run(tokenize())


def test_a_text_without_a_token_has_nothing_to_go_on_from(plain: Service) -> None:
    with pytest.raises(RequestError, match="the prompt is empty"):
        plain.request(plain.find(None), [], Sampling())


def test_an_answer_ends_where_the_model_is_full(service: Service) -> None:
    speaker = service.find(None)
    request = service.request(speaker, [5] * 200, Sampling(max_tokens=1000))
    assert request.sampling.max_tokens == 56
    with pytest.raises(RequestError, match="has 256 tokens, the model takes 256"):
        service.request(speaker, [5] * 256, Sampling())


@pytest.mark.parametrize("tokens", [[400], [-1], [5, 10**9]])
def test_ids_without_a_token_are_refused(service: Service, tokens: list[int]) -> None:
    with pytest.raises(RequestError, match="there is no token"):
        service.request(service.find(None), tokens, Sampling())


def test_several_answers_have_seeds_of_their_own(service: Service) -> None:
    request = service.request(service.find(None), [5], Sampling(seed=(1 << 63) - 1))
    seeds = [one.sampling.seed for one in several(request, 3)]
    assert seeds == [(1 << 63) - 1, 0, 1]
    unseeded = service.request(service.find(None), [5], Sampling())
    assert [one.sampling.seed for one in several(unseeded, 2)] == [None, None]


def test_models_are_found_by_the_names_clients_know(service: Service) -> None:
    assert service.names() == ["tiny"]
    assert service.find("tiny").model == next(iter(service.engine.models()))
    with pytest.raises(RequestError, match="there is no model 'other' here"):
        service.find("other")


def test_a_conversation_that_keeps_its_template_long_keeps_no_other(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker, over = service.find(None), threading.Event()
    write = type(speaker.speech).write

    def written(speech: Any, messages: Any, *more: Any) -> Any:
        assert messages[0]["content"] != "long" or over.wait(60)
        return write(speech, messages, *more)

    async def ask() -> list[bool]:
        long = [{"role": "user", "content": "long"}]
        slow = [asyncio.create_task(service.render(speaker, long)) for _ in range(SLOW_WRITERS)]
        await asyncio.sleep(0)
        quick = [await service.render(speaker, MESSAGES) for _ in range(3)]
        told = [*(task.done() for task in slow), quick[0] == quick[2]]
        over.set()
        await asyncio.gather(*slow)
        return told

    monkeypatch.setattr(type(speaker.speech), "write", written)
    monkeypatch.setattr("tunesmith.serving.service.SECONDS_TO_TOKENIZE", 60)
    assert asyncio.run(ask()) == [*[False] * SLOW_WRITERS, True]


def test_whether_tools_are_written_is_found_out_in_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_template: Template) -> bool:
        for _ in range(100):
            time.sleep(0.02)
        return True

    monkeypatch.setattr(Template, "writes_tools", property(look))
    monkeypatch.setattr("tunesmith.serving.service.SECONDS_TO_TOKENIZE", 0.1)
    tools = [{"type": "function", "function": {"name": "f"}}]
    problem = refusal(service.render(service.find(None), MESSAGES, tools))
    assert (problem.where, "took more than" in problem.message) == ("tools", True)


def test_an_engine_is_closed_where_what_comes_after_it_fails(
    served_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[BatchingEngine] = []
    close = BatchingEngine.close

    def noted(engine: BatchingEngine) -> None:
        closed.append(engine)
        close(engine)

    monkeypatch.setattr(BatchingEngine, "close", noted)
    monkeypatch.setattr("tunesmith.serving.answers.find_workspace", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_answers(str(served_model), Answering())
    assert len(closed) == 1


def test_a_working_folder_that_is_gone_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.delenv("TUNESMITH_RUNS", raising=False)
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        Path.cwd()
    roots = find_workspace().roots
    monkeypatch.chdir(tmp_path)
    assert tmp_path.resolve() not in roots
    assert tmp_path.resolve() in find_workspace().roots
