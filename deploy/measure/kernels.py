"""Single kernels on a machine: called, and timed by its own clock."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import tvm
from numpy.typing import NDArray

T = TypeVar("T")


def _directly(_doing: str, work: Callable[[], T]) -> T:
    return work()


class Kernels:
    """A module of PrimFuncs, loaded where `device` is.

    `call` runs what talks to the machine; the first argument says what it is, for an error.
    """

    def __init__(
        self,
        module: Any,  # noqa: ANN401
        device: Any = None,  # noqa: ANN401
        call: Callable[[str, Callable[[], Any]], Any] = _directly,
    ) -> None:
        self._module, self._device, self._call = module, device or tvm.cpu(), call

    def run(self, name: str, inputs: Sequence[NDArray[Any]], output: NDArray[Any]) -> NDArray[Any]:
        """Call a kernel on arrays; returns what became of `output`, which is left as it is."""

        def work() -> NDArray[Any]:
            tensors = self._tensors([*inputs, output])
            self._module[name](*tensors)
            result: NDArray[Any] = tensors[-1].numpy()
            return result

        found: NDArray[Any] = self._call(f"running {name}", work)
        return found

    def made_by(self, name: str, shape: Sequence[int]) -> Any:  # noqa: ANN401 - a tensor there
        """A float32 tensor that the kernel `name`, which takes nothing else, has filled: nothing
        is sent."""

        def work() -> Any:  # noqa: ANN401
            tensor = tvm.runtime.empty(tuple(shape), "float32", self._device)
            self._module[name](tensor)
            return tensor

        return self._call(f"running {name}", work)

    def time(self, name: str, arguments: Sequence[Any], calls: int) -> list[int]:
        """Nanoseconds of each of `calls` calls on arrays, or tensors there, after one more."""

        def work() -> list[int]:
            tensors = self._tensors(arguments)
            timer = self._module.time_evaluator(name, self._device, number=1, repeat=calls)
            return [round(seconds * 1e9) for seconds in timer(*tensors).results]

        times: list[int] = self._call(f"timing {name}", work)
        return times

    def _tensors(self, arguments: Sequence[Any]) -> list[Any]:
        return [
            tvm.runtime.tensor(np.ascontiguousarray(given), device=self._device)
            if isinstance(given, np.ndarray)
            else given
            for given in arguments
        ]
