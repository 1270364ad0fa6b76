"""OpenVINO as a peer, where the user has installed it."""

from typing import Any

import onnx
from numpy.typing import NDArray

from deploy.measure.peer import Peer
from deploy.precision import BF16, FP32, INT8, Precision
from lut.errors import UserError

_HINTS = {FP32: "f32", BF16: "bf16", INT8: "f32"}  # in 8 bits is what the graph has pairs for


def start_openvino(
    graph: onnx.ModelProto, given: NDArray[Any], threads: int, precision: Precision = FP32
) -> Peer:
    """A session on this CPU, in this precision, with as many threads; `given` has no batch axis.
    In int8 the graph has pairs of QuantizeLinear and DequantizeLinear.

    Left alone it takes bfloat16 where the CPU computes with it. Raises UserError where OpenVINO is
    not installed, and where its CPU does not.
    """
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"openvino is not installed: pip install openvino ({error})") from None
    core = openvino.Core()
    if precision is BF16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError("this CPU does not compute with bfloat16")
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
    }  # fmt: skip
    compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", settings)
    request, batch = compiled.create_infer_request(), given[None]

    def run() -> NDArray[Any]:
        found: NDArray[Any] = request.infer({0: batch}, share_inputs=True, share_outputs=True)[0][0]
        return found

    return Peer(run, precision=precision.name)
