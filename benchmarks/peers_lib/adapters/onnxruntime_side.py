"""onnxruntime on the graph as it is."""

import numpy as np

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("onnxruntime",)
PER_THREADS = False
SETTINGS = "CPUExecutionProvider, ORT_ENABLE_ALL, sequential, pool spins (its default), I/O binding"
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
    given = work.given()[None]
    output = session.get_outputs()[0]
    kind = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[output.type]
    found = np.empty(output.shape, kind)
    binding = session.io_binding()
    binding.bind_output(output.name, "cpu", 0, kind, found.shape, found.ctypes.data)

    def call():  # noqa: ANN202
        binding.bind_cpu_input(work.config.input, given)
        session.run_with_iobinding(binding)
        return found[0]

    return call
