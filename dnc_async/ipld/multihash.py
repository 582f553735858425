"""Multihashes: a hash function's code, the digest's length, the digest.

Only functions that resist forgery are read, with digests of 20 bytes or more; the others are refused by name.
``identity`` is not a hash: the "digest" is the data, at most 128 bytes of it.
"""

from __future__ import annotations

import hashlib
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
_MAX_BLAKE3_BYTES = 128

_CODES = {"identity": IDENTITY, "sha2-256": SHA2_256, "sha2-512": SHA2_512, "blake3": BLAKE3}
_NAMES = {code: name for name, code in _CODES.items()}
_REFUSED = {
    0x11: "sha1",
    0x14: "sha3-512",
    0x15: "sha3-384",
    0x16: "sha3-256",
    0x17: "sha3-224",
    0x1B: "keccak-256",
    0x20: "sha2-384",
    0x22: "murmur3-x64-64",
    0x56: "dbl-sha2-256",
    0xD4: "md4",
    0xD5: "md5",
    0x1012: "sha2-256-trunc254-padded",
    0x1015: "sha2-512-256",
    0x1053: "ripemd-160",
    0xB401: "poseidon-bls12_381-a2-fc1",
}
_READ = "sha2-256, sha2-512, blake2b, blake3 and identity are read"


def name_of(code: int) -> str:
    """The name of a function in the multicodec table, or its code where we do not know one."""
    if _BLAKE2B < code <= _BLAKE2B + 64:
        return f"blake2b-{8 * (code - _BLAKE2B)}"
    return _NAMES.get(code) or _REFUSED.get(code) or f"{code:#x}"


def digest(name: str, data: Buffer) -> bytes:
    """Hash ``data`` with the function of that name; returns the multihash."""
    code = _code_of(name)
    length = {SHA2_256: 32, SHA2_512: 64, BLAKE3: 32, IDENTITY: len(data)}.get(code, code - _BLAKE2B)
    _check_length(code, length)
    return varint.encode(code) + varint.encode(length) + _hash(code, length, data)


def matches(multihash: bytes, data: Buffer) -> bool:
    """Whether ``data`` hashes to ``multihash``."""
    if multihash[:2] == b"\x12\x20":
        return sha256(data).digest() == multihash[2:]
    code, start, end = read(multihash, 0)
    if end != len(multihash):
        raise CidError(f"{len(multihash) - end} bytes follow the end of a multihash")
    if code == IDENTITY:
        return multihash[start:] == data
    return _hash(code, end - start, data) == multihash[start:]


def read(data: Buffer, offset: int) -> tuple[int, int, int]:
    """Read the multihash at ``offset``; returns its code, and where its digest begins and ends."""
    try:
        code, start = varint.read(data, offset)
        length, start = varint.read(data, start)
    except ValueError as error:
        raise CidError(f"not a multihash: {error}") from error
    _check_length(code, length)
    if start + length > len(data):
        raise CidError(f"a multihash wants a digest of {length} bytes, and {len(data) - start} are there")
    return code, start, start + length


def _code_of(name: str) -> int:
    code = _CODES.get(name)
    if code is not None:
        return code
    kind, _, bits = name.partition("-")
    if kind == "blake2b" and bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) % 8 == 0:
        return _BLAKE2B + int(bits) // 8
    raise CidError(f"the hash function {name} is not supported: {_READ}")


def _check_length(code: int, length: int) -> None:
    if code == IDENTITY:
        if length > MAX_IDENTITY_BYTES:
            raise CidError(f"an identity CID with {length} bytes: at most {MAX_IDENTITY_BYTES} are allowed")
        return
    lengths = _lengths(code)
    if not lengths:
        raise CidError(f"the hash function {name_of(code)} is not supported: {_READ}")
    if length not in lengths:
        raise CidError(f"a {name_of(code)} digest has {length} bytes, expected {_span(lengths)}")


def _lengths(code: int) -> range:
    """The digest lengths of a function that are read; none for a function that is not."""
    if code in {SHA2_256, SHA2_512}:
        length = 32 if code == SHA2_256 else 64
        return range(length, length + 1)
    if code == BLAKE3:
        return range(MIN_DIGEST_BYTES, _MAX_BLAKE3_BYTES + 1)
    length = code - _BLAKE2B
    return range(length, length + 1) if MIN_DIGEST_BYTES <= length <= 64 else range(0)


def _span(lengths: range) -> str:
    return str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def _hash(code: int, length: int, data: Buffer) -> bytes:
    if code == SHA2_256:
        return sha256(data).digest()
    if code == SHA2_512:
        return hashlib.sha512(data).digest()
    if code == IDENTITY:
        return bytes(data)
    if code == BLAKE3:
        return _blake3(data, length)
    return hashlib.blake2b(data, digest_size=length).digest()


def _blake3(data: Buffer, length: int) -> bytes:
    try:
        from blake3 import blake3  # noqa: PLC0415 - an extra, which few data sets need
    except ImportError as error:
        raise CidError("blake3 digests need one more package: pip install dnc-async[blake3]") from error
    return bytes(blake3(data).digest(length=length))
