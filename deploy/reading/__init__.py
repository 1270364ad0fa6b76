"""Reading a user's ONNX file: the door, and the normal form that everything behind it works on."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from deploy.reading.file import UserFile, check, open_file
from deploy.reading.graph import to_model
from deploy.reading.normalise import normalise
from deploy.resolution import Resolution
from lut.errors import UserError


@dataclass(frozen=True)
class ReadModel:
    """A user's file as it is, and the same network in the normal form."""

    file: UserFile
    graph: onnx.ModelProto


def read_model(path: Path, resolution: Resolution | None = None) -> ReadModel:
    """Read an ONNX file.

    `resolution` fixes a dynamic height and width; a dynamic batch becomes 1. Raises UserError, in
    one line that names the node, its operator and what to do, for whatever cannot be read.
    """
    try:
        file = open_file(path, resolution)
        check(file.model)
        graph = to_model(normalise(file))
        file.session()
        return ReadModel(file, graph)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
