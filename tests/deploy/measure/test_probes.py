from dataclasses import replace

import numpy as np
import pytest

from deploy.cpu.elements import from_bfloat16
from deploy.cpu.isa import AVX512_BF16, AVX512_INT8, NEON_BF16, elements_of
from deploy.cpu.pipeline import isa_of
from deploy.cpu.probe import FmaProbeSpec, emit_dot
from deploy.measure.probes import load_here, probe_ceilings
from tests.conditions import BFLOAT16, KERNELS


def test_probes_of_this_machine(cpu):
    KERNELS.require()
    isa = isa_of(cpu)
    elements = elements_of(isa, cpu.features)
    ceilings = probe_ceilings(load_here(cpu, 1), isa, 1, repeat=2, elements=elements.values())
    # In the units that are said: no core reaches the upper bounds.
    assert 0 < ceilings.fma_gflops < 2000
    assert all(0 < rate < 20000 for _, rate in ceilings.reads)
    assert set(ceilings.dot_gflops) == set(elements) - {"float32"}
    assert all(0 < rate < 8000 for rate in ceilings.dot_gflops.values())


def test_a_probe_counts_what_it_multiplies(cpu):
    """Each step of each chain adds two products to each lane."""
    BFLOAT16.require()
    isa = replace(isa_of(cpu), element=elements_of(isa_of(cpu), cpu.features)["bfloat16"])
    spec = FmaProbeSpec(tasks=1, steps=3)
    kernels = load_here(cpu, 1)({"dot": emit_dot(spec, isa)})
    pairs = np.array([[0x3F80, 0x4000], [0x4040, 0x3F00]], np.uint16)  # (1, 2) and (3, 0.5)
    assert from_bfloat16(pairs).tolist() == [[1, 2], [3, 0.5]]
    out = np.zeros((1, isa.lanes), np.float32)
    out = kernels.run("dot", [pairs.view(np.int32).ravel()], out)
    chains = isa.registers - 4
    started = sum(range(chains))  # each chain begins at its number
    np.testing.assert_array_equal(out, started + chains * spec.steps * (1 * 3 + 2 * 0.5))
    assert spec.macs(isa) == chains * spec.steps * isa.lanes * 2


@pytest.mark.parametrize(
    ("isa", "times"), [(AVX512_BF16, 2), (NEON_BF16, 2), (AVX512_INT8["avx512vnni"], 4)]
)
def test_low_precision_counts_as_often_as_it_multiplies(isa, times):
    spec = FmaProbeSpec(tasks=2)
    assert spec.macs(isa) == times * spec.macs(isa.wide)
