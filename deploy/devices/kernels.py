"""Single kernels on a device."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.devices.session import RemoteSession
from deploy.link import fcompile_of
from deploy.targets import Target


def kernel_library(functions: Mapping[str, Any], target: Target) -> bytes:
    """A shared library of PrimFuncs by name, linked for `target`."""
    import tvm

    from deploy.kernels.ir import compile_kernels

    compiled = compile_kernels(dict(functions), tvm.target.Target(target.config))
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        path = Path(folder) / "kernels.so"
        compiled.export_library(str(path), fcompile=fcompile_of(target))
        return path.read_bytes()


class RemoteKernels:
    """The kernels of a library, loaded on a device."""

    def __init__(self, session: RemoteSession, library: bytes) -> None:
        self._session = session
        self._module = session.upload(library)
        self._device = session.rpc.cpu()

    def run(self, name: str, inputs: Sequence[NDArray[Any]], output: NDArray[Any]) -> NDArray[Any]:
        """Call a kernel on arrays; returns what became of `output`, which is left as it is."""

        def work() -> NDArray[Any]:
            tensors = self._tensors([*inputs, output])
            self._module[name](*tensors)
            result: NDArray[Any] = tensors[-1].numpy()
            return result

        return self._session.call(f"running {name}", work)

    def time(self, name: str, arrays: Sequence[NDArray[Any]], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls, by the device's own clock."""

        def work() -> list[int]:
            tensors = self._tensors(arrays)
            timer = self._module.time_evaluator(name, self._device, number=1, repeat=calls)
            return [round(seconds * 1e9) for seconds in timer(*tensors).results]

        return self._session.call(f"timing {name}", work)

    def _tensors(self, arrays: Sequence[NDArray[Any]]) -> list[Any]:
        import tvm

        return [
            tvm.runtime.tensor(np.ascontiguousarray(array), device=self._device) for array in arrays
        ]
