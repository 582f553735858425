"""The public names are pinned: adding or losing one is a decision."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import dnc_async
from dnc_async import errors, sync


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


_OF_CLIENT = (
    "gateways: 'Gateways' = None, routers: 'Routers' = None, disk_budget: 'Size | None' = None, store: 'StrPath | None' = None, "
    "spool_dir: 'StrPath | None' = None, engine: 'EngineKind' = 'thread', "
)
_OF_STREAM = (
    "epochs: 'int | None' = 1, drop_last: 'bool' = False, prefetch: \"int | Literal['auto']\" = 'auto', "
    "resume: 'Mapping[str, Any] | None' = None, checkpoint: 'str | os.PathLike[str] | None' = None, "
    "transform: 'TransformFunction | None' = None, transform_workers: 'Workers' = 0, progress: 'Observer | None' = None"
)
STREAMS: dict[Callable[..., Any], str] = {
    dnc_async.stream: f"(cid: 'Address', *, {_OF_CLIENT}{_OF_STREAM}) -> 'BatchStream'",
    sync.stream: f"(cid: 'Address', *, {_OF_CLIENT}{_OF_STREAM}) -> 'BlockingStream'",
    sync.download_first: f"(cid: 'Address', *, {_OF_CLIENT}{_OF_STREAM}) -> 'Any'",
    dnc_async.Client.stream: f"(self, cid: 'Address', *, {_OF_STREAM}) -> 'BatchStream'",
}


@pytest.mark.parametrize("function", STREAMS)
def test_signatures_of_streams(function: Callable[..., Any]) -> None:
    """All faces take the same options, with the same defaults."""
    assert str(inspect.signature(function)) == STREAMS[function]


@pytest.mark.parametrize("function", [dnc_async.stream, dnc_async.Client.stream])
def test_every_option_is_documented(function: Callable[..., Any]) -> None:
    """Where help() looks: once, in the place that its docstring has for the options."""
    text = inspect.getdoc(function) or ""
    documented = re.findall(r"^(\w+(?:, \w+)*):$", text, re.MULTILINE)
    options = [name for name in inspect.signature(function).parameters if name != "self"]
    assert sorted(", ".join(documented).split(", ")) == sorted(options)
    assert "**options" not in text


@pytest.mark.parametrize("function", STREAMS)
def test_an_option_that_there_is_not(function: Callable[..., Any]) -> None:
    """It is refused by the name of what was called, in every face."""
    name = re.escape(function.__qualname__)
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'shuffel'$"):
        function(*[None] * function.__qualname__.count("."), "bafy", shuffel=True)
