"""Every default of the library, and the only code that reads environment variables.

It is above the mechanisms on purpose: gateways, spool and dataset take plain required keywords and cannot read policy.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from dnc_async.config.numbers import number, parse_size
from dnc_async.errors import ArgumentError
from dnc_async.gateways.multiaddr import url_of
from dnc_async.gateways.providers import is_loopback_url
from dnc_async.gateways.urls import without_secrets
from dnc_async.telemetry import logger

#: Public trustless gateways, best effort: measured as they are used. None of them is indispensable.
PUBLIC_GATEWAYS = (
    "https://ipfs.filebase.io",
    "https://gateway.pinata.cloud",
    "https://4everland.io",
    "https://ipfs.orbitor.dev",
    "https://dget.top",
)

#: The requests per minute that public gateways allow; more are answered with 429.
PUBLIC_REQUESTS_PER_MINUTE = 200.0

#: Given instead of a gateway: use the gateways that routers name.
DISCOVER = "discover"

DEFAULT_CHUNK_BYTES = 4 * 2**20
DEFAULT_BUDGET_BYTES = 2 * 10**9
DEFAULT_BUDGET_SHARE = 0.1

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A trustless gateway: its URL, and headers for gateways that require a token. Neither these nor a password are shown.

    A URL whose path ends in ``.car`` is a CARv2 file with an index, on any host that supports HTTP ranges. At most
    ``requests_per_minute`` are sent to the gateway, if given.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    requests_per_minute: float | None = None

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, requests_per_minute: float | None = None
    ) -> None:
        if requests_per_minute is not None:
            rate = number(requests_per_minute)
            if rate is None or not 0 < rate < math.inf:
                raise ArgumentError(f"requests_per_minute: expected more than 0, or None, got {requests_per_minute!r}")
            requests_per_minute = float(rate)
        object.__setattr__(self, "url", gateway_url(url))
        object.__setattr__(self, "headers", _headers(headers or {}))
        object.__setattr__(self, "requests_per_minute", requests_per_minute)

    def __repr__(self) -> str:
        return f"Gateway(url={without_secrets(self.url)!r}, requests_per_minute={self.requests_per_minute!r})"

    @property
    def is_car_file(self) -> bool:
        """Whether the URL names an indexed CAR file on a static host, and not a gateway that finds blocks by CID."""
        return _is_car_file(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """How gateways are asked, and other settings of the engine. Durations are seconds."""

    connect_timeout_s: float = 5.0
    #: A request fails if no byte arrives for this long. There is no total timeout.
    stall_timeout_s: float = 30.0
    #: How often one gateway may fail for one block before it is given up for that block.
    attempts: int = 3
    #: A gateway that has delivered blocks before is given at least this long, however often it failed for a block.
    patience_s: float = 20.0
    #: A gateway that says when it can be asked again (``Retry-After``) is waited for, up to this long after a block's first
    #: failure. If it names a later time, it is given up for that block.
    busy_patience_s: float = 180.0
    requests_per_gateway: int = 32
    #: Unverified bytes live in memory only, and never more of them than this. Half as much may be asked for, by all streams of a
    #: client, before there is room for it.
    in_flight_bytes: int = 32 * 2**20
    #: How many verified bytes of CARs are kept in memory before they are wanted (read-ahead)…
    early_bytes: int = 8 * 2**20
    #: …and how long a CAR request stops reading when that is full.
    hold_s: float = 20.0
    #: Late blocks are also requested from a second gateway: at most this share of the delivered bytes.
    hedge_share: float = 0.05
    #: The most gateways that are taken from routers, over all datasets that share the user's gateways.
    found_gateways: int = 16
    #: The limits for a router's answer: its duration, and its number of records.
    router_timeout_s: float = 60.0
    router_records: int = 1000
    #: Whether loopback and private addresses are accepted from routers on other machines, too.
    private_providers: bool = False
    workers: int = 4
    #: When the disk is full, staging is tried again after the first time, which doubles each time, up to the second.
    disk_retry_s: float = 1.0
    disk_longest_retry_s: float = 30.0
    #: How long a running transform is waited for when its stream is closed…
    transform_patience_s: float = 5.0
    #: …and how many batches are given at once to a consumer's executor that does not tell its number of workers.
    executor_batches: int = 2
    #: Whether to use ``HTTP_PROXY`` and similar variables, and ``~/.netrc``.
    trust_env: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """Settings for uploads to a service. ``pin_timeout_s`` limits its walk over the whole DAG."""

    connect_timeout_s: float = 10.0
    answer_timeout_s: float = 120.0
    pin_timeout_s: float = 600.0


def installed_version() -> str:
    """The version of this library."""
    try:
        return version("dnc-async")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"


def user_agent() -> str:
    """The ``User-Agent`` that we send to gateways."""
    return f"dnc-async/{installed_version()}"


def gateway_url(url: object) -> str:
    """A gateway's base URL without a slash at its end; raises :class:`~dnc_async.errors.ArgumentError`.

    ``http://localhost`` becomes 127.0.0.1, because Kubo redirects ``localhost`` to a subdomain.
    """
    if isinstance(url, str):
        try:
            url.encode()  # a lone surrogate is no text that a host can be told
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        signed = not parts.query or _is_car_file(parts.geturl())  # a file's URL may be signed
        if parts.scheme in ("http", "https") and host and port != 0 and signed and not parts.fragment:
            if host == "localhost" and parts.scheme == "http":  # a certificate is for the name
                userinfo, at, _ = parts.netloc.rpartition("@")
                parts = parts._replace(netloc=f"{userinfo}{at}127.0.0.1{'' if port is None else f':{port}'}")
            base = parts.geturl()
            return base if _is_car_file(base) else base.rstrip("/").removesuffix("/ipfs")
    shown = without_secrets(url) if isinstance(url, str) else url
    raise ArgumentError(
        f"gateways: expected URLs such as 'http://127.0.0.1:8080' or 'https://gateway.example', got {shown!r}"
    )


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check headers; the error names the header, and never shows its value."""
    for name, value in headers.items():
        is_text = isinstance(name, str) and isinstance(value, str)
        if not (is_text and _HEADER_NAME.fullmatch(name) and value.replace("\t", " ").isprintable()):
            raise ArgumentError(f"headers: {name!r}: expected a name and a line of text, without line breaks")
    return dict(headers)


