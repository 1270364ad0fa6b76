"""Files in folders: which are there, and how many were passed over."""

import os
import stat
import warnings
from collections import Counter
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
    leaves beside each file, is passed over; how much was, and for what, is warned of, unless other
    endings are to be `among_others`.

    Raises UserError for a folder that cannot be read.
    """
    found: list[Path] = []
    other = f"not {', '.join(endings)}"
    over = Counter({"hidden": 0, other: 0})  # in this order
    wanted = tuple(ending.lower() for ending in endings)
    for path, kind in _entries(folder, below):
        if path.name.startswith("."):
            over["hidden"] += 1
        elif kind == stat.S_IFDIR:
            over["folder(s)"] += 1
        elif not path.name.lower().endswith(wanted):
            over[other] += not among_others
        elif kind in (stat.S_IFREG, stat.S_IFLNK):
            found.append(path)
        else:
            over["pipe(s) or device(s)"] += 1
    if found and (reasons := ", ".join(f"{count} {what}" for what, count in over.items() if count)):
        warnings.warn(PassedOverWarning(f"{folder}: files passed over: {reasons}"), stacklevel=3)
    return sorted(found)


def _entries(folder: Path, below: bool, above: tuple[str, ...] = ()) -> Iterator[tuple[Path, int]]:
    """What is in a folder, with its kind as `stat.S_IFMT`: folders that are not gone into, and
    links that lead nowhere too: who opens one says so."""
    real = Path(os.path.realpath(folder))
    above = (*above, str(real)) if above else (str(real), *map(str, real.parents))
    try:
        entries = [(path, _kind(path)) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    for path, kind in entries:
        if kind != stat.S_IFDIR or not below or path.name.startswith("."):
            yield path, kind
        elif os.path.realpath(path) not in above:  # else its files are there already
            yield from _entries(path, below, above)


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
