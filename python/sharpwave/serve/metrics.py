"""The counters of a server, for Prometheus."""

from __future__ import annotations

from typing import Any

from sharpwave._lazy import require

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROWS = (1, 8, 32, 128, 512, 2048, 8192)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        prometheus = require("prometheus_client", "serve")
        self._library = prometheus
        self.registry = prometheus.CollectorRegistry()
        given: dict[str, Any] = {"registry": self.registry}
        self.requests = prometheus.Counter("sharpwave_requests", "Requests answered", ["verb", "status"], **given)
        self.seconds = prometheus.Histogram(
            "sharpwave_request_seconds", "From a request to its answer", ["verb"], buckets=SECONDS, **given
        )
        self.active = prometheus.Gauge("sharpwave_requests_active", "Requests that are being answered", **given)
        self.batches = prometheus.Histogram(
            "sharpwave_batch_requests", "Requests answered by one call of the store", buckets=SIZES, **given
        )
        self.rows = prometheus.Histogram("sharpwave_batch_rows", "Steps or queries in one call", buckets=ROWS, **given)
        self.memories = prometheus.Gauge("sharpwave_memories", "Memories of the store", **given)
        self.episodes = prometheus.Gauge("sharpwave_episodes", "Episodes of the store", ["state"], **given)
        self.nbytes = prometheus.Gauge("sharpwave_store_bytes", "Bytes of memory that the store holds", **given)
        self.journal = prometheus.Gauge("sharpwave_journal_bytes", "Bytes of the store's journal", **given)
        self.known: frozenset[str] = frozenset()

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has ended. All paths that do not exist are counted under one name."""
        verb = path.rsplit("/", 1)[-1]
        verb = verb if verb in self.known else "other"
        self.requests.labels(verb, str(status)).inc()
        self.seconds.labels(verb).observe(seconds)

    def batched(self, requests: int, rows: int) -> None:
        """Count the requests of one batch."""
        self.batches.observe(requests)
        self.rows.observe(rows)

    def text(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return self._library.generate_latest(self.registry), self._library.CONTENT_TYPE_LATEST