def _is_car_file(url: str) -> bool:
    return urlsplit(url).path.lower().endswith(".car")


def gateways_of(gateways: Iterable[str | Gateway] | str | Gateway) -> tuple[Gateway, ...]:
    """The gateways of an argument, each once, in order; raises :class:`~dnc_async.errors.ArgumentError`."""
    listed = [gateways] if isinstance(gateways, (str, Gateway)) else list(gateways)
    unique: dict[str, Gateway] = {}
    for item in listed:
        gateway = item if isinstance(item, Gateway) else Gateway(item)
        unique.setdefault(gateway.url, gateway)
    if not unique:
        raise ArgumentError("gateways: the list is empty; name at least one, or leave the argument out")
    return tuple(unique.values())


def environ_gateways(environ: Mapping[str, str] | None = None) -> tuple[Gateway, ...]:
    """The gateways of ``IPFS_GATEWAY``, else of ``$IPFS_PATH/gateway`` (IPIP-280), else the public ones."""
    environ = os.environ if environ is None else environ
    named, source = environ.get("IPFS_GATEWAY", "").split(), "IPFS_GATEWAY"
    if not named:
        try:
            file = _kubo_file("gateway", environ)
            named, source = file.read_text(encoding="utf-8").split(), str(file)
        except (OSError, ArgumentError, UnicodeDecodeError):
            named = []
    try:
        return gateways_of(
            named or [Gateway(url, requests_per_minute=PUBLIC_REQUESTS_PER_MINUTE) for url in PUBLIC_GATEWAYS]
        )
    except ArgumentError as error:
        raise ArgumentError(f"{source}: {str(error).removeprefix('gateways: ')}") from error


