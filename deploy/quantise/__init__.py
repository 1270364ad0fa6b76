"""A float network and frames in, the same network in 8 bits out: a graph with pairs of
QuantizeLinear and DequantizeLinear (decision 0066). Imports neither torch nor TVM."""

from deploy.quantise.frames import MOST, Frames, open_frames
from deploy.quantise.report import Report
from deploy.quantise.run import Options, QuantisedGraph, is_quantised, quantise

__all__ = [
    "MOST", "Frames", "Options", "QuantisedGraph", "Report", "is_quantised", "open_frames",
    "quantise",
]  # fmt: skip
