"""Figures for Prometheus."""

from __future__ import annotations

import time
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tunesmith.serving.front import seconds_of
from tunesmith.serving.note import Note
from tunesmith.serving.queue import Queue

WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """What is counted of one server."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._registry = queue, CollectorRegistry()
        counted = partial(Counter, namespace="tunesmith", registry=self._registry)
        took = partial(Histogram, namespace="tunesmith", registry=self._registry)
        now = partial(Gauge, namespace="tunesmith", registry=self._registry)
        self._requests = counted("requests", "Requests answered", ["route", "status"])
        self._seconds = took(
            "request_seconds", "From the first byte to the last", ["route"], buckets=WAITS
        )
        self._first = took("first_token_seconds", "Until the first token", buckets=WAITS)
        self._each = took("token_seconds", "For each token after the first", buckets=PER_TOKEN)
        self._read = counted("prompt_tokens", "Tokens read", ["model"])
        self._written = counted("written_tokens", "Tokens written", ["model"])
        self._running = now("running", "Answers that are being written")
        self._waiting = now("waiting", "Answers that wait")
        self._cache: Gauge | None = None
        if queue.load().cache is not None:
            self._cache = now("cache_used", "Part of the engine's cache in use, 0 to 1")

    def count(self, note: Note, route: str, status: int) -> None:
        """Count a request whose answer is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds_of(note))
        if not note.model:
            return
        self._read.labels(note.model).inc(note.prompt_tokens)
        self._written.labels(note.model).inc(note.written)
        if note.first is not None:
            self._first.observe(note.first - note.begun)
            if note.written > 1:
                self._each.observe((time.monotonic() - note.first) / (note.written - 1))

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        load = self._queue.load()
        self._running.set(load.running)
        self._waiting.set(load.waiting)
        if self._cache is not None and load.cache is not None:
            self._cache.set(load.cache)
        return generate_latest(self._registry)