def sources_of(
    gateways: Iterable[str | Gateway] | str | Gateway | None,
    routers: Iterable[str] | str | None,
    environ: Mapping[str, str] | None = None,
) -> tuple[tuple[Gateway, ...] | None, tuple[str, ...]]:
    """The gateways that two arguments name, ``None`` for the default ones, and the routers' URLs.

    ``"discover"`` among the gateways means that routers are asked; without ``routers``, a local Kubo's gateway is one. Raises
    :class:`~dnc_async.errors.ArgumentError`.
    """
    asked = tuple(dict.fromkeys(router_url(url) for url in ([routers] if isinstance(routers, str) else routers or ())))
    if gateways is None:
        return None, asked
    listed = [gateways] if isinstance(gateways, (str, Gateway)) else list(gateways)
    named = [gateway for gateway in listed if gateway != DISCOVER]
    if len(named) == len(listed):
        return gateways_of(named), asked
    asked = asked or tuple(each.url for each in environ_gateways(environ) if is_loopback_url(each.url))
    if not asked:
        raise ArgumentError(
            "gateways: 'discover' needs a router to ask, and no gateway of IPFS_GATEWAY or $IPFS_PATH/gateway is a local node; "
            "name one with routers=, or --router URL"
        )
    return gateways_of(named) if named else (), asked


def router_url(url: object) -> str:
    """A delegated router's base URL; raises :class:`~dnc_async.errors.ArgumentError`."""
    try:
        return gateway_url(url).removesuffix("/routing/v1")
    except ArgumentError as error:
        shown = without_secrets(url) if isinstance(url, str) else url
        raise ArgumentError(f"routers: expected URLs such as 'https://router.example', got {shown!r}") from error


def kubo_rpc(address: str, environ: Mapping[str, str] | None = None) -> tuple[str, dict[str, str]]:
    """The URL of a Kubo node's RPC, by default ``$IPFS_PATH/api``, and the headers for ``IPFS_API_AUTH``.

    ``IPFS_API_AUTH`` is ``bearer:TOKEN`` or ``basic:USER:PASSWORD``, as Kubo's own ``--api-auth``. It is sent unencrypted to
    another machine only if the address is a URL that says ``http://``; the log says so.
    """
    environ = os.environ if environ is None else environ
    named, file = bool(address), Path()
    if not named:
        file = _kubo_file("api", environ)
        try:
            address = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"to='kubo': no node is running here ({file} is missing); use 'kubo=URL'") from error
    kind, _, secret = environ.get("IPFS_API_AUTH", "").partition(":")
    if kind not in ("", "bearer", "basic") or not secret.isprintable() or (kind == "bearer" and not secret.isascii()):
        raise ArgumentError("IPFS_API_AUTH: expected 'bearer:TOKEN' or 'basic:USER:PASSWORD'")
    token = base64.b64encode(secret.encode()).decode() if kind == "basic" else secret
    headers = {"Authorization": f"{kind.capitalize()} {token}"} if kind else {}
    url = _rpc_url(address, "to" if named else str(file))
    _guard_credentials(url, is_written=url == address, has_header=bool(headers))
    return url, headers


def _rpc_url(address: str, name: str) -> str:
    """Convert a URL or multiaddr to the RPC's URL: https if it names TLS. Raises for what is not understood."""
    if address.startswith("/"):
        try:
            return url_of(address)
        except ValueError as error:
            raise ArgumentError(
                f"{name}: the address {address!r} is not one that we can use ({error}); expected /ip4/HOST/tcp/PORT, "
                "the same with /tls/http or /https behind it, or a URL such as 'kubo=https://host:5001'"
            ) from error
    try:
        address.encode()
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        is_url = is_url and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url:
        shown = address.rpartition("@")[2]
        raise ArgumentError(f"{name}: expected 'kubo=URL' such as 'kubo=http://127.0.0.1:5001', got {shown!r}")
    return address


