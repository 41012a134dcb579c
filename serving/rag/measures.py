"""What Prometheus is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Measures:
    """The endpoint's metrics, in a registry of their own.

    Attributes:
        registry: What `/metrics` shows.
        requests: Requests by route and status.
        seconds: Seconds of each stage of the way through.
        first_byte: Seconds until the first byte of an answer goes out.
        in_flight: Requests that are being answered.
        decisions: Requests by what was decided about retrieval.
        policies: Policy files by whether they were taken.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("m4rag_requests", "Requests", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "m4rag_stage_seconds", "Seconds of a stage", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self.first_byte = Histogram(
            "m4rag_first_byte_seconds", "Seconds to the first byte", buckets=SECONDS, registry=self.registry
        )
        self.in_flight = Gauge("m4rag_in_flight", "Requests being answered", registry=self.registry)
        self.decisions = Counter("m4rag_decisions", "Decisions about retrieval", ["decision"], registry=self.registry)
        self.policies = Counter("m4rag_policy_loads", "Policy files read", ["outcome"], registry=self.registry)

    @contextmanager
    def stage(self, name: str, timings_ms: dict[str, float]) -> Iterator[None]:
        """Measure a stage, for Prometheus and for the answer's own `timings_ms`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.seconds.labels(name).observe(seconds)
            timings_ms[name] = round(seconds * 1000, 2)
