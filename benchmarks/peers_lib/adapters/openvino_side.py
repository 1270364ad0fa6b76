"""OpenVINO on the graph as it is."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

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
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(work.onnx),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": work.config.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    given = work.given()
    return lambda: request.infer({0: given[None]}, share_inputs=True, share_outputs=True)[0][0]
