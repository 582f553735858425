"""All exceptions of the library, and who or what caused each. PURE.

::

    DncError
    ├── ArgumentError (ValueError)      you: an argument cannot work; the message names it and what would
    ├── IpldError                       the bytes are not what a format or a CID says
    │   ├── CidError (ValueError)           this text or these bytes are not a CID that we read
    │   ├── BlockMismatchError              a block does not hash to its CID
    │   ├── CarError                        a CAR stream is malformed, at .offset
    │   │   └── CarTruncatedError               it ended inside a section: everything before is good
    │   └── DagError                        a dag-pb or UnixFS node breaks its specification
    │       ├── PlanTooLargeError               a range of a file has more leaves than one plan may hold
    │       └── UnsizedFileError                a file does not say, or not truly, how long its parts are
    ├── DatasetError (ValueError)       you: the source of an upload cannot be divided into batches
    ├── ManifestError                   this CID is not a dataset that we can read
    ├── PathError (LookupError)         a path leads to nothing, or to a directory where a file is expected
    ├── OutputError                     the file or folder that get() writes to cannot be used
    ├── GatewayError                    one gateway, one request; .gateway and .cid say which
    │   ├── GatewayTimeoutError             no connection, or no byte, within the limit
    │   ├── GatewayMissError                it does not have the block
    │   ├── GatewayRefusedError             it will not serve the block (410, 451), or its file cannot be read
    │   ├── GatewayNoCarError               it does not send CARs, or not of such a form
    │   ├── GatewayBusyError                it asked us to come back later (429, 502, 503, 504)
    │   ├── GatewayOversizeError            it sent more than the block may have, by its parent
    │   └── GatewayMismatchError            it sent bytes that do not hash to the CID
    ├── ChunkUnavailableError (ExceptionGroup)   every gateway failed for a block; holds their errors
    ├── SpoolError                      the staging folder cannot be used
    │   ├── BudgetTooSmallError (ValueError)    .smallest_bytes is the smallest disk budget that works
    │   └── DiskFullError                   the file system is full, below the budget, when a stream starts
    ├── StoreError                      the local store cannot be read or written
    ├── DecodeError                     a verified chunk is not laid out as its manifest says
    ├── TransformError                  you: transform= raised, for the batch at .position; from what it raised
    ├── ReportError (ValueError)        a saved gap report cannot be read, or not written
    ├── UploadError                     a publishing target refused, or answered with another root
    ├── EngineError                     the engine, or its own process, could not start or go on
    └── StreamClosedError               you: the stream or client was closed, or belongs to another process

A network error is never raised alone to a consumer: after a :class:`GatewayError` the block is requested from another
gateway, and only when none is left, the error reaches you, inside a :class:`ChunkUnavailableError`.

All of them can be pickled, so they can be raised through a process pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from dnc_async.quoting import quoted


class DncError(Exception):
    """The base of all errors that this library raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the class with .args, which those that name more than a message do not take.
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: type[DncError], args: tuple[object, ...], state: dict[str, object]) -> DncError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ArgumentError(DncError, ValueError):
    """An argument cannot work. Nothing was started."""


class IpldError(DncError):
    """Bytes that are not what their format or their CID says."""


class CidError(IpldError, ValueError):
    """Not a CID, or one with a version, codec or hash function that we do not read."""


class BlockMismatchError(IpldError):
    """A block's bytes do not hash to its CID."""


class CarError(IpldError):
    """A malformed CAR stream. ``offset`` is where in the stream, in bytes."""

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(f"{message} (at byte {offset} of the CAR)")
        self.offset = offset


class CarTruncatedError(CarError):
    """The CAR ended inside a section. Blocks that were yielded before are verified and good."""


class DagError(IpldError):
    """A dag-pb or UnixFS node that breaks its specification."""


class PlanTooLargeError(DagError):
    """A range of a file has more leaves than one plan may hold: a smaller range may do."""


class UnsizedFileError(DagError):
    """A file whose nodes do not say, or not truly, how long its parts are: it can be read from its start on, and only so."""


class DatasetError(DncError, ValueError):
    """The source of an upload cannot be divided into batches. Nothing was published."""


class ManifestError(DncError):
    """The CID does not lead to a dataset that this version can read."""


class PathError(DncError, LookupError):
    """The path leads to nothing, or to something else than what is expected there."""


class OutputError(DncError):
    """The file or folder to write to cannot be used. What was received so far is kept, and the next call continues from there."""


class GatewayError(DncError):
    """One request to one gateway failed.

    The message is quoted, because a gateway chooses the words of its answer. ``gateway`` is its URL without secrets, ``cid``
    what was asked (text), ``retry_after_s`` the pause that the gateway asked for, if it did.
    """

    def __init__(
        self, message: str, *, gateway: str, cid: str | None = None, retry_after_s: float | None = None
    ) -> None:
        asked = f", asked for {cid}" if cid else ""
        super().__init__(quoted(f"{gateway}{asked}: {message}"))
        self.gateway = gateway
        self.cid = cid
        self.retry_after_s = retry_after_s


class GatewayTimeoutError(GatewayError):
    """No connection, or no byte of the answer, within the limit."""


class GatewayMissError(GatewayError):
    """The gateway does not have the block (404, 403 or a redirect)."""


class GatewayRefusedError(GatewayError):
    """The gateway has decided not to serve this CID (410 or 451)."""


class GatewayNoCarError(GatewayError):
    """The gateway does not understand a request for a CAR, or answers it with something else. It may serve raw blocks."""


class GatewayBusyError(GatewayError):
    """The gateway asked us to come back later (429, 502, 503, 504)."""


class GatewayOversizeError(GatewayError):
    """The gateway sent more bytes than the block may have, by what its parent says. Either of them is wrong."""


class GatewayMismatchError(GatewayError):
    """The gateway sent bytes that do not hash to the CID. They were thrown away."""


class ChunkUnavailableError(DncError, ExceptionGroup[Exception]):
    """Every gateway failed for one block. ``exceptions`` holds the last error of each of them."""

    def __new__(cls, message: str, causes: Sequence[Exception]) -> Self:
        """Build the group; ``causes`` must not be empty."""
        return super().__new__(cls, message, causes)

    def __init__(self, message: str, causes: Sequence[Exception]) -> None:
        super().__init__(message, causes)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {cause}" for cause in self.exceptions)])


class SpoolError(DncError):
    """The staging folder cannot be used."""


class BudgetTooSmallError(SpoolError, ValueError):
    """The disk budget cannot hold the largest chunk. ``smallest_bytes`` is the smallest that can."""

    def __init__(self, message: str, *, smallest_bytes: int) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes


class DiskFullError(SpoolError):
    """The file system is full, although the budget is not."""


class StoreError(DncError):
    """The local block store cannot be read or written."""


class DecodeError(DncError):
    """A chunk whose bytes are verified, but that is not laid out as its manifest says."""


class TransformError(DncError):
    """The function that was given as ``transform`` failed for a batch; ``__cause__`` is what it raised.

    ``position`` counts the batches of the stream from 0, ``index`` those of the dataset. All batches before it were handed
    over, and none after it is.
    """

    def __init__(self, message: str, *, position: int, index: int) -> None:
        super().__init__(message)
        self.position = position
        self.index = index


class ReportError(DncError, ValueError):
    """A saved gap report that cannot be read, or a file that it cannot be written to."""


class UploadError(DncError):
    """A publishing target refused the data, or answered with another root."""


class EngineError(DncError):
    """The engine, its thread or the process that it had for itself could not be started, or ended before its streams did."""


class StreamClosedError(DncError):
    """The stream or client was closed, or was carried into another process by a fork."""
