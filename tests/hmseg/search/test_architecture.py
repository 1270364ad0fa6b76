"""The distribution, its samples, and their straight-through gradients (Eq. 2)."""

import numpy as np
import pytest
import torch

from hmseg.genotype import MRMS_GENOTYPE
from hmseg.search.architecture import (
    COUNT,
    ROWS,
    Architecture,
    Path,
    fair_path,
    gumbel_noise,
    temperature_at,
)
from hmseg.search.space import DIMENSIONS, search_space

SPACE = search_space(DIMENSIONS, MRMS_GENOTYPE)


def random_architecture(seed: int = 0) -> Architecture:
    architecture = Architecture(SPACE)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        architecture.logits.copy_(torch.randn(ROWS, COUNT, generator=generator))
    return architecture


def test_what_the_space_does_not_have_has_probability_0():
    probabilities = random_architecture().probabilities()
    assert torch.allclose(probabilities.sum(1), torch.ones(ROWS, dtype=torch.float64))
    assert (probabilities[0, -1], probabilities[1, -1]) == (0, 0)  # first layers: no identity
    assert probabilities[2, -1] > 0
    assert (probabilities[-2:, 3:] == 0).all()
    uniform = Architecture(SPACE).probabilities()
    assert torch.allclose(uniform[0, :9], torch.full((9,), 1 / 9, dtype=torch.float64))
    assert torch.allclose(uniform[-1, :3], torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("dimensions", [DIMENSIONS, ("depth",)])
def test_it_begins_near_a_network(dimensions: tuple[str, ...]):
    architecture = Architecture(search_space(dimensions, MRMS_GENOTYPE))
    architecture.begin_near(MRMS_GENOTYPE, 0.7)
    assert architecture.most_probable().genotype == MRMS_GENOTYPE
    for row, allowed in zip(architecture.probabilities(), architecture.allowed, strict=True):
        count = int(allowed.sum())
        shares = [0.7, *[0.3 / (count - 1)] * (count - 1)] if count > 1 else [1.0]
        assert sorted(row[allowed].tolist(), reverse=True) == pytest.approx(shares)


def test_samples_follow_the_probabilities_at_any_temperature():
    architecture, draws = random_architecture(), 1000
    counts = np.zeros((ROWS, COUNT))
    with torch.no_grad():
        for step in range(draws):
            noise = gumbel_noise(7, step, 0)
            path = architecture.sample(noise, 10.0)
            assert path.choices == architecture.sample(noise, 0.1).choices
            counts[np.arange(ROWS), path.choices] += 1
    expected = architecture.probabilities().detach().numpy()
    deviations = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(counts / draws - expected) <= 4.5 * deviations).all()


def test_noise_belongs_to_its_seed_step_and_draw():
    first = gumbel_noise(1, 2, 3)
    assert (first == gumbel_noise(1, 2, 3)).all()
    for other in (gumbel_noise(2, 2, 3), gumbel_noise(1, 3, 3), gumbel_noise(1, 2, 4)):
        assert (first != other).all()


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1])
def test_gates_are_1_and_have_the_gradient_of_the_gumbel_softmax(temperature: float):
    architecture, noise = random_architecture(), gumbel_noise(0, 0, 0)
    path = architecture.sample(noise, temperature)
    assert path.gates is not None
    assert (path.gates == 1).all()  # exactly: a search's forward pass is the network's
    weights = torch.arange(1, ROWS + 1, dtype=torch.float64)
    (slope,) = torch.autograd.grad((path.gates * weights).sum(), architecture.logits)
    # By hand: d soft_i / d logit_j = soft_i (delta_ij - soft_j) / temperature.
    logits = architecture.logits.detach().numpy() + noise
    logits[~architecture.allowed.numpy()] = -np.inf
    for row, choice in enumerate(path.choices):
        assert choice == logits[row].argmax()
        soft = np.exp((logits[row] - logits[row].max()) / temperature)
        soft /= soft.sum()
        expected = weights[row].item() * soft[choice] * (np.eye(COUNT)[choice] - soft)
        np.testing.assert_allclose(slope[row].numpy(), expected / temperature, atol=1e-12)


def test_the_gradient_reaches_every_candidate_and_no_other():
    architecture = random_architecture()
    path = architecture.sample(gumbel_noise(0, 1, 0), 1.0)
    assert path.gates is not None
    (slope,) = torch.autograd.grad(path.gates.sum(), architecture.logits)
    assert ((slope != 0) == architecture.allowed).all()


def test_the_temperature_falls_from_10_to_a_tenth():
    values = [temperature_at(step, 101, 10.0, 0.1) for step in range(101)]
    assert values[0] == 10
    assert values[-1] == pytest.approx(0.1)
    assert values[50] == pytest.approx(1)
    ratios = np.diff(np.log(values))
    np.testing.assert_allclose(ratios, ratios[0])
    assert ratios[0] < 0
    assert temperature_at(0, 1, 10.0, 0.1) == pytest.approx(0.1)


def test_the_warm_up_gives_every_candidate_its_turn():
    allowed = Architecture(SPACE).allowed
    paths = [fair_path(allowed, 5, step).choices for step in range(90)]  # 90 = lcm of 9, 10, 3
    counts = np.zeros((ROWS, COUNT), int)
    for path in paths:
        counts[np.arange(ROWS), path] += 1
    for row in range(ROWS):
        candidates = int(allowed[row].sum())
        assert (counts[row][allowed[row].numpy()] == 90 // candidates).all()
        assert not counts[row][~allowed[row].numpy()].any()
    assert len(set(paths)) == 90  # rows do not move in step
    assert fair_path(allowed, 5, 17).choices == paths[17]
    assert fair_path(allowed, 6, 17).choices != paths[17]


def test_log_probability_and_the_most_probable_path():
    architecture = random_architecture()
    best = architecture.most_probable()
    assert best.gates is None
    probabilities = architecture.probabilities().detach().numpy()
    product = np.prod(probabilities[np.arange(ROWS), best.choices])
    assert architecture.log_probability(best).item() == pytest.approx(np.log(product))
    assert (probabilities.argmax(1) == best.choices).all()
    assert best.genotype.medium_tenths == 4 + best.choices[-2]
    assert str(Path(tuple([4] * 22 + [0, 2])).genotype).endswith("e3k5 | 0.4 0.6")
