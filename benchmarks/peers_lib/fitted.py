"""Networks whose labels mean something: random weights, but for the classifier.

Labels of random weights say nothing of a precision: classes lie as close as rounding moves them.
The last layer of a network alone, fitted to a data set's masks by ridge regression, has margins of
its own, needs no training and is the same every time (random features: Rahimi and Recht, "Weighted
Sums of Random Kitchen Sinks", 2008). `python -m benchmarks.fit` makes it; a network's name ends in
``-fitted`` then.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peers_lib.cache import found, path_of
from deploy.images import resize_image
from deploy.resolution import Resolution
from hmseg.data.dataset import SegmentationData
from hmseg.data.normalise import planes
from lut.errors import WorkError
from lut.files import atomic_path

SIZE = Resolution(256, 512)  # of the frames that it is fitted to
_SHRINK = 0.1  # of the mean variance of features, added to each: what rounding moves weighs little


def with_classifier(network: nn.Module, name: str) -> nn.Module:
    """The network with what was fitted, in place. Raises UserError where nothing was."""
    layer = classifier_of(network)
    with np.load(found(name)) as arrays, torch.no_grad():
        layer.weight.copy_(torch.from_numpy(arrays["weight"]))
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(arrays["bias"]))
    return network


def classifier_of(network: nn.Module) -> nn.Conv2d:
    """The convolution that is computed last, which gains a bias if it has none. Raises WorkError
    where it is not 1x1."""
    called: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_hook(lambda layer, _given, _found: called.append(layer))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 128))
    for hook in hooks:
        hook.remove()
    last = called[-1]
    if last.kernel_size != (1, 1) or last.groups != 1:
        raise WorkError(f"the last layer is {last}, not a classifier of 1x1")
    if last.bias is None:
        last.bias = nn.Parameter(torch.zeros(last.out_channels))
    return last


def fit(network: nn.Module, data: SegmentationData, frames: int) -> float:
    """Fit the classifier of a network in eval mode to so many frames, evenly taken; in place.
    Returns the share of their pixels, at the classifier's resolution, that it then labels right."""
    layer, classes = classifier_of(network), len(data.classes)
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _layer, given, _found: seen.append(given[0]))
    features, labels = [], []
    for index in np.linspace(0, len(data) - 1, min(frames, len(data))).round().astype(int):
        image, truth = data.load(int(index))
        with torch.no_grad():
            network(torch.from_numpy(planes(resize_image(image, SIZE)))[None])
        found = seen.pop()[0]
        small = F.interpolate(
            torch.from_numpy(truth.astype(np.float32))[None, None], found.shape[1:], mode="nearest"
        )
        features.append(found.flatten(1).T.numpy())
        labels.append(small.flatten().numpy().astype(int))
    hook.remove()
    x, y = np.concatenate(features).astype(np.float64), np.concatenate(labels)
    x, y = x[y < classes], y[y < classes]
    weight, bias = ridge(x, np.eye(layer.out_channels)[y])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T.astype(np.float32))[:, :, None, None])
        assert layer.bias is not None
        layer.bias.copy_(torch.from_numpy(bias.astype(np.float32)))
    return float(((x @ weight + bias).argmax(1) == y).mean())


def ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Weights (C, K) and bias (K) of y (N, K) by features x (N, C)."""
    mean, wanted = x.mean(0), y.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    covariance += _SHRINK * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weight = np.linalg.solve(covariance, (x - mean).T @ (y - wanted) / len(x))
    return weight, wanted - mean @ weight


def save_classifier(network: nn.Module, name: str) -> Path:
    """Write what `with_classifier` reads."""
    path, layer = path_of(name), classifier_of(network)
    assert layer.bias is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"weight": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)
    return path
