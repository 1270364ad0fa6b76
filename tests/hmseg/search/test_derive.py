"""The most probable network within the budget, against all networks of a small space."""

import pytest
import torch

from hmseg.genotype import MRMS_GENOTYPE
from hmseg.search.architecture import Architecture
from hmseg.search.budget import Budget
from hmseg.search.derive import BINS, cost_range, derive, require_reachable
from hmseg.search.space import DIMENSIONS, LAYERS, search_space
from lut.errors import UserError
from tests.hmseg.search.costs import odd_objective
from tests.hmseg.search.test_objective import every_path, random_architecture, small_space


@pytest.mark.parametrize("seed", range(4))
def test_the_best_network_within_the_budget_is_found(seed: int):
    architecture, objective = random_architecture(small_space(), seed), odd_objective()
    with torch.no_grad():
        paths = [(architecture.log_probability(path).item(), objective.estimate(path).upper, path)
                 for path in every_path(architecture)]  # fmt: skip
    uppers = sorted(upper for _, upper, _ in paths)
    repaired = 0
    for share in (0.02, 0.2, 0.5, 0.9):
        limit = uppers[int(share * len(uppers))] * 1.0001
        objective.budget = Budget(limit, "us")
        path, most_probable = derive(objective, architecture)
        assert objective.estimate(path).upper <= limit
        # Costs are rounded up: what is nearer to the limit than that may be missed.
        best, sure = (
            max((score for score, upper, _ in paths if upper <= share * limit), default=-1e9)
            for share in (1, 1 - len(LAYERS) / BINS)
        )
        assert sure <= architecture.log_probability(path).item() + 1e-9 <= best + 2e-9
        assert most_probable == (path.choices == architecture.most_probable().choices)
        repaired += not most_probable
    assert repaired


def test_the_whole_space_is_searched_in_no_time():
    architecture = random_architecture(search_space(DIMENSIONS, MRMS_GENOTYPE))
    objective = odd_objective()
    upper = objective.estimate(architecture.most_probable()).upper
    objective.budget = Budget(0.97 * upper, "us")
    path, most_probable = derive(objective, architecture)
    assert not most_probable
    assert 0.9 * upper < objective.estimate(path).upper <= 0.97 * upper


def test_a_budget_that_nothing_meets_names_the_range():
    architecture, objective = random_architecture(small_space()), odd_objective()
    values = [objective.estimate(path) for path in every_path(architecture)]
    cheapest, dearest = cost_range(objective, architecture)
    assert cheapest.value == pytest.approx(min(v.value for v in values))
    assert dearest.value == pytest.approx(max(v.value for v in values))
    objective.budget = Budget(cheapest.upper * 0.999, "us")
    least, most = (f"{end.upper / 1e3:.4g}ms" for end in (cheapest, dearest))
    with pytest.raises(UserError, match=rf"nothing in this space meets it; .*{least} to {most}"):
        require_reachable(objective, architecture)
    with pytest.raises(UserError, match="nothing in this space meets it"):
        derive(objective, architecture)
    for factor in (1, 1 + 1e-9, 1.001):  # nearer to it than the rounding, and clear of it
        objective.budget = Budget(cheapest.upper * factor, "us")
        require_reachable(objective, architecture)
        path, _ = derive(objective, architecture)
        assert objective.estimate(path).value == pytest.approx(cheapest.value)


def test_a_uniform_architecture_has_a_network_too():
    architecture = Architecture(search_space(DIMENSIONS, MRMS_GENOTYPE))
    objective = odd_objective()
    cheapest, dearest = cost_range(objective, architecture)
    objective.budget = Budget((cheapest.upper + dearest.upper) / 2, "us")
    path, _ = derive(objective, architecture)
    assert objective.within(path)
