"""The commands about any DAG: ``dnc get | add | import | export | verify``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dnc_async.cli.shared import Commands, Progress, command, gateway_option, print_line, say, store_option
from dnc_async.errors import ArgumentError, DatasetError, OutputError, StoreError
from dnc_async.quoting import quoted
from dnc_async.system.writing import is_special, open_number, whole_file

if TYPE_CHECKING:
    from dnc_async.engine.files.saving import Saved
    from dnc_async.ipld.block import Block
    from dnc_async.ipld.cid import Cid
    from dnc_async.publish.files import Added
    from dnc_async.store import BlockStore
    from dnc_async.store.integrity import Integrity

_SHOWN = 20
_PIECE_BYTES = 2**20


def add_get(commands: Commands) -> None:
    """Declare ``dnc get``."""
    get = command(commands, "get", _run_get, "write a file or directory tree from IPFS to the disk, verified")
    get.epilog = (
        "Entries of a tree that are neither files, folders nor symlinks, or have an unsupported codec or hash function, are "
        "left out and named on stderr; the exit status stays 0."
    )
    get.add_argument("path", help="a CID, CID/path, ipfs://… or /ipfs/…/path")
    get.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="the file or folder to write (default: its own name, here); - for standard output",
    )
    get.add_argument("--json", action="store_true", help="what was written as JSON")
    gateway_option(get)
    store_option(get)


def add_add(commands: Commands) -> None:
    """Declare ``dnc add``."""
    add = command(commands, "add", _run_add, "add a file or folder to the store as plain UnixFS; prints its CID last")
    add.add_argument("path", help="a file or folder")
    add.add_argument(
        "--profile",
        default="unixfs-v1-2025",
        choices=["unixfs-v1-2025", "unixfs-v0-2015"],
        help="how the DAG is built, which determines its CID (default: unixfs-v1-2025)",
    )
    add.add_argument("--only-hash", action="store_true", help="only print the CID, and write nothing")
    add.add_argument("--hidden", action="store_true", help="also add names that begin with a dot")
    add.add_argument("--json", action="store_true", help="the result as JSON")
    store_option(add)


def add_import(commands: Commands) -> None:
    """Declare ``dnc import``."""
    parser = command(
        commands, "import", _run_import, "import the blocks of a CAR file into the store; prints its roots"
    )
    parser.add_argument("file", help="a CAR (version 1 or 2), or - for standard input")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    store_option(parser)


def add_export(commands: Commands) -> None:
    """Declare ``dnc export``."""
    export = command(commands, "export", _run_export, "write a DAG from the store to a CAR file")
    export.add_argument("cid", help="the DAG's root")
    export.add_argument("-o", "--output", metavar="FILE", help="the CAR, or - for standard output (default: CID.car)")
    export.add_argument(
        "--indexed", action="store_true", help="a CARv2 with an index: any web host that has it can be a --gateway"
    )
    export.add_argument("--force", action="store_true", help="replace a file that is there already")
    export.add_argument("--json", action="store_true", help="the result as JSON")
    store_option(export)


def add_verify(commands: Commands) -> None:
    """Declare ``dnc verify``."""
    verify = command(commands, "verify", _run_verify, "check DAGs in the store for missing and damaged blocks")
    verify.add_argument("cid", nargs="*", help="roots (default: all that were published or imported)")
    verify.add_argument("--json", action="store_true", help="a JSON object per root")
    store_option(verify)


def _run_get(options: argparse.Namespace) -> None:
    from dnc_async.shortcuts import get  # noqa: PLC0415 - 'dnc --help' answers at once

    if options.output is not None and (options.output == "-" or is_special(options.output)):
        _copy_out(options)
        return
    line = Progress()

    def progress(saved: Saved) -> None:
        line.show(
            lambda: f"{_entry_counts(saved)}, {_size(saved.size_bytes)}, of which {_size(saved.reused_bytes)} were here"
        )

    try:
        saved = asyncio.run(
            get(
                options.path,
                options.output,
                gateways=options.gateways,
                routers=options.routers,
                store=options.store,
                progress=progress,
            )
        )
    except KeyboardInterrupt:
        line.end()
        say("what was received is kept: the same command continues from there")
        raise
    finally:
        line.end()
    if saved.outward:
        names = ", ".join(map(quoted, saved.outward[:_SHOWN]))
        say(f"{_many(len(saved.outward), 'symlink')} out of the tree, kept as they are: {names}")
    if saved.others:
        told = [f"{quoted(name or saved.path.name)} ({quoted(why)})" for name, why in saved.left_out[:_SHOWN]]
        more = f", … and {saved.others - len(told):,} more" if saved.others > len(told) else ""
        say(f"left out {_entries(saved.others)} of the tree: {', '.join(told)}{more}")
    reused = f", of which {_size(saved.reused_bytes)} were here" if saved.reused_bytes else ""
    say(f"{_entry_counts(saved)}, {_size(saved.size_bytes)}{reused}")
    print_line(json.dumps({**asdict(saved), "path": str(saved.path)}) if options.json else str(saved.path))


def _entry_counts(saved: Saved) -> str:
    parts = ((saved.files, "file"), (saved.directories, "folder"), (saved.symlinks, "symlink"))
    return ", ".join(_many(count, thing) for count, thing in parts if count) or "0 files"


def _copy_out(options: argparse.Namespace) -> None:
    """Write a file's bytes in order to a target that cannot be renamed: standard output, a device, a pipe."""
    from dnc_async.shortcuts import open as open_file  # noqa: PLC0415 - as above

    size_bytes = 0
    # Writing is done outside of the event loop, because a slow reader must not delay Ctrl-C.
    with asyncio.Runner() as runner:
        file = open_file(options.path, gateways=options.gateways, routers=options.routers, store=options.store)
        try:
            runner.run(file.size())  # raises before anything is opened if this is not a file, or cannot be fetched
            with _sink(options.output, replace=False) as sink:
                while piece := runner.run(file.read(_PIECE_BYTES)):
                    size_bytes += sink.write(piece)
        finally:
            runner.run(file.aclose())
    say(f"1 file, {_size(size_bytes)}")
    if options.json:
        result = {"path": options.output, "size_bytes": size_bytes}
        (say if _is_stdout(options.output) else print_line)(json.dumps(result))
    elif not _is_stdout(options.output):
        print_line(options.output)


