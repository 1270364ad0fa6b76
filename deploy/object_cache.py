"""What compiling made, kept for the next time: bytes by a digest of all that they were made from.

An entry is a file: the bytes and, behind them, a SHA-256 of its key and of them. So an object file
in here can be read as one, and what a crash, a full disk or another program left is never used. No
process waits for another: a file is replaced whole, and one that has gone was never there.
"""

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lut.errors import HmsegWarning, UserError
from lut.files import TEMPORARY, cache_folder, write_atomic

LIMIT_MB = 512
LIMIT = "HMSEG_CACHE_MB"  # in the environment, a number of MB instead
_DIGEST_BYTES = 32
# The folder is looked through after so many bytes of this process's own, in shares of the limit.
# It is emptied to the second share when it has grown above the first: that leaves room for what
# this process and others write until they look.
_LOOK, _FULL, _EMPTIED = 1 / 64, 15 / 16, 7 / 8
_STALE_S = 60.0  # an unfinished file of this age is one of a process that was killed


class CacheWarning(HmsegWarning):
    """The cache cannot be written; what it holds already is still used."""


@dataclass(frozen=True)
class Usage:
    """What lies in a cache's folder."""

    entries: int
    bytes: int


def key_of(*texts: str) -> str:
    """The key of what is made from these texts: a SHA-256, in hexadecimal."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


@dataclass
class ObjectCache:
    """Bytes by their keys (`key_of`), in a folder and, as long as the object lives, in memory; in
    memory alone without a folder. Threads and processes may share one.

    When the folder grows above `limit` bytes, what was not used for the longest time is removed.
    """

    folder: Path | None
    limit: int = LIMIT_MB * 10**6
    _held: dict[str, bytes] = field(default_factory=dict, repr=False)
    _unseen: float = field(default=math.inf, repr=False)  # bytes written since the last look
    _writable: bool = field(default=True, repr=False)

    def get(self, key: str) -> bytes | None:
        """What was put under a key; None where nothing is, or nothing whole, which is removed."""
        if key in self._held or self.folder is None or not self.limit:
            return self._held.get(key)
        path = self.folder / key
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        data, digest = entry[:-_DIGEST_BYTES], entry[-_DIGEST_BYTES:]
        if digest != _digest(key, data):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # used now, also where the file system does not keep when it is read
        self._held[key] = data
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes; warns once (`CacheWarning`) where the folder cannot be written."""
        self._held[key] = data
        size = len(data) + _DIGEST_BYTES
        if self.folder is None or not self._writable or size > _EMPTIED * self.limit:
            return
        try:
            write_atomic(self.folder / key, data + _digest(key, data))
        except UserError as error:
            self._writable = False
            warnings.warn(CacheWarning(f"nothing new is cached: {error}"), stacklevel=2)
            return
        self._unseen += size
        if self._unseen > _LOOK * self.limit:
            self._unseen = 0
            self._evict()

    def usage(self) -> Usage:
        """How much lies in the folder."""
        sizes = [size for _, size, _ in self._files()]
        return Usage(len(sizes), sum(sizes))

    def clear(self) -> int:
        """Remove every entry, and say how many there were; what another process is writing stays.
        Raises UserError where the folder cannot be written."""
        removed = 0
        for used, _, path in self._files():
            if _being_written(path, used):
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot empty {self.folder}: {error.strerror}") from error
            removed += 1
        self._held.clear()
        return removed

    def _evict(self) -> None:
        """Remove what was used longest ago, if there is too much; that of killed processes too."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total <= _FULL * self.limit:
            return
        for used, size, path in files:
            if _being_written(path, used):
                continue
            if total <= _EMPTIED * self.limit:
                break
            with suppress(OSError):
                path.unlink(missing_ok=True)
            total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each file of ours was used last, its size and its path; other files are no concern
        of ours."""
        if self.folder is None:
            return
        with suppress(OSError), os.scandir(self.folder) as found:
            for file in found:
                if _is_key(file.name) or file.name.startswith(TEMPORARY):
                    with suppress(OSError):  # gone meanwhile
                        stat = file.stat()
                        yield stat.st_mtime, stat.st_size, Path(file.path)


def default_cache() -> ObjectCache:
    """The user's: in the folder ``objects`` of `cache_folder`, bounded by HMSEG_CACHE_MB. Raises
    UserError where that is no number; 0 is no cache."""
    text = os.environ.get(LIMIT) or str(LIMIT_MB)
    if not (text.isdecimal() and text.isascii()):
        raise UserError(f"{LIMIT} {text}: write a whole number of MB, such as {LIMIT_MB}")
    return ObjectCache(cache_folder() / "objects", int(text) * 10**6)


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()


def _being_written(path: Path, changed: float) -> bool:
    return path.name.startswith(TEMPORARY) and time.time() - changed < _STALE_S


def _is_key(name: str) -> bool:
    return len(name) == 2 * _DIGEST_BYTES and set(name) <= set("0123456789abcdef")
