"""What several tests need and is expensive is made once a run, whichever worker comes first."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """The file or folder `name` in a folder that all workers share. `make` writes it to the path
    that it is given; the others wait meanwhile. Where it fails, the next tries again."""
    path = folder / name
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = folder / f"{name}.unfinished-{os.getpid()}"
            make(unfinished)
            unfinished.rename(path)
    return path
