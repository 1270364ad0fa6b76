"""Networks such as training leaves them, without training: what tests and checks need.

Fresh networks hide mistakes: their batch norms are identities, and one class wins everywhere.
"""

import torch
from torch import Tensor, nn

from hmseg.mrms import MRMS
from hmseg.mrms_config import MRMSConfig

_SIDE = 64  # pixels of the noise that the classifier is balanced on


def random_network(config: MRMSConfig, seed: int = 0) -> MRMS:
    """A network in eval mode with random weights, random batch norms, and every class in use.

    The same for the same seed.
    """
    torch.manual_seed(seed)
    model = MRMS(config)
    randomise_batch_norm(model, seed)
    balance_classes(model, seed)
    return model


def randomise_batch_norm(model: nn.Module, seed: int = 0) -> None:
    """Draw running statistics and affine parameters, in place; sets eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def draw(target: Tensor, low: float, high: float) -> None:
        target.copy_(torch.rand(target.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                draw(module.running_mean, -0.5, 0.5)
                draw(module.running_var, 0.5, 2.0)
                draw(module.weight, 0.5, 1.5)
                draw(module.bias, -0.5, 0.5)
    model.eval()


def balance_classes(model: MRMS, seed: int = 0) -> None:
    """Scale the last convolution so that, on noise, each class has mean 0 and deviation 1."""
    noise = torch.randn(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(seed))
    classify = [m for m in model.head.modules() if isinstance(m, nn.Conv2d)][-1]
    assert classify.bias is not None
    with torch.no_grad():
        scores = model(noise)
        mean, std = scores.mean(dim=(0, 2, 3)), scores.std(dim=(0, 2, 3))
        classify.weight /= std.view(-1, 1, 1, 1)
        classify.bias.copy_((classify.bias - mean) / std)
