"""Files in folders: which are there, and how many were passed over."""

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from lut.errors import HmsegWarning, UserError


class PassedOverWarning(HmsegWarning):
    """Files that a folder holds beside those that are read."""


def files_in(
    folder: Path, endings: Sequence[str], *, below: bool = True, among_others: bool = False
) -> list[Path]:
    """The files in a folder, and `below` in its folders, whose names end so, in upper or lower
    case, sorted. Links are followed, also to folders. What begins with a dot, such as what a Mac
    leaves beside each file, is passed over; how many files were, and for what, is warned of,
    unless they are to be `among_others`.

    Raises UserError for a folder that cannot be read.
    """
    found: list[Path] = []
    hidden = others = 0
    for path in _files(folder, below):
        if path.name.startswith("."):
            hidden += 1
        elif path.name.lower().endswith(tuple(ending.lower() for ending in endings)):
            found.append(path)
        else:
            others += not among_others
    if found and (hidden or others):
        counts = ((hidden, "hidden"), (others, f"not {', '.join(endings)}"))
        reasons = ", ".join(f"{count} {what}" for count, what in counts if count)
        warnings.warn(PassedOverWarning(f"{folder}: files passed over: {reasons}"), stacklevel=3)
    return sorted(found)


def _files(folder: Path, below: bool, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Also links that lead nowhere: who opens one says so. Pipes, sockets and devices are none."""
    above = (*above, os.path.realpath(folder))
    try:
        entries = [(path, _kind(path)) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    for path, kind in entries:
        if kind in (stat.S_IFREG, stat.S_IFLNK):
            yield path
        elif kind != stat.S_IFDIR:
            continue
        elif below and not path.name.startswith(".") and os.path.realpath(path) not in above:
            yield from _files(path, below, above)


def _kind(path: Path) -> int:
    """Of what a path leads to, as `stat.S_IFMT`; a link's that leads nowhere, or round and round.
    Raises OSError for one that cannot be looked at."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            raise
        return stat.S_IFLNK
