"""Single kernels on a device."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from deploy.cpu.link import linker_of
from deploy.cpu.machine_code import compile_kernels
from deploy.devices.session import RemoteSession
from deploy.measure.kernels import Kernels
from deploy.target import Target


def kernel_library(functions: Mapping[str, Any], target: Target) -> bytes:
    """A shared library of PrimFuncs by name, linked for `target`."""
    compiled = compile_kernels(dict(functions), tvm.target.Target(target.config))
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        path = Path(folder) / "kernels.so"
        compiled.export_library(str(path), fcompile=linker_of(target))
        return path.read_bytes()


def remote_kernels(session: RemoteSession, library: bytes) -> Kernels:
    """The kernels of a library, loaded on a device."""
    return Kernels(session.upload(library), session.rpc.cpu(), session.call)
