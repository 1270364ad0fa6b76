"""The score estimator against the gradient that it estimates."""

import torch

from hmseg.search.architecture import Architecture, Path, gumbel_noise
from hmseg.search.estimators import ESTIMATORS
from hmseg.train.distributed import ALONE
from tests.hmseg.search.test_objective import small_space


def test_the_score_estimator_is_the_gradient_of_the_expected_loss():
    """Over many samples, where the loss of each path is known: here a sum over its choices."""
    architecture = Architecture(small_space())
    with torch.no_grad():
        architecture.logits += torch.linspace(-1, 1, 240, dtype=torch.float64).view(24, 10)
    values = torch.linspace(0, 3, 240, dtype=torch.float64).view(24, 10).sin()

    def loss(path: Path) -> torch.Tensor:
        return values[torch.arange(24), torch.tensor(path.choices)].sum()

    expected_loss = (architecture.probabilities() * values).sum()
    (expected,) = torch.autograd.grad(expected_loss, architecture.logits)
    slopes = []
    for step in range(500):
        paths = [architecture.sample(gumbel_noise(0, step, draw), 1.0) for draw in range(3)]
        slope, _ = ESTIMATORS["score"](loss, architecture, paths, ALONE)
        slopes.append(slope)
    stacked = torch.stack(slopes)
    deviation = stacked.std(0) / len(slopes) ** 0.5
    assert ((stacked.mean(0) - expected).abs() <= 4.5 * deviation + 1e-12).all()
    assert expected.abs().max() > 6 * deviation.max()
