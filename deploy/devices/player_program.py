"""The program that is sent to a device: one static file, for any Linux of its architecture."""

import importlib.util
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from deploy.cpu.link import run_tool
from deploy.cpu.source import RUNTIME
from deploy.object_cache import default_cache, key_of
from lut.errors import UserError

ARCHITECTURES = ("x86_64", "aarch64")  # as ``uname -m`` prints them
_SOURCES = ("player.c", "library.c", "pool.c")
_HEADERS = ("frame.h", "hmseg.h", "library.h")
# The pool's own measure of a thread's stack is kept; else musl's is 128 KB.
_FLAGS = ("-static", "-s", "-std=c11", "-O2", "-pthread")
_BUILT: dict[str, bytes] = {}


def player_program(architecture: str) -> bytes:
    """The executable, linked by ziglang against musl and kept in the user's cache; the first time,
    musl is compiled, which takes a minute. Raises UserError without ziglang."""
    if importlib.util.find_spec("ziglang") is None:
        raise UserError("--device sends a program that ziglang links: pip install ziglang")
    texts = {name: (RUNTIME / name).read_text() for name in (*_SOURCES, *_HEADERS)}
    key = key_of("a device's program", architecture, *_FLAGS, version("ziglang"), *texts.values())
    cache = default_cache()
    data = _BUILT.get(key) or cache.get(key)
    if data is None:
        data = _build(architecture, texts)
        cache.put(key, data)
    _BUILT[key] = data
    return data


def _build(architecture: str, texts: dict[str, str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text)
        zig = (sys.executable, "-m", "ziglang", "cc", "-target", f"{architecture}-linux-musl")
        run_tool([*zig, *_FLAGS, "-o", "player", *_SOURCES], folder, "linking")
        return (Path(folder) / "player").read_bytes()
