"""Two networks that differ in one entry, compiled for this machine once: they compute what they
should, a table is built of them, and it is checked. The other files say what is timed, and when."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deploy.backends import backend_of
from deploy.cpu import machine_code
from deploy.graph.ends import with_logits_output
from deploy.graph.expected import Expectations
from deploy.measure.local import LocalDevice
from deploy.object_cache import ObjectCache
from deploy.runtime import open_artifact
from deploy.tables import build, calibrate, check
from deploy.tables.build import Plan, build_table
from deploy.tables.calibrate import calibrate_table
from deploy.tables.check import OCCASIONS, check_networks
from deploy.tables.networks import OwnFactory, Recipe, export_genotype, factory_of
from deploy.verify import verify_network
from hmseg.genotype import random_genotype
from lut.estimate import MIN_CALIBRATION
from lut.ops import InvertedResidual, expand
from lut.table_file import add_retiming, load_table, save_table
from tests.conditions import KERNELS
from tests.deploy.tables.fakes import PROTOCOL, SHALLOW, SPACE
from tests.lut.tables import visit

OTHER = replace(SHALLOW, ops=(*SHALLOW.ops[:-1], (replace(SHALLOW.ops[-1][0], kernel=5),)))
ROLES = ("entries", "calibration")


class Few(Plan):
    """The two, each in both roles."""

    def networks(self):
        return [(genotype, role) for genotype in (SHALLOW, OTHER) for role in ROLES]


@pytest.fixture(scope="module")
def recipe(cpu):
    KERNELS.require()
    return Recipe(SPACE, cpu, 2, {})


@pytest.fixture(scope="module")
def graphs():
    """What they are compiled from, by genotype, as it is made."""
    return {}


@pytest.fixture(scope="module")
def compiled():
    """The kernels that were compiled, by name, in order."""
    return []


@pytest.fixture(scope="module")
def networks(recipe, graphs, compiled):
    """By genotype; compiled between the measurements, which compiling would disturb."""
    compile_kernel = machine_code.compile_kernel

    def export(genotype, space):
        graphs[genotype] = export_genotype(genotype, space)
        return graphs[genotype]

    def count(name, function, target):
        compiled.append(name)
        return compile_kernel(name, function, target)

    with pytest.MonkeyPatch.context() as patch, factory_of(recipe) as factory:
        patch.setattr("deploy.tables.networks.export_genotype", export)
        patch.setattr(machine_code, "compile_kernel", count)
        assert isinstance(factory, OwnFactory)
        factory.build_ahead([SHALLOW, OTHER])
        return {genotype: factory.build(genotype) for genotype in (SHALLOW, OTHER)}


def hand_out(networks, patch):
    """Nothing is compiled again: the factory has the two, and the reference is one of them."""

    class Made(OwnFactory):
        def build(self, genotype):
            return networks[genotype]

    patch.setattr(build, "factory_of", Made)
    patch.setattr(build, "MRMS_GENOTYPE", SHALLOW)
    patch.setattr(check, "MRMS_GENOTYPE", SHALLOW)


@pytest.fixture(scope="module")
def table(networks, cpu, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        hand_out(networks, patch)
        few = Few(SPACE, cpu, 2, revisits=0, protocol=PROTOCOL)
        path = tmp_path_factory.mktemp("lut") / "t.jsonl"
        found = build_table(few, LocalDevice(2), path)
    assert load_table(path) == found
    return found


def test_a_network_computes_what_onnxruntime_computes(networks, graphs):
    network = open_artifact(networks[SHALLOW].artifact, "a", threads=2)
    images = {"street": network.artifact.golden.image}
    expectations = Expectations(with_logits_output(graphs[SHALLOW]), images)
    (comparison,) = verify_network(network, expectations, images)
    assert comparison.passed


def test_its_parts_are_the_entries(networks, cpu):
    """Every kernel call of a frame is timed, and is of an entry; the two differ in the one."""
    has = backend_of(cpu).has
    for genotype, network in networks.items():
        assert Counter(network.keys) == Counter(SPACE.keys(genotype))
        assert len(network.calls) == len(network.artifact.calls)
        parts = Counter(key for key in network.keys for _ in expand(key, has))
        assert Counter(network.calls) == parts
        assert not network.artifact.parity["checked"]
    (changed,) = set(networks[OTHER].calls) - set(networks[SHALLOW].calls)
    assert changed == InvertedResidual(80, 80, 160, 2, 2, 5, dilation=4, expand=False)


def test_a_kernel_is_compiled_once_for_all_networks(networks, compiled, recipe, tmp_path):
    """In memory, or where there is one in the cache."""
    first, second = (set(network.artifact.calls) for network in networks.values())
    assert len(compiled) == len(set(compiled)) >= len(first | second)
    (new,) = second - first
    assert compiled[-1] == new
    assert OwnFactory(recipe)._recipe.cache == ObjectCache(None)
    cached = replace(recipe, cache=ObjectCache(tmp_path))
    assert OwnFactory(cached)._recipe.cache == cached.cache


def test_every_kernel_is_timed_inside_the_frame(networks):
    network = networks[SHALLOW]
    with LocalDevice(2).open(network.artifact) as session:
        session.time_frames(2)
        times, frames = session.time_kernels(70), session.time_frames(70)
    assert len(times) == len(frames) == 70
    assert all(len(frame) == len(network.calls) for frame in times)
    assert all(ns >= 0 for frame in times for ns in frame)
    assert min(map(sum, times)) > 0
    assert min(frames) > 0


def test_the_table(table):
    assert Counter((v.network, v.role) for v in table.visits) == Counter(
        (str(genotype), role) for genotype in (SHALLOW, OTHER) for role in ROLES
    )
    assert set(table.entries) == {*SPACE.keys(SHALLOW), *SPACE.keys(OTHER)}
    for found in table.visits:
        assert {len(frames) for frames in found.whole_us} == {PROTOCOL.frames}
        assert {len(frames) for frames in found.reference_us} == {2 * PROTOCOL.frames}
        for entry in found.entries.values():
            assert [len(frames) for frames in entry.samples_us] == [3, 3]
            assert min(map(min, entry.samples_us)) > 0
    assert not table.emulated


def outputs(artifact):
    network = open_artifact(artifact, "a", threads=2)
    return network(artifact.golden_input), network.logits(artifact.golden_input)


def test_check(table, networks, graphs, cpu, monkeypatch):
    """A network is compiled as `hmseg-deploy compile` does, and computes bit by bit what the
    table's does. What the table lacks is made up."""
    hand_out(networks, monkeypatch)
    compile_, made = check._compile, {SHALLOW: networks[SHALLOW].artifact}

    def compile_once(genotype, *how):
        if genotype not in made:
            made[genotype] = compile_(genotype, *how)
        return made[genotype]

    monkeypatch.setattr(check, "_compile", compile_once)
    monkeypatch.setattr(check, "export_genotype", lambda genotype, _: graphs[genotype])
    ((provenance, visits),) = table.runs
    rest = dict.fromkeys(SPACE.all_keys() - set(table.entries), 1.0)
    more, rng = [visit("made up", rest, reference=table.baseline_us)], random.Random(9)
    for n in range(MIN_CALIBRATION):
        genotype = random_genotype(rng)
        entries = dict.fromkeys(SPACE.keys(genotype), 1.0)
        more.append(visit(str(genotype), entries, whole=100.0 + n, role="calibration"))
    full = replace(table, runs=((provenance, (*visits, *more)),))
    told = []
    result = check_networks(
        full, cpu, LocalDevice(2), [OTHER], protocol=PROTOCOL, on_progress=told.append
    )
    (row,) = result.rows
    assert (row.network, len(row.occasions_us)) == (str(OTHER), OCCASIONS)
    assert min(row.occasions_us) > 0
    assert told == ["compiled 1 of 1", *(f"timed {n + 1} of 5" for n in range(OCCASIONS))]
    assert made[OTHER].parity["checked"]
    assert made[OTHER].calls == networks[OTHER].artifact.calls
    for one, other in zip(outputs(made[OTHER]), outputs(networks[OTHER].artifact), strict=True):
        np.testing.assert_array_equal(one, other)


