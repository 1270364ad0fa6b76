"""A kernel is compiled once for all networks of a table."""

from dataclasses import replace

import pytest

from deploy.cpu import machine_code
from deploy.object_cache import ObjectCache
from deploy.resolution import Resolution
from deploy.tables.networks import OwnFactory, Recipe
from hmseg.genotype import parse_genotype
from hmseg.operators import Space
from tests.conditions import KERNELS

FIRST, SECOND = (
    parse_genotype(
        "s1 e1k3 | s2 e1k3 skip skip skip | s3 e3k5 skip skip skip | s4a e1k3 e1k3 skip skip"
        f" | s4b e1k3 skip skip skip | s5a e1k3 skip skip skip | s5b {last} | 0.5 0.6"
    )
    for last in ("e1k3", "e1k5")
)


@pytest.fixture
def counted(monkeypatch):
    """The kernels that are compiled, by name."""
    names: list[str] = []
    real = machine_code.compile_kernel

    def compile_kernel(name, function, target):
        names.append(name)
        return real(name, function, target)

    monkeypatch.setattr(machine_code, "compile_kernel", compile_kernel)
    return names


def test_a_second_network_compiles_only_what_is_new(cpu, counted, tmp_path):
    KERNELS.require()
    recipe = Recipe(Space(Resolution(64, 64), 0.5), cpu, 2, {}, ObjectCache(tmp_path))
    with OwnFactory(recipe) as factory:
        first = factory.build(FIRST)
        assert len(set(counted)) == len(counted) > 15
        assert recipe.cache.usage().entries == len(counted)
        counted.clear()
        second = factory.build(SECOND)
        assert counted == [
            name for name in second.artifact.calls if name not in first.artifact.calls
        ]
        assert len(counted) == 1
    without = OwnFactory(replace(recipe, cache=None))
    assert without._recipe.cache == ObjectCache(None)  # in memory then