def _run_add(options: argparse.Namespace) -> None:
    from dnc_async.ipld.builder import UNIXFS_V0_2015, UNIXFS_V1_2025  # noqa: PLC0415 - as above
    from dnc_async.publish.files import Adder  # noqa: PLC0415

    line = Progress()

    def progress(added: Added) -> None:
        line.show(lambda: f"{_many(added.files, 'file')}, {_size(added.size_bytes)}")

    def run(put: Callable[[Block], None]) -> Cid:
        adder = Adder(put, profile=profile, hidden=options.hidden, progress=progress)
        root = adder.add(Path(options.path))
        line.end()
        _say_added(adder.added)
        found.update(files=adder.added.files, size_bytes=adder.added.size_bytes)
        return root.cid

    profile = {each.name: each for each in (UNIXFS_V1_2025, UNIXFS_V0_2015)}[options.profile]
    found: dict[str, object] = {}
    if not os.path.lexists(options.path):  # before a store is created
        raise DatasetError(f"{options.path}: No such file or directory; nothing was added")
    if options.only_hash:
        root = run(lambda _: None)
    else:
        with _store(options, create=True).begin() as transaction:
            root = run(transaction.put)
            transaction.commit(root)
    print_line(json.dumps({"cid": str(root), **found}) if options.json else str(root))


def _say_added(added: Added) -> None:
    if added.hidden_count:
        names = ", ".join(map(quoted, added.hidden[:3])) + (", …" if added.hidden_count > 3 else "")
        say(f"left out {added.hidden_count:,} names that begin with a dot ({names}); --hidden takes them, too")
    say(f"{_many(added.files, 'file')}, {_size(added.size_bytes)}")


def _run_import(options: argparse.Namespace) -> None:
    from dnc_async.store.cars import import_car  # noqa: PLC0415 - as above

    line = Progress()
    name = "standard input" if options.file == "-" else options.file
    try:
        with _source(options.file) as source:
            store = _store(options, create=True)
            done = import_car(store, source, name=name, progress=lambda *far: line.show(lambda: _blocks(*far)))
    finally:
        line.end()
    for root in done.absent:
        say(f"the CAR names the root {root}, and its block is neither in it nor in the store: it is not listed")
    if done.unchecked_count:
        names = ", ".join(f"{cid} ({cid.hash_name})" for cid in done.unchecked[:_SHOWN])
        more = f", … and {done.unchecked_count - _SHOWN:,} more" if done.unchecked_count > _SHOWN else ""
        say(f"left out {_many(done.unchecked_count, 'block')} whose hash cannot be checked here: {names}{more}")
    for root, fault in done.incomplete:
        say(f"{root} is not complete: {fault} is missing or wrong ('dnc verify {root}' lists all)")
    say(_blocks(done.blocks, done.size_bytes))
    if options.json:
        roots = [str(root) for root in done.roots]
        incomplete = {str(root): str(fault) for root, fault in done.incomplete}
        absent = [str(root) for root in done.absent]
        counts = {"blocks": done.blocks, "size_bytes": done.size_bytes, "unchecked_blocks": done.unchecked_count}
        counts_and = {**counts, "unchecked": [str(cid) for cid in done.unchecked]}
        print_line(json.dumps({"roots": roots, "absent": absent, "incomplete": incomplete, **counts_and}))
    else:
        for root in done.roots:
            print_line(str(root))


