"""Ours with maps in 8 bits, beside ours in float32."""

from benchmarks.peers_lib.adapters import IN_GRAPH, hmseg_side
from benchmarks.peers_lib.adapters.hmseg_side import load_runtime, open_network
from benchmarks.peers_lib.job import LabelEnd, Work

__all__ = ["load_runtime", "open_network"]

PACKAGES = (*hmseg_side.PACKAGES, "onnxruntime")
PER_THREADS = True
SETTINGS = "as hmseg, with --precision int8"
PRECISION = "int8"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    from benchmarks.peers_lib.adapters.in_8_bits import in_8_bits

    hmseg_side.prepare_ours(work, exact=False, precision=PRECISION, quantised=in_8_bits(work))
