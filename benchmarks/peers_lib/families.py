"""Networks of `hmseg.families` as their users bring them: random weights, batch norm calibrated at
the size that they run at, written by one of torch's exporters, read as `compile` reads a file.
"""

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from benchmarks.peers_lib.cache import FITTED
from benchmarks.peers_lib.fitted import with_classifier
from benchmarks.peers_lib.job import Config
from deploy.graph.export import import_onnx
from deploy.resolution import Resolution
from hmseg.families import create_network
from hmseg.families.calibrate import calibrate_batch_norm, made_up_images
from lut.errors import WorkError

SEED = 0
OPSETS = {"dynamo": 20, "legacy": 17}


def create_family(name: str, size: Resolution) -> nn.Module:
    """A network in eval mode, the same every time, with a fitted classifier where the name asks."""
    network = create_network(name.removesuffix(FITTED))
    calibrate_batch_norm(network, SEED, tuple(size))
    return with_classifier(network, name) if name.endswith(FITTED) else network


def write_file(config: Config, path: Path) -> None:
    """Its file; raises WorkError where the exporter fails, and where onnxruntime does not make of
    the file what torch does."""
    from benchmarks.own_files import one_line
    from benchmarks.own_files_exports import export

    size = tuple(config.size)
    image = made_up_images(size, torch.Generator().manual_seed(SEED + 1))[-1:]
    network = create_family(config.model, config.size)
    # They report operators that are not there, sizes that become constants, what will change.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = export(network, image, config.exporter, OPSETS[config.exporter], path)
    except Exception as error:  # the exporters raise whatever their parts raise
        raise WorkError(f"{config}: not exported: {one_line(error)}") from error
    if not found["runs"]:
        why = found.get("why") or f"they differ by {found['error']:.1e} of the largest score"
        raise WorkError(f"{config}: the file is not what torch computes: {why}")


def read_graph(config: Config, file: Path) -> onnx.ModelProto:
    """The deployable graph of the file, for the job."""
    return import_onnx(file, input_kind=config.input, output=config.output)
