"""Reading a user's ONNX file: the door, and the normal form that everything behind it works on."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from deploy.reading.file import UserFile, open_file
from deploy.reading.graph import Graph, to_model
from deploy.reading.guard import EndedError, read_apart
from deploy.reading.normalise import normalise
from deploy.reading.sizes import at_size
from deploy.resolution import Resolution
from lut.errors import UserError


@dataclass(frozen=True)
class ReadModel:
    """A user's file as it is, and the same network in the normal form."""

    file: UserFile
    graph: onnx.ModelProto

    @property
    def takes_uint8(self) -> bool:
        """Whether its normalisation, if there is one, is inside."""
        taken = self.graph.graph.input[0].type.tensor_type
        return bool(taken.elem_type == onnx.TensorProto.UINT8)


def read_own(path: Path) -> ReadModel:
    """Read a file that this program has just written, in this process: it is not hostile."""
    file = open_file(path, None)
    return ReadModel(file, to_model(normalise(file)))


def read_model(path: Path, resolution: Resolution | None = None) -> ReadModel:
    """Read an ONNX file.

    `resolution` fixes a dynamic height and width; a dynamic batch becomes 1. Raises UserError, in
    one line that names the node, its operator and what to do, for whatever cannot be read; where
    another resolution is what to do, it names that.
    """
    try:
        graph = _read(path, resolution)
        return ReadModel(open_file(path, resolution), to_model(graph))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read(path: Path, resolution: Resolution | None) -> Graph:
    def passes(size: Resolution) -> bool:
        try:
            read_apart(path, size)
        except EndedError:
            raise
        except UserError:
            return False
        return True

    try:
        return read_apart(path, resolution)
    except EndedError:
        raise
    except UserError as error:
        try:
            said = at_size(str(error), path, resolution, passes)
        except EndedError:  # what takes too much at one size is not tried at more
            said = str(error)
        raise UserError(said) from error
