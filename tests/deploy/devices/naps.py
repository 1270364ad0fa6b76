"""A kernel that takes as long as it is told: y[0] = x[0] + 1 after so many seconds."""

from functools import cache

import numpy as np

from deploy import ir
from deploy.devices.kernels import kernel_library, remote_kernels
from deploy.devices.session import RemoteSession
from deploy.targets import resolve_target


def _nap(seconds: int):
    def signature(f):
        x, y = f.param("x", (1,)), f.param("y", (1,))

        def body() -> None:
            ir.call_c("sleep", seconds)
            ir.store_scalar(y, x[0] + ir.scalar(1.0), 0)

        return body

    return ir.prim_func("nap", signature)


@cache
def library() -> bytes:
    naps = {f"nap{seconds}": _nap(seconds) for seconds in (0, 3, 3600)}
    return kernel_library(naps, resolve_target("x86-64"))


def nap(session: RemoteSession, seconds: int, x: float = 0.0) -> float:
    kernels = remote_kernels(session, library())
    out = kernels.run(f"nap{seconds}", [np.array([x], np.float32)], np.zeros(1, np.float32))
    return float(out[0])
