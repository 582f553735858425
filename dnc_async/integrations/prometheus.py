"""Streams as Prometheus metrics: ``Client(observers=[PrometheusObserver()])``. Needs the extra ``prometheus``.

All are counters, except for the histogram of gaps; names follow Prometheus's conventions (base units, ``_total``):

=======================================================  ====================================================================
``dnc_async_batches_total{stream}``                      batches that were handed over
``dnc_async_gap_seconds{stream}``                        how long the consumer waited for each batch, without the first one
``dnc_async_waited_seconds_total{stream, cause}``        the same, by cause, as the report names them
``dnc_async_received_bytes_total{gateway}``              bytes of verified blocks
``dnc_async_requests_total{gateway, outcome}``           requests that were answered, failed, or cancelled
``dnc_async_hedges_total{gateway}``                      requests for blocks that were also requested from another gateway
``dnc_async_mismatches_total{gateway}``                  answers that did not match their CID, and were dropped
=======================================================  ====================================================================

A gateway's label is its URL without secrets. If a cause names a gateway, its text contains the name, as in the report.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from dnc_async.telemetry import BlockReceived, Event, Gap, RequestEnded, RequestFailed, RequestSent

_GAPS_S = (0.0005, 0.002, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class PrometheusObserver:
    """Counts what streams do. Create one for each registry, because names can be registered only once."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics; raises ``ValueError`` if they are registered already."""

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, namespace="dnc_async", registry=registry)

        self._batches = counter("batches", "Batches that were handed over.", "stream")
        self._waited = counter("waited_seconds", "What consumers waited for, after the first batch.", "stream", "cause")
        self._received = counter("received_bytes", "Bytes of answers, told as each ends.", "gateway")
        self._verified = counter("verified_bytes", "Bytes of verified blocks.", "gateway")
        self._requests = counter("requests", "Requests by how they ended.", "gateway", "outcome")
        self._hedges = counter("hedges", "Requests for what another gateway had been asked for.", "gateway")
        self._mismatches = counter("mismatches", "Answers that were not what their CID says.", "gateway")
        self._gaps = Histogram(
            "gap_seconds",
            "The wait for each batch after the first.",
            ["stream"],
            namespace="dnc_async",
            registry=registry,
            buckets=_GAPS_S,
        )

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Gap():
                self._gap(event)
            case BlockReceived():
                self._verified.labels(event.gateway).inc(event.size_bytes)
            case RequestSent(hedge=True):
                self._hedges.labels(event.gateway).inc()
            case RequestEnded():
                self._requests.labels(event.gateway, event.outcome).inc()
                self._received.labels(event.gateway).inc(event.received_bytes)
            case RequestFailed(mismatch=True):
                self._mismatches.labels(event.gateway).inc()

    def _gap(self, gap: Gap) -> None:
        self._batches.labels(gap.stream).inc()
        if gap.position:
            self._gaps.labels(gap.stream).observe(gap.seconds)
            for cause, seconds in gap.causes.items():
                self._waited.labels(gap.stream, cause).inc(seconds)
