"""Downloading a file over plain HTTP, for the loaders that speak to object stores only and take a downloader class."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import urllib3


def download(url: str, path: str) -> None:
    """Write a URL's body to a file, which appears when it is whole. Connections are kept, and failures tried again."""
    part = Path(f"{path}.part.{os.getpid()}")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _pool(os.getpid()).request("GET", url, preload_content=False) as response, part.open("wb") as sink:
            if response.status != 200:
                raise OSError(f"{url}: answered {response.status}")
            shutil.copyfileobj(response, sink, 2**20)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _pool(_: int) -> urllib3.PoolManager:
    """One for each process: workers are forked, and must not share their parent's connections."""
    return urllib3.PoolManager(maxsize=8, retries=urllib3.Retry(3, backoff_factor=0.1))
