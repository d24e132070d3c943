"""Work beside the event loop ends in time, and what it did to others is undone."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from tunesmith.serving.timed import TimedPool


def spin() -> None:
    """Loop as a template of many loops does; `except Exception` does not end it."""
    while True:
        try:
            for _ in range(1000):
                pass
        except Exception:  # noqa: BLE001
            continue


def test_work_that_takes_too_long_is_broken_off_and_the_thread_is_free_again() -> None:
    async def ask() -> tuple[float, list[int]]:
        pool = TimedPool(1, "test")
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await pool.run(spin, 0.2)
        seconds = time.monotonic() - start
        results = [await pool.run(lambda value=n: value, 5) for n in range(20)]  # type: ignore[misc]
        pool.close()
        return seconds, results

    seconds, results = asyncio.run(ask())
    assert 0.2 <= seconds < 2
    assert results == list(range(20))


def test_the_time_counts_from_the_beginning_of_the_work() -> None:
    async def ask() -> list[str]:
        pool = TimedPool(1, "test")
        slow = [pool.run(lambda: time.sleep(0.15) or "done", 0.4) for _ in range(5)]
        return await asyncio.gather(*slow)

    assert asyncio.run(ask()) == ["done"] * 5


def test_what_goes_wrong_is_told() -> None:
    async def ask() -> None:
        await TimedPool(1, "test").run(lambda: re.compile("("), 1)

    with pytest.raises(re.error):
        asyncio.run(ask())


def test_interruptions_never_hit_later_work() -> None:
    async def ask() -> int:
        pool, late = TimedPool(2, "test"), 0
        for _ in range(60):
            try:
                await pool.run(lambda: time.sleep(0.004), 0.004)  # about as long as it may take
            except TimeoutError:
                late += 1
            assert await pool.run(lambda: 7, 5) == 7
        return late

    assert 0 <= asyncio.run(ask()) <= 60
