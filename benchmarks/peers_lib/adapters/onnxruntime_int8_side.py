"""onnxruntime on the graph in 8 bits, which it fuses to kernels of integers by itself."""

from dataclasses import replace

from benchmarks.peers_lib.adapters import IN_GRAPH, Call, onnxruntime_side
from benchmarks.peers_lib.adapters.onnxruntime_side import load_runtime
from benchmarks.peers_lib.job import LabelEnd, Work

__all__ = ["load_runtime"]

PACKAGES = onnxruntime_side.PACKAGES
PER_THREADS = False
SETTINGS = onnxruntime_side.SETTINGS
PRECISION = "int8"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    from benchmarks.peers_lib.adapters.in_8_bits import write_8_bits

    write_8_bits(work)


def open_network(work: Work) -> Call:
    from benchmarks.peers_lib.adapters.in_8_bits import path_of

    return onnxruntime_side.open_network(replace(work, onnx=path_of(work)))
