"""What loads an artifact's code on this machine: one function a kind of code. Light to import."""

from typing import Any, Protocol

from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.cpu.library import Library
from lut.errors import UserError


class LoadedCode(Protocol):
    """Code where it runs: in this process, on a GPU, on a device, in emulation."""

    def run(self, entry: str, given: NDArray[Any]) -> NDArray[Any]:
        """What an entry, ``main`` or ``logits``, makes of one input; both without a batch axis."""


def load_code(artifact: Artifact, name: str, threads: int | None) -> LoadedCode:
    """Load an artifact's code here, with `threads` where it has a pool.

    Raises UserError, in which it is called `name`, where this machine cannot run it.
    """
    code, target, metadata = artifact.code, artifact.target, artifact.metadata
    # Imported here: neither needs anything of the other.
    if isinstance(code, Library):
        from deploy.cpu.loaded import open_library

        return open_library(code, target, metadata, name, threads)
    from deploy.gpu.program import GpuProgram

    if isinstance(code, GpuProgram):
        from deploy.gpu.network import open_program

        return open_program(code, target, metadata, name)
    raise UserError(f"{name}: there is nothing here that loads {type(code).__name__}")
