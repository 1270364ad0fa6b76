"""One call of a compiled candidate in a process of its own.

A schedule that does not fit its kernel may write past a buffer, which would end the tuner or spoil
its memory. So each candidate runs here first, between canaries.

    python -m deploy.trials.apart LIBRARY BUFFERS

BUFFERS is JSON, a (shape, dtype) for each argument of the function ``k``; exit code 3 says that the
bytes around a buffer were written to.
"""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_CANARY_BYTES, _CANARY = 1 << 16, 0x5A
_OUTSIDE = 3
_TIMEOUT_S = 60


def run_apart(data: bytes, function: Any) -> None:  # noqa: ANN401 - a library, its PrimFunc
    """Raise RuntimeError unless a call of ``k`` returns and writes nothing outside its buffers."""
    import tvm

    buffers = [
        ([int(side) for side in param.shape], str(param.dtype))
        for param in function.params
        if isinstance(param.ty, tvm.tirx.BufferType)
    ]
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        library = Path(folder) / "k.so"
        library.write_bytes(data)
        command = [sys.executable, "-m", "deploy.trials.apart", str(library), json.dumps(buffers)]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"a call took more than {_TIMEOUT_S} s") from None
    if done.returncode == _OUTSIDE:
        raise RuntimeError("it writes outside of its buffers")
    if done.returncode < 0:
        raise RuntimeError(f"it crashes ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise RuntimeError(f"it fails: {done.stderr.decode(errors='replace').strip()[-150:]}")


def _main(library: str, buffers: str) -> int:
    from deploy.cpu.loaded import aligned
    from deploy.cpu.tvm_runtime import import_runtime

    ffi = import_runtime()
    call = ffi.load_module(library)["k"]
    wholes, arguments = [], []
    for shape, kind in json.loads(buffers):
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        whole = aligned((size + 2 * _CANARY_BYTES,), np.uint8)
        whole[:] = _CANARY
        inner = whole[_CANARY_BYTES : _CANARY_BYTES + size].view(kind).reshape(shape)
        inner[...] = 0
        wholes.append(whole)
        arguments.append(ffi.from_dlpack(inner))
    for _ in range(3):  # what spoils the runtime's own memory shows in a later call
        call(*arguments)
    ends = [end for whole in wholes for end in (whole[:_CANARY_BYTES], whole[-_CANARY_BYTES:])]
    return 0 if all((end == _CANARY).all() for end in ends) else _OUTSIDE


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
