"""MNN: converted from ONNX, run as a Module."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("mnn",)
PER_THREADS = False
SETTINGS = "CPU backend, precision high (fp32), memory high, power high"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph", "numpy")


def prepare(work: Work) -> None:
    import _tools
    import MNN

    # Not MNN.tools.mnnconvert: that wrapper runs "pip install" for a telemetry client when it is
    # imported, into whichever Python the PATH names, and reports each conversion.
    assert MNN  # loads what _tools is linked to
    target = work.folder / "network.mnn"
    _tools.mnnconvert(
        [
            "mnnconvert", "-f", "ONNX", "--modelFile", str(work.onnx),
            "--MNNModel", str(target), "--bizCode", "hmseg",
        ]
    )  # fmt: skip
    if not target.exists():
        raise RuntimeError("the converter wrote no network")


def load_runtime(threads: int) -> None:
    import MNN.expr
    import MNN.nn

    assert MNN


def open_network(work: Work) -> Call:
    import MNN.expr as F
    import MNN.nn

    manager = MNN.nn.create_runtime_manager(
        (
            {
                "backend": "CPU",
                "numThread": work.config.threads,
                "precision": "high",
                "memory": "high",
                "power": "high",
            },
        )
    )
    module = MNN.nn.load_module_from_file(
        str(work.folder / "network.mnn"),
        [work.config.input],
        [work.config.output],
        runtime_manager=manager,
    )
    given = work.given()
    shape = [1, *given.shape]
    kind = F.uint8 if work.config.input == "image" else F.float
    # NCHW is MNN's word for "dimensions as written"; the graph transposes.
    return lambda: module.forward([F.const(given, shape, F.NCHW, kind)])[0].read()[0]
