"""The values of a file's tensors."""

from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from deploy.reading.text import one_line, plain
from lut.errors import UserError


def to_array(tensor: onnx.TensorProto, owner: str) -> NDArray[Any]:
    """A tensor's values; what it is called in a message is `owner`.

    Raises UserError where its data is not as long as its shape says, and for text.
    """
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        raise UserError(f"{plain(owner, 100)} has no numbers as its data; export the network anew")
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:  # numpy and protobuf raise what they happen to
        raise UserError(f"{plain(owner, 100)} is damaged ({one_line(error)})") from error
    if array.shape != tuple(tensor.dims) or array.size != prod(tensor.dims):
        raise UserError(f"{plain(owner, 100)} is damaged: its data has another size than its shape")
    found: NDArray[Any] = np.asarray(array)
    return found
