"""OpenVINO on the graph in 8 bits, what is wide in bfloat16 where the CPU computes with it."""

from dataclasses import replace

from benchmarks.peers_lib.adapters import IN_GRAPH, Call, openvino_side
from benchmarks.peers_lib.adapters.openvino_side import load_runtime
from benchmarks.peers_lib.job import LabelEnd, Work

__all__ = ["load_runtime"]

PACKAGES = openvino_side.PACKAGES
PER_THREADS = False
SETTINGS = openvino_side.SETTINGS.replace("f32 precision hint", "its own precision")
PRECISION = "int8"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    from benchmarks.peers_lib.adapters.in_8_bits import write_8_bits

    write_8_bits(work)


def open_network(work: Work) -> Call:
    from benchmarks.peers_lib.adapters.in_8_bits import path_of

    return openvino_side.open_in(replace(work, onnx=path_of(work)), "")