def _run_export(options: argparse.Namespace) -> None:
    from dnc_async.store.cars import export_car  # noqa: PLC0415 - as above

    line, root, store = Progress(), _root(options.cid), _store(options)
    name = options.output or f"{root}.car"
    left_out: list[str] = []
    left_out_count = 0

    def tell_left_out(cid: Cid, why: str) -> None:
        nonlocal left_out_count
        left_out_count += 1
        if left_out_count <= _SHOWN:
            left_out.append(f"{cid}: {why}")

    try:
        with _sink(name, replace=options.force) as sink:
            if options.indexed and (open_number(name) is not None or name == "-" or not sink.seekable()):
                raise ArgumentError("--indexed: the file's beginning is written last, so name a file with -o")
            done = export_car(
                store,
                root,
                sink,
                indexed=options.indexed,
                progress=lambda *far: line.show(lambda: _blocks(*far)),
                left_out=tell_left_out,
            )
    finally:
        line.end()
    for text in left_out:
        say(f"not all of the DAG: {text}")
    if left_out_count > _SHOWN:
        say(f"… and {left_out_count - _SHOWN:,} more")
    say(_blocks(*done))
    if options.json:
        result = {"cid": str(root), "file": name, "blocks": done[0], "size_bytes": done[1]}
        (say if _is_stdout(name) else print_line)(json.dumps(result))
    elif not _is_stdout(name):
        print_line(name)


def _run_verify(options: argparse.Namespace) -> int:
    from dnc_async.store.integrity import check  # noqa: PLC0415 - as above

    line, store = Progress(), _store(options)
    roots = [_root(text) for text in options.cid]
    if not roots:
        roots = store.roots()
        for name in store.strangers():
            say(f"{quoted(name)} is not the store's, and is ignored")
    if not roots:
        say(f"{store.path} lists no roots: nothing was published or imported yet")
    complete = True
    for root in roots:
        found = check(store, root, progress=lambda *far: line.show(lambda: _blocks(*far)))
        line.end()
        complete = complete and found.complete
        print_line(json.dumps(_found(found)) if options.json else _verdict(found))
    return 0 if complete else 1


def _found(found: Integrity) -> dict[str, object]:
    named = {"missing": found.missing, "damaged": found.damaged, "unchecked": found.unchecked}
    lists = {name: [str(cid) for cid in cids] for name, cids in named.items()}
    counts = {"blocks": found.blocks, "size_bytes": found.size_bytes}
    return {"cid": str(found.root), "complete": found.complete, **counts, **lists}


def _verdict(found: Integrity) -> str:
    said = "complete" if found.complete else f"{len(found.missing)} blocks missing, {len(found.damaged)} wrong"
    said += f", but for {_many(len(found.unchecked), 'block')} whose hash cannot be checked" if found.unchecked else ""
    lines = [f"{found.root}: {said}; {_blocks(found.blocks, found.size_bytes)} are right"]
    for what, cids in (("missing", found.missing), ("wrong", found.damaged), ("not checked", found.unchecked)):
        lines += [f"  {what} {cid}" for cid in cids[:_SHOWN]]
        lines += [f"  … and {len(cids) - _SHOWN} more"] if len(cids) > _SHOWN else []
    return "\n".join(lines)


def _store(options: argparse.Namespace, *, create: bool = False) -> BlockStore:
    from dnc_async.config import store_path  # noqa: PLC0415 - as above
    from dnc_async.store import BlockStore  # noqa: PLC0415

    return BlockStore.open(store_path(options.store), create=create)


def _root(text: str) -> Cid:
    from dnc_async.client import parse_address  # noqa: PLC0415 - as above

    cid, path = parse_address(text, foreign=True)
    if path:
        raise ArgumentError(f"expected a CID alone, got {text!r}: 'dnc get' follows paths")
    return cid


@contextlib.contextmanager
def _source(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdin is None:  # it was closed
            raise StoreError("standard input is closed; name a CAR file")
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below; only opening it has this error
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror}; name a CAR file, or - for standard input") from error
    with file:
        yield file


@contextlib.contextmanager
def _sink(name: str, *, replace: bool) -> Iterator[BinaryIO]:
    """Open the output: a file that appears when it is complete; standard output, a device or a pipe, which are written into."""
    try:
        with whole_file("/dev/stdout" if name == "-" else name, replace=replace) as file:
            yield file
    except BrokenPipeError:  # the reader has closed the pipe
        raise
    except FileExistsError as error:
        raise OutputError(
            f"{name} is there already; remove it, choose another place, or replace it with --force"
        ) from error
    except OSError as error:
        remedy = "free some space, or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        where = "standard output" if _is_stdout(name) else name
        raise OutputError(f"{where}: {error.strerror}; {remedy}choose another place") from error


def _is_stdout(name: str) -> bool:
    return name == "-" or open_number(name) == 1


def _size(size_bytes: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size_bytes >= 10**power:
            return f"{size_bytes / 10**power:,.1f} {unit}"
    return f"{size_bytes} bytes"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _blocks(blocks: int, size_bytes: int) -> str:
    return f"{_many(blocks, 'block')}, {_size(size_bytes)}"
