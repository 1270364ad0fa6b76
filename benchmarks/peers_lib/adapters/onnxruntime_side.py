"""onnxruntime on the graph as it is."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("onnxruntime",)
PER_THREADS = False
SETTINGS = "CPUExecutionProvider, ORT_ENABLE_ALL, sequential, pool spins (its default)"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph", "numpy")


def prepare(work: Work) -> None:
    """Nothing: it optimises the graph while it loads."""


def load_runtime(threads: int) -> None:
    import onnxruntime

    assert onnxruntime


def open_network(work: Work) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = work.config.threads
    session = ort.InferenceSession(str(work.onnx), options, providers=["CPUExecutionProvider"])
    given, name = work.given(), work.config.input
    return lambda: session.run(None, {name: given[None]})[0][0]