def test_calibrate(table, networks, cpu, monkeypatch, tmp_path):
    """What is timed again are the same kernels in the same networks. Two more names for the two
    make up four networks; how far a busy machine is from itself decides nothing here."""
    monkeypatch.setattr(calibrate, "BAR_MEAN", float("inf"))
    monkeypatch.setattr("lut.drift.MOST_MOVED", float("inf"))
    rng = random.Random(9)
    named = {random_genotype(rng): networks[own] for own in (SHALLOW, OTHER)}
    made = networks | {name: replace(own, genotype=name) for name, own in named.items()}
    hand_out(made, monkeypatch)
    monkeypatch.setattr(calibrate, "factory_of", build.factory_of)
    ((provenance, visits),) = table.runs
    measured = {v.network: v for v in visits if v.role == "calibration"}
    more = [replace(measured[str(own.genotype)], network=str(name)) for name, own in named.items()]
    path = tmp_path / "t.jsonl"
    save_table(replace(table, runs=((provenance, (*visits, *more)),)), path)
    told = []
    found = calibrate_table(
        load_table(path), cpu, LocalDevice(2), protocol=PROTOCOL, occasions=1,
        on_progress=lambda *now: told.append(now[:2]),
    )  # fmt: skip
    assert told == [(n + 1, 4) for n in range(4)]
    assert [v.network for v in found.retiming.visits] == list(map(str, made))
    assert found.retiming.provenance == provenance
    assert found.retiming.host == LocalDevice(2).info.host != ""
    assert {m.entry for m in found.drift.entries} == set(table.entries)
    for visit_ in found.retiming.visits:
        for entry in visit_.entries.values():
            assert min(map(min, entry.samples_us)) > 0
    assert min(found.drift.reference_us) > 0
    assert found.after.networks == 4
    assert add_retiming(path, found.retiming, path).present_us == found.drift.reference_us[1]
