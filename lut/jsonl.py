"""JSON Lines files: append-only, one complete record per line, a torn last line is dropped.

A file that is only read any more may be packed by xz: PATH.xz is read where PATH is named.
"""

import fcntl
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lut.errors import HmsegWarning, UserError
from lut.files import read_file, size_of, unwritable, write_atomic
from lut.json_text import parse_json

Record = dict[str, Any]
PACKED = ".xz"
# What a file becomes when it is unpacked: at most so many times its size, and so much beside. The
# shipped tables become up to 5 times as large.
_MOST_RATIO, _SPARE_BYTES = 20, 16 << 20
_UNPACKING_BYTES = 128 << 20  # xz's own largest setting takes 65 MiB


class TornLineWarning(HmsegWarning):
    """What a crash left of a line was dropped."""


def append_record(path: Path, record: Record) -> None:
    """Append one record; it is on disk, whole, when this returns.

    Raises UserError where the file cannot be written; then nothing of the record is in it.

    A last line that a crash cut short is dropped first: the record would become part of it.
    Processes that append to one file, or rewrite it (`hold_records`), wait for each other.
    """
    line = json.dumps(record) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as handle:
            _drop_torn_line(handle)
            _write_all(handle, line.encode())
            os.fsync(handle)
    except OSError as error:
        raise unwritable(path, error) from error


def read_records(path: Path) -> list[Record]:
    """All complete records; none where there is no file.

    A last line that was cut off by a crash is dropped with a warning. Raises UserError naming the
    line for damage anywhere else, and where the file cannot be read.
    """
    found = stored(path)
    if found is None:
        return []
    *lines, rest = _content(found).split(b"\n")
    if rest:
        warnings.warn(
            TornLineWarning(f"{path}: the last line was cut short and is dropped"), stacklevel=2
        )
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object")
        records.append(record)
    return records


def rewrite_records(path: Path, records: list[Record]) -> None:
    """Replace the file's records, whole or not at all; packed where its name says so."""
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    if path.suffix == PACKED:
        import lzma

        data = lzma.compress(data)
    write_atomic(path, data)


def stored(path: Path) -> Path | None:
    """The file that is read where `path` is named: itself, or it, packed; None where there is
    neither. Raises UserError as `size_of`."""
    packed = path.with_name(path.name + PACKED)
    return next((each for each in (path, packed) if size_of(each) is not None), None)


def content_digest(path: Path) -> str:
    """The SHA-256 of a file's content, packed or not, in hexadecimal; raises UserError where there
    is none."""
    return hashlib.sha256(_content(stored(path) or path)).hexdigest()


def _content(path: Path) -> bytes:
    data = read_file(path)
    if path.suffix != PACKED:
        return data
    try:
        return _unpacked(data)
    except ValueError as error:
        raise UserError(f"{path}: damaged or cut short ({error}); copy it again") from error


def _unpacked(data: bytes) -> bytes:
    """What one stream of xz holds. Raises ValueError for anything else, and for one that becomes
    larger, or takes more memory to unpack, than ours can."""
    import lzma

    most = _SPARE_BYTES + _MOST_RATIO * len(data)
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, _UNPACKING_BYTES)
    try:
        content = unpacker.decompress(data, most)
    except lzma.LZMAError as error:
        raise ValueError(error) from error
    if not unpacker.eof and len(content) == most:
        raise ValueError(f"its {len(data)} bytes would become more than {most}")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("it does not end where its content does")
    return content


@contextmanager
def hold_records(path: Path) -> Iterator[None]:
    """Until the block ends no other process appends to the file, for what reads it and rewrites it.

    Raises UserError where it cannot be read.
    """
    with ExitStack() as held:
        try:
            held.enter_context(_alone(path, os.O_RDONLY))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        yield


@contextmanager
def _alone(path: Path, flags: int) -> Iterator[int]:
    """The file, opened, as long as no other process has it so."""
    while True:
        handle = os.open(path, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(handle), path.stat()):
                yield handle
                return
        finally:  # also of a file that was replaced while this waited
            os.close(handle)


def _drop_torn_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.ftruncate(handle, os.pread(handle, size, 0).rfind(b"\n") + 1)


def _write_all(handle: int, data: bytes) -> None:
    size = os.fstat(handle).st_size
    try:
        while data:  # a disk that fills up writes a part, and raises the next time
            data = data[os.write(handle, data) :]
    except OSError:
        os.ftruncate(handle, size)
        raise
