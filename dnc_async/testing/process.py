"""A scripted gateway in its own process, so that its work takes no time from the process that measures."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import dnc_async
from dnc_async.errors import ArgumentError, DncError

from .faults import Faults
from .stats import STATS_PATH, GatewayStats

if TYPE_CHECKING:
    from types import TracebackType

_ANSWER_S = 10.0


class GatewayProcess:
    """Serves the store at ``store_path`` with ``faults`` from another process, while the ``with`` block runs.

    A context manager, with and without ``async``; starting blocks for about half a second. The child process ends when this
    process ends, for whatever reason: it watches a pipe whose other end only this process holds.
    """

    def __init__(
        self,
        store_path: str | os.PathLike[str],
        faults: Faults | str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        start_timeout_s: float = 20.0,
    ) -> None:
        self._store_path = Path(store_path)
        self._faults = Faults.parse(faults) if isinstance(faults, str) else faults or Faults()
        self._host = host
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None

    def __repr__(self) -> str:
        return f"<GatewayProcess {self._url or 'not started'} {str(self._faults) or 'without faults'}>"

    @property
    def faults(self) -> Faults:
        """The script."""
        return self._faults

    @property
    def url(self) -> str:
        """The gateway's URL, without a slash at the end."""
        if self._url is None:
            raise ArgumentError("this gateway was not started; enter it with 'with' or 'async with' first")
        return self._url

    def start(self) -> Self:
        """Start the process and wait until it answers; entering the block does this, too.

        Raises :class:`DncError` with the process's stderr if it ends, or is not ready in time.
        """
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603 - our own module, under our own interpreter
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=_environment()
            )
            self._process = process
            try:
                self._url = self._first_line(process)
            except BaseException:
                self.kill()
                raise
            if not self._url:
                self.kill()
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip()
                limit = f"it was not ready within {self._start_timeout_s:g} s"
                raise DncError(f"the gateway process did not start: {said or limit}")
        return self

    def kill(self) -> None:
        """Kill the process at once, as a crash would: its connections break. A second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> None:
        """Let the process end in order, as leaving the block does; kills it if it takes too long."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def stats(self) -> GatewayStats:
        """What it has done so far. Blocks for the time of one request on loopback."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_S)
        try:
            connection.request("GET", STATS_PATH)
            return GatewayStats(**json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException) as error:
            raise DncError(f"the gateway process at {self.url} gives no statistics: {error}") from error
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        words = [sys.executable, "-m", "dnc_async.testing", "serve", "--stop-on-eof", "--store", str(self._store_path)]
        return [*words, "--host", self._host, "--port", str(self._port), "--fault", str(self._faults)]

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        """Read the line with the URL; nothing if the process ends, or time runs out: then it is killed."""
        assert process.stdout is not None  # noqa: S101 - for the type checker
        timer = threading.Timer(self._start_timeout_s, process.kill)
        timer.start()
        try:
            return process.stdout.readline().decode("utf-8", "replace").strip()
        finally:
            timer.cancel()
            timer.join()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _environment() -> dict[str, str]:
    """The child's environment: ours, and the path from which this package was imported."""
    here = str(Path(dnc_async.__file__).parent.parent)
    there = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, there]) if there else here}
