"""Content identifiers: a block's name is a hash of its bytes.

A :class:`Cid` is immutable. A CIDv0 and a CIDv1 of the same block are unequal but have the same ``multihash``, which identifies
the bytes. Links and CARs may contain *foreign* CIDs, whose codec or hash function is not supported: :attr:`Cid.problem` says
why. :meth:`Cid.parse` and :meth:`Cid.decode` refuse these unless told otherwise.
"""

from __future__ import annotations

from typing import NoReturn, Self

from libipld import decode_multibase, encode_multibase

from dnc_async.errors import CidError
from dnc_async.ipld import multihash as mh
from dnc_async.ipld import varint
from dnc_async.ipld.varint import Buffer

RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
DAG_JSON = 0x0129

_CODECS = {RAW: "raw", DAG_PB: "dag-pb", DAG_CBOR: "dag-cbor", DAG_JSON: "dag-json"}
_FOREIGN_CODECS = {
    0x51: "cbor",
    0x72: "libp2p-key",
    0x78: "git-raw",
    0x7B: "torrent-info",
    0x85: "dag-jose",
    0x86: "dag-cose",
    0x90: "eth-block",
    0xB0: "bitcoin-block",
    0x0200: "json",
    0x0202: "car",
}
_PREFIXES = {codec: b"\x01" + varint.encode(codec) for codec in _CODECS}
#: The first bytes of nearly all CIDs: version 1, sha2-256, 32 bytes.
_COMMON = {b"\x01\x55\x12\x20": RAW, b"\x01\x70\x12\x20": DAG_PB, b"\x01\x71\x12\x20": DAG_CBOR}
#: The length of those CIDs.
COMMON_BYTES = 36
_V0_PREFIX = b"\x12\x20"
_V0_BYTES = 34
_LONGEST_TEXT = 1800  # the longest identity CID in use, in base 32; decoding base 58 takes quadratic time

_set = object.__setattr__


