"""Where benchmarks keep what they make."""

import os
from pathlib import Path

from lut.errors import UserError

FITTED = "-fitted"  # ends the name of a network whose classifier `benchmarks.fit` made


def cache_root() -> Path:
    """The folder."""
    base = os.environ.get("HMSEG_HOME") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return root / ("peers" if os.environ.get("HMSEG_HOME") else "hmseg/peers")


def path_of(name: str) -> Path:
    """The fitted classifier of a network, with or without that end of its name."""
    return cache_root() / "fitted" / f"{name.removesuffix(FITTED)}.npz"


def found(name: str) -> Path:
    """The same; raises UserError where nothing was fitted."""
    path = path_of(name)
    if not path.exists():
        model = name.removesuffix(FITTED)
        raise UserError(f"{name}: run `python -m benchmarks.fit --data CAMVID --models {model}`")
    return path
