"""OpenVINO in bfloat16, which it chooses by itself on CPUs that compute with it."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call, openvino_side
from benchmarks.peers_lib.adapters.openvino_side import load_runtime, prepare
from benchmarks.peers_lib.job import LabelEnd, Work

__all__ = ["load_runtime", "prepare"]

PACKAGES = openvino_side.PACKAGES
PER_THREADS = False
SETTINGS = openvino_side.SETTINGS.replace("f32", "bf16")
PRECISION = "bf16"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = openvino_side.LABEL_ENDS


def open_network(work: Work) -> Call:
    return openvino_side.open_in(work, PRECISION)