class Cid:
    """A content identifier: ``version``, ``codec`` and ``multihash`` (bytes). Immutable and hashable."""

    __slots__ = ("codec", "multihash", "version")

    version: int
    codec: int
    multihash: bytes

    def __init__(self, version: int, codec: int, multihash: bytes) -> None:
        if version not in {0, 1}:
            raise CidError(f"CID version {version} is not supported: 0 and 1 are read")
        if not 0 <= codec < 1 << 63:
            raise CidError(f"{codec} is no codec: they are numbers of at most 63 bits")
        if mh.read(multihash, 0)[2] != len(multihash):
            raise CidError("bytes follow the end of the multihash")
        if version == 0 and (codec != DAG_PB or not multihash.startswith(_V0_PREFIX)):
            raise CidError("a CIDv0 can only be dag-pb with sha2-256")
        _set(self, "version", version)
        _set(self, "codec", codec)
        _set(self, "multihash", multihash)

    @classmethod
    def parse(cls, text: str, *, foreign: bool = False) -> Self:
        """Parse a CID from text: base58 (``Qm…``) for version 0, any multibase for version 1."""
        if not isinstance(text, str) or not 2 <= len(text) <= _LONGEST_TEXT:
            is_long = isinstance(text, str) and len(text) > _LONGEST_TEXT
            shown = f"text of {len(text)} characters" if is_long else text
            raise CidError(f"not a CID: expected text like bafy… or Qm…, got {shown!r}")
        try:
            if len(text) == 46 and text.startswith("Qm"):
                return cls.decode(decode_multibase("z" + text)[1], foreign=foreign)
            data = decode_multibase(text)[1]
        except ValueError as error:
            raise CidError(f"not a CID: expected text like bafy… or Qm…, got {text[:80]!r}: {error}") from error
        if data[:1] != b"\x01":
            raise CidError(f"not a CID: {text[:80]!r} does not hold a version 1 (version 0 is written Qm…)")
        return cls.decode(data, foreign=foreign)

    @classmethod
    def decode(cls, data: Buffer, *, foreign: bool = False) -> Self:
        """Decode a CID from bytes, which must end with it."""
        cid, end = cls.read(data, 0)
        if end != len(data):
            raise CidError(f"{len(data) - end} bytes follow the end of a CID")
        if not foreign and (problem := cid.problem) is not None:
            raise CidError(problem)
        return cid

    @classmethod
    def read(cls, data: Buffer, offset: int) -> tuple[Self, int]:
        """Decode the CID at ``offset`` of longer data, foreign or not; returns it and its end."""
        end = offset + COMMON_BYTES
        if end <= len(data):
            codec = _COMMON.get(bytes(data[offset : offset + 4]))
            if codec is not None:
                return cls._trusted(1, codec, bytes(data[offset + 2 : end])), end
        if bytes(data[offset : offset + 2]) == _V0_PREFIX:
            end = offset + _V0_BYTES
            if end > len(data):
                raise CidError("the bytes end inside a CIDv0")
            return cls._trusted(0, DAG_PB, bytes(data[offset:end])), end
        try:
            version, start = varint.read(data, offset)
            if version != 1:
                codec = -1
            else:
                codec, start = varint.read(data, start)
        except ValueError as error:
            raise CidError(f"not a CID: {error}") from error
        if version != 1:
            raise CidError(f"CID version {version} is not supported: 0 and 1 are read")
        _, _, end = mh.read(data, start)
        return cls(version, codec, bytes(data[start:end])), end

    @classmethod
    def of(cls, data: Buffer, codec: int = RAW, hash_name: str = "sha2-256", version: int = 1) -> Self:
        """Compute the CID of a block's bytes."""
        return cls(version, codec, mh.digest(hash_name, data))

    @classmethod
    def of_sha256(cls, digest: bytes) -> Self:
        """The CID of the raw block with this SHA-256 digest."""
        return cls(1, RAW, _V0_PREFIX + digest)

    @classmethod
    def _trusted(cls, version: int, codec: int, multihash: bytes) -> Self:
        cid = cls.__new__(cls)
        _set_version(cid, version)
        _set_codec(cid, codec)
        _set_multihash(cid, multihash)
        return cid

    @classmethod
    def common(cls, data: bytes, offset: int) -> Self | None:
        """The CID at ``offset`` if it is of the most common kind (version 1, raw or dag-pb, sha2-256); else ``None``."""
        codec = _COMMON.get(data[offset : offset + 4])
        if codec is None or offset + COMMON_BYTES > len(data):
            return None
        return cls._trusted(1, codec, data[offset + 2 : offset + COMMON_BYTES])

    @property
    def problem(self) -> str | None:
        """Why the CID is foreign; ``None`` for nearly all CIDs."""
        if self.codec not in _CODECS:
            name = _FOREIGN_CODECS.get(self.codec)
            return f"the codec {self.codec:#x}{f' ({name})' if name else ''} is not supported: {_codec_names()}"
        return None if self.multihash.startswith(_V0_PREFIX) else mh.problem(self.multihash)

    @property
    def codec_name(self) -> str:
        """The codec's name in the multicodec table, or its number."""
        return _CODECS.get(self.codec) or _FOREIGN_CODECS.get(self.codec) or f"{self.codec:#x}"

    @property
    def hash_name(self) -> str:
        """The hash function's name in the multicodec table, or its number."""
        return mh.name_of(mh.read(self.multihash, 0)[0])

    @property
    def inline(self) -> bytes | None:
        """The data itself, if the CID contains it (the hash function is ``identity``)."""
        if self.multihash[0] != mh.IDENTITY:
            return None
        return self.multihash[mh.read(self.multihash, 0)[1] :]

    def encode(self) -> bytes:
        """The CID as bytes."""
        if self.version == 0:
            return self.multihash
        return (_PREFIXES.get(self.codec) or b"\x01" + varint.encode(self.codec)) + self.multihash

    def __str__(self) -> str:
        if self.version == 0:
            return encode_multibase("z", self.multihash)[1:]
        return encode_multibase("b", self.encode())

    def __repr__(self) -> str:
        return f"Cid({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cid):
            return NotImplemented
        return self.multihash == other.multihash and self.codec == other.codec and self.version == other.version

    def __hash__(self) -> int:
        return hash((self.multihash, self.codec, self.version))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Cid cannot be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Cid cannot be changed: {name}")

    def __reduce__(self) -> tuple[type[Cid], tuple[int, int, bytes]]:
        return Cid, (self.version, self.codec, self.multihash)


# The slots' own setters: half the time of object.__setattr__, and a CAR of small blocks makes many.
_set_version, _set_codec, _set_multihash = (vars(Cid)[name].__set__ for name in ("version", "codec", "multihash"))


def _codec_names() -> str:
    *most, last = _CODECS.values()
    return f"{', '.join(most)} and {last} are read"
