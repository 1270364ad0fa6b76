"""Backends, each an object; here a target finds its own."""

from deploy.backends.base import Backend
from deploy.backends.cpu import CpuBackend
from deploy.backends.cuda import CudaBackend
from deploy.backends.opencl import OpenClBackend
from deploy.target import Target

_BACKENDS: dict[str, Backend] = {
    "llvm": CpuBackend(),
    "cuda": CudaBackend(),
    "opencl": OpenClBackend(),
}


def backend_of(target: Target) -> Backend:
    """The backend that compiles for a target."""
    return _BACKENDS[str(target.config["kind"])]
