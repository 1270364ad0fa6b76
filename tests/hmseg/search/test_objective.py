"""E(A) against brute force, and the sign of Eq. 4."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from hmseg.genotype import MRMS_GENOTYPE, Op
from hmseg.search.architecture import COUNT, ROWS, Architecture, Path, gumbel_noise
from hmseg.search.budget import Budget
from hmseg.search.space import DIMENSIONS, SearchSpace, search_space
from tests.hmseg.search.costs import odd_objective


def small_space() -> SearchSpace:
    """512 networks: s1 and s2's first layer, which may share a kernel; depth; both ratios."""
    space = search_space((), MRMS_GENOTYPE)
    layers = list(space.layers)
    layers[0] = (Op(1, 3), Op(1, 5), Op(6, 7), Op(3, 3))
    layers[1] = (Op(1, 3), Op(6, 5), Op(3, 7), Op(6, 3))
    layers[4] = (Op(6, 7), None)
    layers[14] = (Op(3, 3), None)
    layers[19] = (Op(1, 5), Op(6, 5))
    return SearchSpace(tuple(layers), ((4, 6), (4, 5)))


def random_architecture(space: SearchSpace, seed: int = 0) -> Architecture:
    architecture = Architecture(space)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        architecture.logits.copy_(2 * torch.randn(ROWS, COUNT, generator=generator))
    return architecture


def every_path(architecture: Architecture) -> list[Path]:
    rows = [torch.nonzero(row).flatten().tolist() for row in architecture.allowed]
    return [Path(choices) for choices in product(*rows)]


def test_the_expectation_is_that_of_all_networks():
    """Value and gradient, over operators, depth, both ratios and shared kernels."""
    architecture, objective = random_architecture(small_space()), odd_objective()
    paths = every_path(architecture)
    assert len(paths) == 512
    brute = sum(
        architecture.log_probability(path).exp() * objective.estimate(path).value for path in paths
    )
    mine = objective.expected(architecture.probabilities())
    assert mine.item() == pytest.approx(brute.item(), rel=1e-12)
    slopes = [torch.autograd.grad(value, architecture.logits)[0] for value in (brute, mine)]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=1e-9)
    assert slopes[0].abs().max() > 0.1


def test_without_shared_kernels_or_ratios_it_would_be_another():
    """The comparison above can fail."""
    architecture, objective = random_architecture(small_space()), odd_objective()
    right = objective.expected(architecture.probabilities()).item()
    pairs, objective.pairs = objective.pairs, torch.zeros_like(objective.pairs)
    assert objective.expected(architecture.probabilities()).item() != pytest.approx(right, rel=1e-4)
    objective.pairs = pairs
    objective.layers = objective.layers[1, 1].expand_as(objective.layers)
    assert objective.expected(architecture.probabilities()).item() != pytest.approx(right, rel=1e-4)


def test_a_certain_network_has_its_own_cost():
    space, objective = search_space(DIMENSIONS, MRMS_GENOTYPE), odd_objective()
    for step in range(20):
        architecture = Architecture(space)
        path = architecture.sample(gumbel_noise(0, step, 0), 1.0)
        with torch.no_grad():
            architecture.logits[torch.arange(ROWS), torch.tensor(path.choices)] = 60
        expected = objective.expected(architecture.probabilities()).item()
        assert expected == pytest.approx(objective.estimate(path).value)
        assert objective.cost.cost.network(objective.total(path)).value == pytest.approx(expected)


def test_the_sign_changes_at_the_budget():
    architecture, objective = random_architecture(small_space()), odd_objective()
    probabilities = architecture.probabilities()
    path = architecture.most_probable()
    upper = objective.estimate(path).upper
    log = torch.log(objective.expected(probabilities)).item()
    signs = {}
    for name, limit in (("below", upper * 0.999), ("at", upper), ("above", upper * 1.001)):
        objective.budget = replace(objective.budget, limit=limit)
        signs[name] = objective.loss(probabilities, path).item() / log
    assert signs == pytest.approx({"below": 1, "at": 0, "above": -1})
    # It is the upper bound that counts, not the estimate itself.
    objective.budget = Budget((objective.estimate(path).value + upper) / 2, "us")
    assert objective.loss(probabilities, path).item() == pytest.approx(log)


@pytest.mark.parametrize(("factor", "falls"), [(0.9, True), (1.1, False)])
def test_the_loss_steers_the_expected_cost_to_the_budget(factor: float, falls: bool):
    architecture, objective = random_architecture(small_space()), odd_objective()
    path = architecture.most_probable()
    objective.budget = Budget(factor * objective.estimate(path).upper, "us")
    before = objective.expected(architecture.probabilities()).item()
    objective.loss(architecture.probabilities(), path).backward()
    assert architecture.logits.grad is not None
    with torch.no_grad():
        architecture.logits -= architecture.logits.grad
    after = objective.expected(architecture.probabilities()).item()
    assert (after < before) == falls
    assert after != before
