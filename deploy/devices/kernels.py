"""Single kernels on a device."""

from collections.abc import Mapping
from typing import Any

from deploy.cpu.link import link_shared, tools_of
from deploy.cpu.machine_code import object_files
from deploy.devices.place import DeviceSession
from deploy.measure.kernels import Kernels
from deploy.target import Target


def kernel_library(functions: Mapping[str, Any], target: Target) -> bytes:
    """A shared library of PrimFuncs by name, linked for `target`."""
    objects = object_files(functions, target)
    # The variables too, which the server's TVM fills in.
    return link_shared(tools_of(target), list(objects.values()), ("__tvm_ffi_*", "__TVM*"))


def remote_kernels(session: DeviceSession, library: bytes) -> Kernels:
    """The kernels of a library, loaded on a device."""
    return Kernels(session.upload(library), session)
