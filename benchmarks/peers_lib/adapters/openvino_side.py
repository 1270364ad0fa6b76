"""OpenVINO on the graph as it is."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work
from lut.errors import WorkError

PACKAGES = ("openvino",)
PER_THREADS = False
SETTINGS = "LATENCY hint, f32 precision hint, INFERENCE_NUM_THREADS, shared inputs and outputs"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph", "numpy")


def prepare(work: Work) -> None:
    """Nothing: it reads ONNX itself."""


def load_runtime(threads: int) -> None:
    import openvino

    assert openvino


def open_network(work: Work) -> Call:
    return open_in(work, "f32")


def open_in(work: Work, precision: str) -> Call:
    """With this precision as its hint, or its own choice where it is none; raises WorkError where
    the CPU does not compute with it."""
    import openvino as ov

    core = ov.Core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in can:
        raise WorkError("this CPU does not compute with bfloat16")
    compiled = core.compile_model(
        core.read_model(work.onnx),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": work.config.threads,
            **({"INFERENCE_PRECISION_HINT": precision} if precision else {}),
        },
    )
    request = compiled.create_infer_request()
    given = work.given()
    return lambda: request.infer({0: given[None]}, share_inputs=True, share_outputs=True)[0][0]
