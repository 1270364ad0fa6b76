"""Single kernels on a machine: called, and timed by its own clock."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Module(Protocol):
    """A library, loaded on a machine. Arguments are tensors there, or numbers."""

    def call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401
        """Call a function."""

    def time(self, name: str, arguments: Sequence[Any], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls, at least one, after one more."""


class Machine(Protocol):
    """Where libraries are loaded and tensors lie."""

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """Run `work`, which calls the machine; `doing` says what it is, for an error."""

    def tensor(self, array: NDArray[Any]) -> Any:  # noqa: ANN401 - what a module's call takes
        """An array's copy there."""

    def empty(self, shape: Sequence[int], dtype: str) -> Any:  # noqa: ANN401 - as above
        """A tensor there, not filled."""

    def read(self, tensor: Any) -> NDArray[Any]:  # noqa: ANN401 - as above
        """The contents of a tensor there."""


class TvmModule:
    """A module of TVM's runtime, here or on a device of its RPC."""

    def __init__(self, module: Any, device: Any) -> None:  # noqa: ANN401
        self._module, self._device = module, device

    def call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401
        """As `Module.call`."""
        self._module[name](*arguments)

    def time(self, name: str, arguments: Sequence[Any], calls: int) -> list[int]:
        """As `Module.time`."""
        timer = self._module.time_evaluator(name, self._device, number=1, repeat=calls)
        return [round(seconds * 1e9) for seconds in timer(*arguments).results]


class Here:
    """This process, with TVM's runtime."""

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """As `Machine.call`."""
        del doing
        return work()

    def tensor(self, array: NDArray[Any]) -> Any:  # noqa: ANN401
        """As `Machine.tensor`."""
        import tvm

        return tvm.runtime.tensor(np.ascontiguousarray(array), device=tvm.cpu())

    def empty(self, shape: Sequence[int], dtype: str) -> Any:  # noqa: ANN401
        """As `Machine.empty`."""
        import tvm

        return tvm.runtime.empty(tuple(shape), dtype, tvm.cpu())

    def read(self, tensor: Any) -> NDArray[Any]:  # noqa: ANN401
        """As `Machine.read`."""
        found: NDArray[Any] = tensor.numpy()
        return found


class Kernels:
    """Kernels of a module by name, loaded on a machine."""

    def __init__(self, module: Module, machine: Machine) -> None:
        self._module, self._machine = module, machine

    def run(self, name: str, inputs: Sequence[NDArray[Any]], output: NDArray[Any]) -> NDArray[Any]:
        """Call a kernel on arrays; returns what became of `output`, which is left as it is."""
        tensors = [self._machine.tensor(array) for array in (*inputs, output)]
        self._machine.call(f"running {name}", lambda: self._module.call(name, *tensors))
        return self._machine.read(tensors[-1])

    def made_by(self, name: str, shape: Sequence[int]) -> Any:  # noqa: ANN401 - a tensor there
        """A float32 tensor that the kernel `name`, which takes nothing else, has filled: nothing
        is sent."""
        tensor = self._machine.empty(shape, "float32")
        self._machine.call(f"running {name}", lambda: self._module.call(name, tensor))
        return tensor

    def time(self, name: str, arguments: Sequence[Any], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls on arrays, or tensors there, after one more."""
        tensors = [
            self._machine.tensor(given) if isinstance(given, np.ndarray) else given
            for given in arguments
        ]
        return self._machine.call(
            f"timing {name}", lambda: self._module.time(name, tensors, calls)
        )  # fmt: skip
