"""Ours with maps in bfloat16, beside ours in float32."""

from benchmarks.peers_lib.adapters import IN_GRAPH, hmseg_side
from benchmarks.peers_lib.adapters.hmseg_side import load_runtime, open_network
from benchmarks.peers_lib.job import LabelEnd, Work

__all__ = ["load_runtime", "open_network"]

PACKAGES = hmseg_side.PACKAGES
PER_THREADS = True
SETTINGS = "as hmseg, with --precision bf16"
PRECISION = "bf16"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    hmseg_side.prepare_ours(work, exact=False, precision=PRECISION)
