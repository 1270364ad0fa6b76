"""The graph of a job in 8 bits, for every side that runs it: calibrated on drawn streets, with no
gate, as the networks of these jobs are untrained or see nothing but a drawing here. What int8 costs
in accuracy is `benchmarks.quantisation`'s to say."""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from benchmarks.peers_lib.job import Work
from deploy.graph.export import read_metadata, save_onnx
from deploy.quantise.frames import open_frames
from deploy.quantise.run import Options, quantise

GRAPH = "quantised.onnx"
_SHADES = np.linspace(0.6, 1.3, 8)  # of the street, darker and lighter


def in_8_bits(work: Work) -> onnx.ModelProto:
    """The job's graph with pairs of QuantizeLinear and DequantizeLinear."""
    model, folder = onnx.load(work.onnx), work.folder / "frames"
    folder.mkdir(exist_ok=True)
    for number, shade in enumerate(_SHADES):
        street = np.clip(work.image() * shade, 0, 255).astype(np.uint8)
        Image.fromarray(street).save(folder / f"{number}.png")
    frames = open_frames(folder, read_metadata(model))
    return quantise(model, frames, Options(gate=False)).graph


def write_8_bits(work: Work) -> None:
    """It, as a file for a peer."""
    save_onnx(in_8_bits(work), path_of(work))


def path_of(work: Work) -> Path:
    """Of that file."""
    return work.folder / GRAPH
