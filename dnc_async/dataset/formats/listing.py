"""Which files a source consists of: a file, several, a pattern such as ``data/*.csv``, a folder, or ``-`` for stdin."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dnc_async.dataset.formats.source_file import SourceFile, StdinFile
from dnc_async.errors import DatasetError

#: Files that are beside data, and are none.
_BESIDE = re.compile(
    r"(README|LICEN[CS]E|NOTICE|CITATION|CHANGELOG|AUTHORS)(\.\w+)?|dataset_infos?\.json|thumbs\.db|desktop\.ini|"
    r"(MD5|SHA\d+)SUMS(\.txt)?|croissant\.json|index\.html",
    re.IGNORECASE,
)
_SPLIT = re.compile(
    r"(?:^|[^A-Za-z0-9])(train(?:ing)?|test(?:ing)?|valid(?:ation)?|val|dev|eval(?:uation)?|t10k)(?=[^A-Za-z0-9]|$)"
)
_SAME_SPLIT = {
    "training": "train",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "t10k": "test",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


@dataclass(slots=True)
class Listing:
    """The files of a source, in the order of their paths. ``root`` is the folder in which they are, if it was named."""

    files: list[SourceFile]
    where: str
    root: Path | None = None
    notes: list[str] = field(default_factory=list)


def files_of(paths: Path | Sequence[Path]) -> Listing:
    """Find the files. Raises :class:`~dnc_async.errors.DatasetError` if there are none."""
    if not isinstance(paths, Path):
        found = [file for path in paths for file in files_of(path).files]
        if not found:
            raise DatasetError("the source: no file was named")
        return Listing(found, f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else f"{paths[0]}")
    if str(paths) == "-":
        return Listing([StdinFile()], "stdin")
    if paths.is_dir():
        return _folder(paths)
    if glob.has_magic(str(paths)) and not os.path.lexists(paths):
        matches = sorted(glob.glob(str(paths), recursive=True))  # noqa: PTH207 - an absolute pattern, too
        if not matches:
            raise DatasetError(f"{paths}: no file has such a name")
        return Listing([SourceFile(Path(match)) for match in matches], str(paths))
    return Listing([SourceFile(paths)], str(paths))


def _folder(folder: Path) -> Listing:
    notes: list[str] = []
    files: list[SourceFile] = []
    skipped: list[str] = []
    for path in _walk(folder):
        name = path.name
        if name.startswith(("_", ".")) or _BESIDE.fullmatch(name):
            skipped.append(name)
        else:
            files.append(SourceFile(path))
    if not files:
        said = (
            f"; {', '.join(sorted(set(skipped))[:5])} {'is' if len(skipped) == 1 else 'are'} left out"
            if skipped
            else ""
        )
        raise DatasetError(f"{folder}: the folder is empty: there are no files with data in it{said}")
    beside = sorted({name for name in skipped if not name.startswith((".", "_"))})
    if beside:
        notes.append(f"left out, because it is no data: {', '.join(beside[:5])}")
    _check_splits(folder, files)
    return Listing(files, str(folder), folder, notes)


def _walk(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        linked = next((name for name in folders if os.path.islink(os.path.join(parent, name))), None)  # noqa: PTH114, PTH118 - as os.walk
        if linked is not None:
            raise DatasetError(
                f"{folder}: {linked} is a symlink to a folder, which is not followed; pass that folder itself"
            )
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        found += [Path(parent, name) for name in names]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _raise(error: OSError) -> None:
    raise DatasetError(f"{error.filename}: {error.strerror}") from error


def _check_splits(folder: Path, files: list[SourceFile]) -> None:
    """Raise if names say that files belong to different splits: test data would be among the training data."""
    found: dict[str, str] = {}
    for file in files:
        relative = file.path.relative_to(folder)
        parts = [relative.stem.split(".")[0], *relative.parent.parts]
        names = [match for part in parts for match in _SPLIT.findall(part.lower())]
        if names:
            found.setdefault(_SAME_SPLIT.get(names[0], names[0]), str(relative))
    if len(found) > 1:
        shown = ", ".join(f"{name} ({path})" for name, path in found.items())
        raise DatasetError(
            f"{folder}: holds several splits: {shown}; upload each of them alone, by its folder or "
            f"with a pattern such as '{folder}/**/train*'"
        )
