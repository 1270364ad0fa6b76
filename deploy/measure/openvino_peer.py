"""OpenVINO as a peer, where the user has installed it."""

from typing import Any

import onnx
from numpy.typing import NDArray

from deploy.measure.peer import Peer
from lut.errors import UserError

SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def start_openvino(graph: onnx.ModelProto, given: NDArray[Any], threads: int) -> Peer:
    """A session on this CPU, in float32, with as many threads; `given` has no batch axis.

    Raises UserError where OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"openvino is not installed: pip install openvino ({error})") from None
    core = openvino.Core()
    model = core.read_model(graph.SerializeToString())
    compiled = core.compile_model(model, "CPU", SETTINGS | {"INFERENCE_NUM_THREADS": threads})
    request, batch = compiled.create_infer_request(), given[None]
    return Peer(lambda: request.infer({0: batch}, share_inputs=True, share_outputs=True)[0][0])
