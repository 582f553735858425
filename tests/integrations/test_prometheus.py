"""A stream's metrics, scraped over HTTP as Prometheus does."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import numpy as np
import prometheus_client
import pytest

import dnc_async as dnc
from dnc_async.integrations.prometheus import PrometheusObserver
from dnc_async.testing import GatewayProcess

from ..conftest import PATIENCE_S


async def test_a_stream_is_scraped(tmp_path: Path) -> None:
    """What was counted is what the stream's own statistics say, for each gateway, and a liar shows."""
    data = {"x": np.random.default_rng(0).integers(0, 256, (64, 20_000), dtype=np.uint8)}
    cid = (await dnc.upload(data, batch_size=8, store=tmp_path / "store")).cid
    registry = prometheus_client.CollectorRegistry()
    server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        with GatewayProcess(tmp_path / "store") as good, GatewayProcess(tmp_path / "store", "flip=1") as bad:
            async with dnc.Client(
                gateways=[good.url, bad.url], observers=[PrometheusObserver(registry)], spool_dir=tmp_path / "spool"
            ) as client:
                stream = client.stream(cid, epochs=None)
                batches = 0
                async for _ in stream:
                    batches += 1
                    if batches >= 8 and stream.statistics().blocks_rejected:
                        break
                await stream.aclose()
            figures = stream.statistics()  # now that requests which were given up have ended, and were counted
        port = server.server_port
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).read().decode()  # noqa: ASYNC210
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    def total(name: str) -> float:
        found = re.findall(rf"^dnc_async_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    assert total("batches_total") == batches
    assert total("gap_seconds_count") == batches - 1
    assert total("received_bytes_total") == figures.fetched_bytes
    assert total("mismatches_total") == figures.blocks_rejected > 0
    assert total("waited_seconds_total") == pytest.approx(figures.waited_s, abs=1e-6)
    assert f'gateway="{bad.url}"' in text


def test_registered_twice() -> None:
    """The library's own error names what is there already."""
    registry = prometheus_client.CollectorRegistry()
    PrometheusObserver(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusObserver(registry)
