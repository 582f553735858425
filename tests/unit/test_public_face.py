"""The public names are pinned: adding or losing one is a decision."""

import re
import subprocess
import sys

import pytest

import dnc_async
from dnc_async import errors


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
        "EngineError",
        "Gateway",
        "GatewayError",
        "IpldError",
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


_LINE = re.compile(r"    (?P<depth>(?:│   |    )*)[├└]── (?P<name>\w+)(?: \((?P<also>\w+)\))?  +\S")


def test_the_tree_of_errors() -> None:
    """The tree in the docstring is that of the classes; what stands directly below the base can be caught by its public name."""
    drawn: dict[str, tuple[str, str | None]] = {}
    parents = ["DncError"]
    for line in (errors.__doc__ or "").splitlines():
        found = _LINE.match(line)
        if found:
            depth = len(found["depth"]) // 4 + 1
            drawn[found["name"]] = parents[depth - 1], found["also"]
            parents[depth:] = [found["name"]]
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.DncError)]
    there = {}
    for kind in kinds:
        if kind is not errors.DncError:
            also = [base.__name__ for base in kind.__bases__[1:]]
            there[kind.__name__] = kind.__bases__[0].__name__, also[0] if also else None
    assert drawn == there
    public = {name for name in dnc_async.__all__ if name.endswith("Error")}
    assert {name for name, (parent, _) in there.items() if parent == "DncError"} | {"DncError"} <= public
    assert public <= {*there, "DncError"}
