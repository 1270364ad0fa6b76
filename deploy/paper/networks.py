"""A network of the paper as something to compile: weights whose activations keep their scale, or
those that were released, at the size that is asked for."""

from functools import cache

import torch
from torch import nn

from deploy.graph.export import export_network, import_peer
from deploy.graph.source import SEED, Source
from deploy.paper.jobs import Job
from deploy.reading.text import one_line
from hmseg import network_file, zoo
from hmseg.count import count_macs, count_parameters
from hmseg.families.blocks import AtImageSize
from hmseg.families.calibrate import calibrate_batch_norm
from hmseg.mrms import MRMS
from hmseg.pretrained import Released, list_released, load_released
from lut.errors import HmsegError, UserError, WorkError

CALIBRATED = f"random (seed {SEED}), batch norm calibrated at this size"


class NoRoomError(UserError):
    """The disk is full: no other network would do better."""


def create(name: str, classes: int) -> nn.Module:
    """A network of the zoo, ours or a peer, or of one line: the same random weights every time.
    Raises UserError for an unknown name."""
    torch.manual_seed(SEED)
    return zoo.create_model(name, num_classes=classes)


def shape(name: str, classes: int) -> nn.Module:
    """The same without numbers: what only counts needs no weights drawn."""
    with torch.device("meta"):
        return create(name, classes)


def absent(name: str) -> str:
    """Why this version has no network of that name; empty where it has."""
    if name in zoo.list_models() or name.startswith(network_file.PREFIX):
        return ""
    return f"this version has no network {name!r}"


@cache
def count(job: Job) -> tuple[int, int]:
    """Multiply-accumulates and parameters by the paper's rule (`hmseg.count`). Raises WorkError for
    a size that the network does not take."""
    network = shape(job.network, job.classes)
    try:
        return count_macs(network, *job.resolution), count_parameters(network)
    except Exception as error:  # whatever torch raises where maps do not fit together
        raise WorkError(f"it does not take this size: {one_line(error)}") from error


def refuses(job: Job) -> str:
    """Why a network does not take a size; empty where it does."""
    try:
        count(job)
    except WorkError as error:
        return str(error)
    return ""


def released(name: str, classes: int) -> Released | None:
    """The released weights of a network for so many classes, if there are any."""
    for model, data in list_released():
        if model == name and (found := load_released(model, data)).num_classes == classes:
            return found
    return None


def open_network(job: Job) -> Source:
    """A job's network, to be compiled, with the weights that were released for its classes, if any.
    What is not of our own zoo takes the road of a user's file.

    Raises WorkError where it cannot be calibrated or exported, and NoRoomError for a full disk.
    """
    network, size = create(job.network, job.classes).eval(), job.resolution
    weights, own = CALIBRATED, released(job.network, job.classes)
    try:
        if own:
            network.load_state_dict(own.tensors)
            weights = f"trained on {own.card['data']}"
        else:
            calibrate_batch_norm(network, SEED, (size.height, size.width))
        if isinstance(network, MRMS):
            graph = export_network(network, job.network, size, num_classes=job.classes)
            return Source(graph, network, weights)
        found = import_peer(network, job.network, size, job.classes)
    except (HmsegError, MemoryError):
        raise
    except OSError as error:
        raise NoRoomError(
            f"cannot write {job.network}.onnx for a moment: {error.strerror or error}; free the "
            "disk or name another folder in TMPDIR"
        ) from error
    except Exception as error:  # whatever torch raises without memory, and the exporter's parts
        raise WorkError(f"not exported: {one_line(error)}") from error
    return Source(found.graph, AtImageSize(network), weights, found)
