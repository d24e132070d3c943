"""Work beside the event loop ends in time, and what it did to others is undone."""

from __future__ import annotations

import asyncio
import re
import threading
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


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_what_is_slow_keeps_others_waiting_only_where_many_are(slow: int) -> None:
    over = threading.Event()

    async def ask() -> tuple[list[bool], list[int]]:
        pool = TimedPool(1, "test", slow=slow)
        long = [asyncio.create_task(pool.run(lambda: over.wait(60), 60)) for _ in range(2)]
        quick = [asyncio.create_task(pool.run(lambda: 7, 60)) for _ in range(3)]
        await asyncio.wait(quick, timeout=1.0)
        done = [task.done() for task in quick]
        over.set()
        await asyncio.gather(*long)
        found = await asyncio.gather(*quick)
        pool.close()
        return done, found

    assert asyncio.run(ask()) == ([slow == 2] * 3, [7] * 3)


def test_whoever_leaves_while_waiting_takes_no_turn_along() -> None:
    async def ask() -> int:
        pool, over = TimedPool(1, "test"), threading.Event()
        first = asyncio.create_task(pool.run(lambda: over.wait(60), 60))
        others = [asyncio.create_task(pool.run(lambda: False, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in others:
            task.cancel()
        over.set()
        assert await first
        return await pool.run(lambda: 7, 60)

    assert asyncio.run(ask()) == 7
