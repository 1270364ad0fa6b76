"""The network of a training run's checkpoint."""

from pathlib import Path

from torch import nn

from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.train.quantise import quantise
from hmseg.zoo import create_model


def trained_network(checkpoint: Checkpoint, path: Path) -> nn.Module:
    """The network with the weights that a run is judged by, quantised where the run was; raises
    UserError where the file `path` has others than the network that it names."""
    network = create_model(checkpoint.config.model, num_classes=len(checkpoint.classes))
    if checkpoint.config.quantise:
        network = quantise(network, checkpoint.config.model)
    load_into(network, checkpoint.released, path)
    return network