def _guard_credentials(url: str, *, is_written: bool, has_header: bool) -> None:
    """Raise if a secret would be sent over a network unencrypted; only warn if the user wrote ``http://``."""
    parts = urlsplit(url)
    is_here = is_loopback_url(url) or parts.hostname == "localhost"
    if parts.scheme == "https" or is_here or not (has_header or parts.username):
        return
    if not is_written:
        raise ArgumentError(
            f"to: the secret of IPFS_API_AUTH would go to {parts.hostname} in clear; name an address with /tls/http or "
            f"'kubo=https://…', or where that is meant, 'kubo={url}'"
        )
    logger.warning("the password or token for http://%s goes there in clear: use https where you can", parts.hostname)


def _kubo_file(name: str, environ: Mapping[str, str]) -> Path:
    """The content of a file in Kubo's repository."""
    return _expanded(environ.get("IPFS_PATH") or "~/.ipfs", "IPFS_PATH") / name


def store_path(store: str | os.PathLike[str] | None, environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the local store: the argument, else ``DNC_STORE``, else in the user's data folder.

    Raises :class:`~dnc_async.errors.ArgumentError` if the home folder is needed and not known.
    """
    environ = os.environ if environ is None else environ
    chosen = store or environ.get("DNC_STORE")
    if chosen:
        return _expanded(chosen, "store" if store else "DNC_STORE")
    return _own(platformdirs.user_data_path, "store: name a folder for it (--store DIR, DNC_STORE)") / "store"


def own_store() -> Path | None:
    """The folder of the user's own store, if it exists."""
    try:
        path = store_path(None)
    except ArgumentError:
        return None
    return path if os.path.exists(path) else None  # noqa: PTH110 - a Path raises where it may not look


def spool_path(spool_dir: str | os.PathLike[str] | None) -> Path:
    """The folder for spools: the argument, else in the user's cache folder; raises as :func:`store_path` does."""
    if spool_dir:
        return _expanded(spool_dir, "spool_dir")
    return _own(platformdirs.user_cache_path, "spool_dir: name a folder for it (--spool-dir DIR)") / "spool"


def spool_of(spool_dir: str | os.PathLike[str] | None, disk_budget: float | str | None) -> tuple[Path, int]:
    """The folder for spools, and the budget in bytes. Without a budget no folder is needed."""
    budget = None if disk_budget is None else parse_size(disk_budget, name="disk_budget")
    if budget == 0 and not spool_dir:
        return Path(), 0
    spool = spool_path(spool_dir)
    return spool, default_budget(spool) if budget is None else budget


def _own(folder: Callable[[str], Path], remedy: str) -> Path:
    """One of the user's own folders; ``None`` if the user's home is not known."""
    with contextlib.suppress(RuntimeError):
        found = folder("dnc_async")
        if found.parts[:1] != ("~",):
            return found
    raise ArgumentError(f"{remedy}, or set HOME: this user has no home folder")


def _expanded(path: str | os.PathLike[str], name: str) -> Path:
    try:
        if b"\0" in os.fsencode(path):
            raise ArgumentError(f"{name}: {os.fspath(path)!r} holds a zero byte, which no path can")
        return Path(path).expanduser().absolute()  # because the working directory may change later
    except FileNotFoundError as error:
        gone = "is relative, and the working directory is gone; name it in full"
        raise ArgumentError(f"{name}: {os.fspath(path)!r} {gone}") from error
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{name}: {os.fspath(path)!r} is a name that this system cannot write") from error
    except RuntimeError as error:  # there is no such home folder, or the user is not known
        raise ArgumentError(f"{name}: {os.fspath(path)!r} has no home folder to begin with; name it in full") from error


def default_budget(folder: Path) -> int:
    """A tenth of the free disk beneath ``folder``, at most 2 GB. Never 0, which would mean memory alone."""
    while not os.path.exists(folder) and folder != folder.parent:  # noqa: PTH110 - as above
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    if not disk.total:  # a file system that does not say, such as /proc
        return DEFAULT_BUDGET_BYTES
    return max(1, min(DEFAULT_BUDGET_BYTES, int(disk.free * DEFAULT_BUDGET_SHARE)))
