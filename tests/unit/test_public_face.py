"""The public names are pinned: adding or losing one is a decision."""

import subprocess
import sys

import pytest

import dnc_async


def test_exported_names() -> None:
    """These, sorted without regard to case, and no others."""
    assert list(dnc_async.__all__) == sorted(dnc_async.__all__, key=str.casefold)
    assert set(dnc_async.__all__) == {
        "ArgumentError",
        "BatchStream",
        "BudgetTooSmallError",
        "ChunkUnavailableError",
        "CidError",
        "Client",
        "DatasetError",
        "DatasetInfo",
        "DecodeError",
        "DirectoryEntry",
        "DiskFullError",
        "DncError",
        "Gateway",
        "GatewayError",
        "ManifestError",
        "OutputError",
        "PathError",
        "Ragged",
        "RemoteFile",
        "Report",
        "ReportError",
        "Saved",
        "SpoolError",
        "StoreError",
        "StreamClosedError",
        "TransformError",
        "UploadError",
        "UploadResult",
        "cat",
        "get",
        "inspect",
        "ls",
        "open",
        "stream",
        "upload",
    }


@pytest.mark.parametrize("name", dnc_async.__all__)
def test_every_name_loads(name: str) -> None:
    """Each name is found where it is said to be."""
    assert getattr(dnc_async, name).__module__.startswith("dnc_async.")


def test_unknown_name() -> None:
    """A wrong name is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dnc_async.nonsense


def test_import_is_light() -> None:
    """Importing the package loads neither numpy nor aiohttp."""
    code = "import sys, dnc_async; sys.exit(any(m in sys.modules for m in ('numpy', 'aiohttp', 'anyio')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
