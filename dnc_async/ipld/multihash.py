"""Multihashes: the code of a hash function, the digest's length, the digest.

*Supported* are digests of 20 bytes or more by a function that resists forgery. Others can be *checked* if hashlib computes
them, which is enough for a block that is only stored. ``identity`` is not a hash: its "digest" is the data, at most 128 bytes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from hashlib import sha256

from dnc_async.errors import CidError
from dnc_async.ipld import varint
from dnc_async.ipld.varint import Buffer

IDENTITY = 0x00
SHA2_256 = 0x12
SHA2_512 = 0x13
BLAKE3 = 0x1E
_BLAKE2B = 0xB200  # the codes after it are BLAKE2b with digests of 1, 2, … 64 bytes

MAX_IDENTITY_BYTES = 128
MIN_DIGEST_BYTES = 20
#: No function has longer digests.
MAX_DIGEST_BYTES = 128
#: The longest identity digest of older writers, which is not supported any more.
_MOST_IDENTITY_BYTES = 1024

_CODES = {"identity": IDENTITY, "sha2-256": SHA2_256, "sha2-512": SHA2_512, "blake3": BLAKE3}
_DOUBLE_SHA2_256 = 0x56
_BLAKE2S = 0xB240
_SHAKES = {0x18: hashlib.shake_128, 0x19: hashlib.shake_256}
_HASHLIB = {
    0x11: "sha1",
    0x14: "sha3_512",
    0x15: "sha3_384",
    0x16: "sha3_256",
    0x17: "sha3_224",
    0x20: "sha384",
    0x1013: "sha224",
    0x1014: "sha512_224",
    0x1015: "sha512_256",
    0x1053: "ripemd160",
    SHA2_256: "sha256",
    SHA2_512: "sha512",
}
_NAMES = {code: name for name, code in _CODES.items()} | {
    0x11: "sha1",
    0x14: "sha3-512",
    0x15: "sha3-384",
    0x16: "sha3-256",
    0x17: "sha3-224",
    0x18: "shake-128",
    0x19: "shake-256",
    0x1B: "keccak-256",
    0x20: "sha2-384",
    0x22: "murmur3-x64-64",
    0x56: "dbl-sha2-256",
    0xD4: "md4",
    0xD5: "md5",
    0x1012: "sha2-256-trunc254-padded",
    0x1013: "sha2-224",
    0x1014: "sha2-512-224",
    0x1015: "sha2-512-256",
    0x1053: "ripemd-160",
    0xB401: "poseidon-bls12_381-a2-fc1",
}
_READ = "sha2-256, sha2-512, blake2b, blake3 and identity are read"


def name_of(code: int) -> str:
    """The name of a hash function in the multicodec table, or its code if it is not known."""
    if _BLAKE2B < code <= _BLAKE2B + 64:
        return f"blake2b-{8 * (code - _BLAKE2B)}"
    if _BLAKE2S < code <= _BLAKE2S + 32:
        return f"blake2s-{8 * (code - _BLAKE2S)}"
    return _NAMES.get(code) or f"{code:#x}"


def digest(name: str, data: Buffer) -> bytes:
    """Hash ``data`` with the function ``name``; returns the multihash."""
    code = _code_of(name)
    length = len(data) if code == IDENTITY else 32 if code == BLAKE3 else _longest(code)
    if code == IDENTITY and length > MAX_IDENTITY_BYTES:
        raise CidError(_too_long_inside(length))
    if not length and code != IDENTITY:
        raise CidError(f"the hash function {name} is not supported: {_READ}")
    return varint.encode(code) + varint.encode(length) + _hash(code, length, data)


def matches(multihash: bytes, data: Buffer) -> bool:
    """Whether ``data`` hashes to ``multihash``; raises :class:`CidError` if that cannot be checked."""
    if multihash[:2] == b"\x12\x20":
        return sha256(data).digest() == multihash[2:]
    code, start, end = read(multihash, 0)
    if end != len(multihash):
        raise CidError(f"{len(multihash) - end} bytes follow the end of a multihash")
    if code == IDENTITY:
        return multihash[start:] == data
    if not is_checkable(multihash):
        raise CidError(f"the hash function {name_of(code)}, with {end - start} bytes, cannot be checked")
    return _hash(code, end - start, data) == multihash[start:]


def matches_pieces(multihash: bytes, pieces: Sequence[bytes | memoryview]) -> bool:
    """As :func:`matches`, for data in pieces; these are joined only for functions other than sha2-256."""
    if len(pieces) == 1 or multihash[:2] != b"\x12\x20":
        return matches(multihash, pieces[0] if len(pieces) == 1 else b"".join(pieces))
    hashed = sha256()
    for piece in pieces:
        hashed.update(piece)
    return hashed.digest() == multihash[2:]


def read(data: Buffer, offset: int) -> tuple[int, int, int]:
    """Read the multihash at ``offset``, of any function; returns its code and where its digest begins and ends."""
    try:
        code, start = varint.read(data, offset)
        length, start = varint.read(data, start)
    except ValueError as error:
        raise CidError(f"not a multihash: {error}") from error
    most = _MOST_IDENTITY_BYTES if code == IDENTITY else MAX_DIGEST_BYTES
    if length > most:
        raise CidError(f"a multihash with a {name_of(code)} digest of {length} bytes: none has more than {most}")
    if start + length > len(data):
        raise CidError(f"a multihash wants a digest of {length} bytes, and {len(data) - start} are there")
    return code, start, start + length


def problem(multihash: bytes) -> str | None:
    """Why a multihash is not supported: a weak or unknown function, or another length; ``None`` if it is."""
    code, start, end = read(multihash, 0)
    length = end - start
    if code == IDENTITY:
        return _too_long_inside(length) if length > MAX_IDENTITY_BYTES else None
    lengths = _lengths(code)
    if not lengths:
        return f"the hash function {name_of(code)} is not supported: {_READ}"
    if length not in lengths:
        return f"a {name_of(code)} digest has {length} bytes, expected {_span(lengths)}"
    return None


def is_checkable(multihash: bytes) -> bool:
    """Whether :func:`matches` works, supported or not. A shortened digest will do, if it has at least 20 bytes."""
    code, start, end = read(multihash, 0)
    if code == IDENTITY:
        return True
    length, longest = end - start, _longest(code)
    is_sized = _BLAKE2B < code <= _BLAKE2B + 64 or _BLAKE2S < code <= _BLAKE2S + 32
    return MIN_DIGEST_BYTES <= length <= longest and (length == longest or not is_sized)


def _code_of(name: str) -> int:
    code = _CODES.get(name)
    if code is not None:
        return code
    kind, _, bits = name.partition("-")
    if kind in ("blake2b", "blake2s") and bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) % 8 == 0:
        return (_BLAKE2B if kind == "blake2b" else _BLAKE2S) + int(bits) // 8
    return next((code for code, known in _NAMES.items() if known == name), -1)


def _too_long_inside(length: int) -> str:
    return f"an identity CID with {length} bytes: at most {MAX_IDENTITY_BYTES} are allowed"


def _lengths(code: int) -> range:
    """The supported digest lengths of a function; empty if the function is not supported."""
    if code in {SHA2_256, SHA2_512}:
        length = 32 if code == SHA2_256 else 64
        return range(length, length + 1)
    if code == BLAKE3:
        return range(MIN_DIGEST_BYTES, MAX_DIGEST_BYTES + 1)
    length = code - _BLAKE2B
    return range(length, length + 1) if MIN_DIGEST_BYTES <= length <= 64 else range(0)


def _longest(code: int) -> int:
    """The longest digest that we can compute with a function, in bytes; 0 if none."""
    if code == BLAKE3 or code in _SHAKES:
        return MAX_DIGEST_BYTES
    if code == _DOUBLE_SHA2_256:
        return 32
    for first, most in ((_BLAKE2B, 64), (_BLAKE2S, 32)):
        if first + MIN_DIGEST_BYTES <= code <= first + most:
            return code - first
    return _hashlib_bytes(_HASHLIB[code]) if code in _HASHLIB else 0


@functools.cache
def _hashlib_bytes(name: str) -> int:
    try:
        return hashlib.new(name, usedforsecurity=False).digest_size
    except ValueError:  # some OpenSSLs have no ripemd160
        return 0


def _span(lengths: range) -> str:
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def _hash(code: int, length: int, data: Buffer) -> bytes:
    if code == IDENTITY:
        return bytes(data)
    if code == BLAKE3:
        return _blake3(data, length)
    if code == _DOUBLE_SHA2_256:
        return sha256(sha256(data).digest()).digest()[:length]
    if code in _SHAKES:
        return _SHAKES[code](data).digest(length)
    if code in _HASHLIB:
        return hashlib.new(_HASHLIB[code], data, usedforsecurity=False).digest()[:length]
    return (hashlib.blake2b if code < _BLAKE2S else hashlib.blake2s)(data, digest_size=length).digest()


def _blake3(data: Buffer, length: int) -> bytes:
    try:
        from blake3 import blake3  # noqa: PLC0415 - an extra, which few data sets need
    except ImportError as error:
        raise CidError("blake3 digests need one more package: pip install blake3") from error
    return bytes(blake3(data).digest(length=length))
