"""Where files are kept, reading one, and writing one whole or not at all."""

import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from lut.errors import UserError

TEMPORARY = ".hmseg-"  # how the names of unfinished files begin
NO_HOME = "this user has no home folder; name a folder to keep things in with HMSEG_HOME"
_LOCK_ATTEMPTS = 1000  # to find a lock where others take it and remove it all the time
_UMASK = threading.Lock()  # reading it sets it, for the whole process, to another for a moment


def read_file(path: Path) -> bytes:
    """The content of a file; raises UserError where it is missing, cannot be read, or is a device
    that has no end."""
    try:
        if stat.S_ISCHR(path.stat().st_mode):
            raise UserError(f"{path}: a device, not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; raises as `read_file`."""
    return hashlib.sha256(read_file(path)).hexdigest()


def size_of(path: Path) -> int | None:
    """Bytes of a file, None where there is none; raises UserError for a path that cannot be looked
    at, such as one in a folder without permission."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def check_writable(path: Path) -> None:
    """Raise UserError unless a file can be created at `path`; meant for before long work.

    Creates nothing: folders that are missing are made when the file is written.
    """
    import tempfile  # late, here and below: a program that only reads does not wait for it

    folder = _destination(path).parent
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def cache_folder() -> Path:
    """The user's folder for what can be made again: HMSEG_HOME, XDG_CACHE_HOME/hmseg, or
    ~/.cache/hmseg. Raises UserError for a user without a home folder, as in many containers."""
    if home := os.environ.get("HMSEG_HOME"):
        return Path(home)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "hmseg"
    try:
        return Path.home() / ".cache" / "hmseg"
    except RuntimeError as error:
        raise UserError(NO_HOME) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it there when the block ends well.

    The file is synced before it takes its name, so a crash leaves either the old file or the new
    one. Missing folders are made; a link is followed. Raises UserError where the file cannot be
    written (no permission, no regular file, disk full); then nothing is left behind.
    """
    import tempfile

    destination = _destination(path)
    temporary: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # A prefix of its own: with the file's name before it, a long name would grow too long.
        handle, name = tempfile.mkstemp(
            dir=destination.parent, prefix=TEMPORARY, suffix=destination.suffix[:16]
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes files private; a result is as readable as any file the user creates.
        with _UMASK:
            umask = os.umask(0)
            os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(destination)
        _sync_folder(destination.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a process killed in `atomic_path` left in a folder.

    Only for a folder that no other process writes into.
    """
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` whole or not at all (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def hold_lock(lock: Path, taken: str) -> Iterator[None]:
    """Hold a lock file until the block ends, and remove it then, with its folder where that was
    made for it and nothing else is there; the kernel gives it back when the process ends.

    Raises UserError, which says that it is `taken`, where another process holds it, and where it
    cannot be written.
    """
    made = not lock.parent.exists()
    with _open_lock(lock, taken):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            if made:
                with suppress(OSError):
                    lock.parent.rmdir()


def _open_lock(lock: Path, taken: str) -> IO[str]:
    for _ in range(_LOCK_ATTEMPTS):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # whoever held it has removed it, or its folder
                file = lock.open("w")
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, lock):
                    return file
                file.close()
        except BlockingIOError:
            file.close()
            raise UserError(taken) from None
        except OSError as error:
            raise unwritable(lock, error) from error
    raise UserError(taken)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def lock_folder(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder as the only one that works in it, whatever the work (`hold_lock`): works of
    several kinds write files of one name."""
    return hold_lock(
        Path(os.path.realpath(folder)) / ".hmseg.lock",
        f"another process is at work in {folder}; wait for it, or name another folder",
    )


def _destination(path: Path) -> Path:
    """The file behind `path`, which is a regular one or none yet."""
    try:
        destination = Path(os.path.realpath(path))
    except OSError as error:  # the folder that this process works in is gone
        raise unwritable(path, error) from error
    try:
        # Renaming onto a device, /dev/null say, would take it away from the whole machine.
        mode = destination.lstat().st_mode
    except FileNotFoundError:
        return destination
    except OSError as error:
        raise unwritable(path, error) from error
    if stat.S_ISDIR(mode):
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot write {path}: it is not a regular file; name another")
    return destination


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> UserError:
    """What to raise where a file cannot be written."""
    reason = error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}; choose another path or free the disk")
