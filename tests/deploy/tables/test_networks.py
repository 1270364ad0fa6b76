"""Networks with shared kernels are the networks that `compile` builds."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy.build import build_artifact
from deploy.cpu.passes.insert_clock import called_functions
from deploy.cpu.pipeline import isa_of, lower_graph, make_kernels
from deploy.graph.export import export_network
from deploy.graph.kernel_call import SPEC
from deploy.measure.keys import key_of
from deploy.measure.local import LocalDevice
from deploy.tables.networks import NetworkFactory
from deploy.resolution import Resolution
from deploy.runtime import open_artifact
from deploy.targets import resolve_target
from hmseg.covering import covering_networks
from hmseg.genotype import Op, parse_genotype, random_genotype
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.key import OpKey

SIZE = Resolution(64, 64)
SHALLOW = parse_genotype(
    "s1 e1k3 | s2 e1k3 skip skip skip | s3 e3k5 skip skip skip | s4a e1k3 e1k3 skip skip"
    " | s4b e1k3 skip skip skip | s5a e1k3 skip skip skip | s5b e1k3 | 0.5 0.6"
)


@pytest.fixture(scope="module")
def factory(cpu):
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    with NetworkFactory(Space(SIZE, 0.5), cpu, 2, {}) as factory:
        yield factory


@pytest.fixture(scope="module")
def network(factory):
    torch.manual_seed(7)
    return factory.build(SHALLOW)


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_compiled_networks_call_the_kernels_of_their_entries(cpu, width):
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    rng = random.Random(int(10 * width))
    for size in (Resolution(128, 192), Resolution(72, 100), SIZE):
        genotype = random_genotype(rng)
        if size == SIZE:  # C5 of 1x1
            genotype = replace(genotype, medium_tenths=4, low_tenths=4)
        if size.width == 100:  # the stem and two blocks in one kernel
            ops = ((Op(1, 5),), (Op(3, 7), *genotype.ops[1][1:]), *genotype.ops[2:])
            genotype = replace(genotype, ops=ops)
        graph = export_network(MRMS(MRMSConfig(genotype, width)), "n", size, num_classes=19)
        kernels = make_kernels(cpu, 2, {})
        module = lower_graph(graph, cpu, kernels=kernels)
        names = called_functions(module["main"])
        specs = {v.name_hint: str(f.attrs[SPEC]) for v, f in module.functions.items()
                 if v.name_hint in names}  # fmt: skip
        found = Counter(key_of(kernels.emitted[specs[name]]) for name in names)
        contexts = [key for key in found if key.op == "context"]
        assert [found[key] for key in contexts] == [2]  # the pooled and the plain 1x1
        found[contexts[0]] = 1
        assert found == Counter(Space(size, width).keys(genotype))


def test_different_kernels_never_share_an_entry(cpu):
    """Over networks that cover the space's operators, lowered as `compile` lowers them."""
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels")
    size = Resolution(128, 192)
    space, rng = Space(size, 0.5), random.Random(1)
    specs: dict[OpKey, set[str]] = {}
    for genotype, _ in zip(covering_networks(space, rng), range(9), strict=False):
        graph = export_network(MRMS(MRMSConfig(genotype, 0.5)), "n", size, num_classes=19)
        kernels = make_kernels(cpu, 2, {})
        module = lower_graph(graph, cpu, kernels=kernels)
        for name in called_functions(module["main"]):
            text = str(module[name].attrs[SPEC])
            specs.setdefault(key_of(kernels.emitted[text]), set()).add(text)
    for key, texts in specs.items():
        assert len(texts) == (2 if key.op == "context" else 1), f"{key}: {texts}"
    assert len(specs) > 100


def test_it_computes_what_the_compiled_network_computes(network, cpu):
    torch.manual_seed(7)
    graph = export_network(MRMS(MRMSConfig(SHALLOW, 0.5)), "n", SIZE, num_classes=19)
    artifact, _ = build_artifact(graph, cpu, threads=2, measured={})
    real = open_artifact(artifact, "real", threads=2)
    ours = open_artifact(network.artifact, "ours", threads=2)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(ours(image), real(image))
    np.testing.assert_array_equal(ours.logits(image), real.logits(image))


def test_every_kernel_is_timed_inside_the_frame(network):
    with LocalDevice(2).open(network.artifact) as session:
        session.time_frames(5)
        times = session.time_kernels(70)
        frames = session.time_frames(70)
    assert len(times) == len(frames) == 70
    assert all(len(frame) == len(network.calls) == 18 for frame in times)
    assert all(ns >= 0 for frame in times for ns in frame)
    assert min(map(sum, times)) > 0
    assert min(frames) > 0


def test_a_second_network_compiles_only_what_is_new(network, factory):
    before = factory.kernels
    text = str(SHALLOW).replace("s5b e1k3", "s5b e1k5")
    other = factory.build(parse_genotype(text))
    assert factory.kernels == before + 1
    changed = set(other.calls) - set(network.calls)
    assert [str(key) for key in changed] == ["inverted_residual 80-80-160 k5 s1 d4 2x2"]


def test_a_network_that_is_not_its_entries_is_refused(cpu):
    class Wrong(Space):
        def keys(self, genotype):
            return super().keys(genotype)[1:]

    with (
        NetworkFactory(Wrong(SIZE, 0.5), cpu, 2, {}) as factory,
        pytest.raises(WorkError, match="is not compiled to its entries: 'stem_block"),
    ):
        factory.build(SHALLOW)


def test_no_kernels_no_table():
    with pytest.raises(UserError, match="no kernels for x86-64-v2"):
        NetworkFactory(Space(SIZE, 0.5), resolve_target("x86-64-v2"), 2, {})
    with pytest.raises(WorkError, match="no entry for the kernel"):
        key_of(object())
