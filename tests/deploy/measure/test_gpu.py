"""A latency table of a GPU, on the stand-in for a driver, whose clock counts threads and events:
what a table must then say can be computed. What a GPU takes, no test here says.

The kernels do nothing (tests/deploy/gpu/test_kernels.py runs the real ones); the launches, the
graphs and the events are those of the networks.
"""

import json
import math
import os
import subprocess
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest

from benchmarks import gpu_table
from deploy.cli import places, search
from deploy.gpu.kernels import GpuKernels
from deploy.measure.gpu import GpuDevice
from deploy.measure.rounds import VisitProtocol
from deploy.tables.build import Plan, build_table, default_path
from deploy.tables.check import check_networks, require_measurable
from deploy.tables.networks import Recipe, factory_of
from deploy.targets import resolve_target
from hmseg.genotype import parse_genotype
from hmseg.operators import Space
from lut.errors import UserError
from lut.estimate import LatencyCost
from lut.ops import InvertedResidual, expand
from lut.table_file import load_table
from tests.deploy.cli.conftest import cli  # noqa: F401 - a fixture
from tests.deploy.tables.fakes import SHALLOW
from tests.lut.tables import visit

SPACE = Space((64, 128), 0.5)
PROTOCOL = VisitProtocol(rounds=2, frames=2, warmup=1)


def network(s1, s3, s5b):
    text = str(SHALLOW).replace("s1 e1k3", f"s1 {s1}").replace("s3 e3k5", f"s3 {s3}")
    return parse_genotype(text.replace("s5b e1k3", f"s5b {s5b}"))


# All the entries of UNSEEN are in them, in other neighbourhoods.
MEASURED = (
    SHALLOW, network("e3k3", "e3k5", "e3k3"), network("e1k3", "e6k5", "e3k3"),
    network("e1k3", "e6k5", "e1k3"),
)  # fmt: skip
UNSEEN = network("e3k3", "e6k5", "e1k3")


class Few(Plan):
    """Four networks instead of seventy, each in both roles."""

    def networks(self):
        return [(genotype, role) for genotype in MEASURED for role in ("entries", "calibration")]


@pytest.fixture(scope="module")
def target():
    return resolve_target("cuda", "sm_61")


@pytest.fixture(scope="module")
def idle_kernels(tmp_path_factory):
    """Kernels of every name that the networks have, which do nothing."""
    folder = tmp_path_factory.mktemp("idle")
    kinds = "stem", "depthwise", "pointwise", "global_mean", "resize", "labels_end"
    names = [f"{kind}{number or ''}_kernel" for kind in kinds for number in range(64)]
    code = folder / "idle.c"
    code.write_text(
        "\n".join(
            f"void emulate_{name}(void **p, const unsigned *s, int b) {{}}\n"
            f"unsigned arguments_{name}(void) {{ return 0; }}"
            for name in names
        )
    )
    command = [os.environ.get("CC", "gcc"), "-shared", "-fPIC", "-o", folder / "idle.so", code]
    subprocess.run(command, check=True)
    return folder / "idle.so"


@pytest.fixture(scope="module")
def plan(target):
    return Few(SPACE, target, 0, protocol=PROTOCOL)


@pytest.fixture(scope="module")
def factory(plan):
    """One for every builder here: what it has compiled it keeps."""
    recipe = Recipe(plan.space, plan.target, plan.threads, {})
    with factory_of(recipe) as factory:
        factory.build_ahead([*MEASURED, UNSEEN])
        yield factory


@pytest.fixture(scope="module")
def artifacts(factory):
    return {genotype: factory.build(genotype).artifact for genotype in (SHALLOW, UNSEEN)}


def test_networks_are_built_in_other_processes(factory):
    """Each has code for one GPU and its entries by name; asked for again, it is the same one."""
    networks = [factory.build(genotype) for genotype in MEASURED[2:]]
    assert factory.build(MEASURED[3]) is networks[1]
    for network, genotype in zip(networks, MEASURED[2:], strict=True):
        artifact = network.artifact
        assert network.genotype == genotype
        assert artifact.calls == tuple(map(str, network.calls))
        assert list(artifact.code.cubins) == ["sm_61"]
        assert not artifact.code.ptx
        launches = artifact.code.plan.entries["main"].launches
        assert sum(len(expand(key, GpuKernels().has)) for key in network.calls) == len(launches)
        assert not artifact.parity["checked"]
    (changed,) = set(networks[1].calls) - set(networks[0].calls)
    assert (type(changed), changed.kernel) == (InvertedResidual, 3)
    (before,) = set(networks[0].calls) - set(networks[1].calls)
    assert (before.hidden, changed.hidden) == (3 * before.cin, before.cin)


def stand_in(patch, driver_library, idle_kernels, factory):
    patch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    patch.setenv("STAND_IN_KERNELS", str(idle_kernels))
    # The reference is one of the networks: one less to compile.
    patch.setattr("deploy.tables.build.MRMS_GENOTYPE", SHALLOW)
    patch.setattr("deploy.tables.check.MRMS_GENOTYPE", SHALLOW)
    patch.setattr("deploy.tables.build.factory_of", lambda *_: nullcontext(factory))


@pytest.fixture
def gpu(driver_library, idle_kernels, factory, monkeypatch):
    """The machine's GPU is the stand-in."""
    stand_in(monkeypatch, driver_library, idle_kernels, factory)


@pytest.fixture(scope="module")
def built(plan, driver_library, idle_kernels, factory, tmp_path_factory):
    """A table whose builder was cut short after a visit, and what it held then."""
    path = tmp_path_factory.mktemp("lut") / "gpu.jsonl"

    def stop(now):
        if now.done == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, driver_library, idle_kernels, factory)
        with pytest.raises(KeyboardInterrupt):
            build_table(plan, GpuDevice(), path, stop)
        kept = load_table(path).visits
        return build_table(plan, GpuDevice(), path), path, kept


def ticks_us(launches):
    """By the stand-in's clock: a millisecond for every thread, and one for the event at the end."""
    return 1000 * (1 + sum(math.prod(launch.grid) * math.prod(launch.block) for launch in launches))


def frame_us(artifact):
    return ticks_us(artifact.code.plan.entries["main"].launches)


def test_nothing_is_lost_or_doubled(built, plan):
    table, path, kept = built
    assert len(kept) == 1
    assert table.visits[:1] == kept
    assert Counter((v.network, v.role) for v in table.visits) == Counter(
        (str(genotype), role) for genotype, role in plan.networks()
    )
    assert load_table(path) == table


def test_entries_are_what_their_launches_take(built, artifacts):
    """Each has its own threads, and an event."""
    table, _, _ = built
    launches = artifacts[SHALLOW].code.plan.entries["main"].launches
    found = {str(key).split()[0]: entry for key, entry in table.entries.items()}
    assert found["labels_end"].median_us == ticks_us(launches[-1:])
    assert found["classifier"].median_us == ticks_us(launches[-3:-1])
    assert not found["labels_end"].noisy
    assert set(table.entries) == {key for genotype in MEASURED for key in SPACE.keys(genotype)}
    first = next(v for v in table.visits if v.network == str(SHALLOW))
    assert set(first.whole_us[0]) == {float(frame_us(artifacts[SHALLOW]))}
    entries = sum(e.calls * e.samples_us[0][0] for e in first.entries.values())
    calls = sum(e.calls for e in first.entries.values())
    assert entries - 1000 * calls == frame_us(artifacts[SHALLOW]) - 1000


def test_its_estimate_of_an_unseen_network_is_exact(built, artifacts):
    """Up to the events, of which a whole frame has one and its entries have one each."""
    table, _, _ = built
    cost = LatencyCost(table)
    estimate = cost.network(sum(map(cost.entry, SPACE.keys(UNSEEN))))
    whole = frame_us(artifacts[UNSEEN])
    assert estimate.value == pytest.approx(whole, rel=1e-5)
    assert estimate.upper == pytest.approx(whole, rel=1e-4)
    assert str(UNSEEN) not in {visit.network for visit in table.visits}
    assert whole != pytest.approx(frame_us(artifacts[SHALLOW]), rel=0.05)


def test_check(built, gpu, artifacts, target, monkeypatch):
    """Without the parity gate of `compile`, for which idle kernels are none. What the space has
    besides is made up: no network here has it."""
    monkeypatch.setattr("deploy.tables.check._compile", lambda g, *_: artifacts[g])
    table, _, _ = built
    ((provenance, visits),) = table.runs
    others = SPACE.all_keys() - set(table.entries)
    more = visit("made up", dict.fromkeys(others, 1.0), reference=table.baseline_us)
    full = replace(table, runs=((provenance, (*visits, more)),))
    result = check_networks(full, target, GpuDevice(), [UNSEEN], protocol=PROTOCOL)
    assert result.rows[0].measured_us == pytest.approx(frame_us(artifacts[UNSEEN]))
    assert result.worst_error < 1e-5


def test_provenance(built, target, monkeypatch, tmp_path):
    table, _, _ = built
    ((provenance, _),) = table.runs
    assert (provenance.cpu, provenance.architecture, provenance.cores) == ("Stand-in", "sm_61", 28)
    assert provenance.versions["nvidia-driver-cuda"] == "12.9"
    assert provenance.versions["cuda-nvrtc"]
    assert "a whole frame is the compute part" in provenance.protocol
    assert table.identity.target == target.key
    assert (table.identity.target_name, table.identity.threads) == ("cuda", 0)
    half = resolve_target("cuda", "sm_61", "fp16")
    assert replace(table.identity, target=half.key).precision == "fp16"
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    paths = [default_path(Plan(SPACE, t, 0)).name for t in (target, half)]
    assert paths == [f"sm_61-64x128-width0.5-{p}.jsonl" for p in ("fp32", "fp16")]


def test_a_table_of_another_gpu(built, gpu, plan, target, monkeypatch):
    table, path, _ = built
    before = path.read_bytes()
    monkeypatch.setenv("STAND_IN_NAME", "Another GPU")
    with pytest.raises(UserError, match="measured with another cpu"):
        build_table(plan, GpuDevice(), path)
    with pytest.raises(UserError, match="it says: cpu 'Stand-in', now 'Another GPU'"):
        require_measurable(table, target, GpuDevice())
    monkeypatch.setenv("STAND_IN_CAPABILITY", "90")
    with pytest.raises(UserError, match="target cuda is sm_61, and what would measure it is sm_90"):
        build_table(plan, GpuDevice(), path)
    monkeypatch.setenv("STAND_IN_VERSION", "12080")
    monkeypatch.setenv("STAND_IN_CAPABILITY", "61")
    monkeypatch.delenv("STAND_IN_NAME")
    with pytest.raises(UserError, match="measured with another versions"):
        build_table(plan, GpuDevice(), path)
    assert path.read_bytes() == before


def test_within_the_minutes_of_a_benchmark(gpu, monkeypatch, tmp_path):
    """benchmarks/gpu.sh: until its time is up, and then goes on; a table of another GPU is left as
    it is, and still named where it is complete."""
    monkeypatch.setattr(gpu_table, "RESOLUTION", "64x128")
    monkeypatch.setattr("deploy.tables.build.covering_networks", lambda *_: [SHALLOW, UNSEEN])
    monkeypatch.setattr("deploy.tables.build.random_networks", lambda *_: [])

    path = gpu_table.table_path(tmp_path, "a")

    def measure(*clock):
        seconds = iter(clock)
        monkeypatch.setattr(gpu_table, "monotonic", lambda: next(seconds, clock[-1]))
        return gpu_table.measure_table("fp32", path, end=10)

    assert measure(11) == {"left_out": "the time was up"}
    assert not list(tmp_path.iterdir())
    first = measure(9, 11)  # up after a visit
    assert first["visits"] == 1
    assert first["left_out"] == "5 visits, the time was up"
    assert first["file"] == "lut-a-64x128-width0.5.jsonl"
    partial = path.read_bytes()
    monkeypatch.setenv("STAND_IN_NAME", "Another GPU")
    assert "measured with another cpu" in measure(9)["left_out"]
    monkeypatch.delenv("STAND_IN_NAME")
    assert path.read_bytes() == partial
    rest = measure(9)
    assert (rest["visits"], rest["left_out"], rest["note"]) == (6, "", "")
    assert rest["entries"] == len({*SPACE.keys(SHALLOW), *SPACE.keys(UNSEEN)})
    assert measure(11) == rest | {"note": "the time was up"}
    monkeypatch.setenv("STAND_IN_NAME", "Another GPU")
    last = measure(9)
    assert "measured with another cpu" in last["note"]
    assert last == rest | {"note": last["note"]}  # complete, and named


def test_a_search_measures_on_the_same_gpu(built, gpu, target, monkeypatch):
    """Before it begins, the search makes sure that its table is of this machine's GPU."""
    table, _, _ = built
    place = places.read_table_place(table.identity, None, None, 1.0)
    assert search._Measuring(table, place).target == target
    monkeypatch.setenv("STAND_IN_NAME", "Another GPU")
    with pytest.raises(UserError, match=r"now 'Another GPU'.*; or search with --no-measure"):
        search._Measuring(table, place)


def test_show_and_export(built, cli):  # noqa: F811
    _, path, _ = built
    done = cli("lut", "show", path).succeeded()
    assert "cuda (Stand-in), 64x128, width 0.5, fp32" in done.out
    assert "us + 1.0000 x entries" in done.out
    assert "inverted_residual" in cli("lut", "export", path, "--csv").succeeded().out
    assert json.loads(cli("lut", "show", path, "--json").succeeded().out)["calibration"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--target", "adreno"], "target adreno: this version runs OpenCL on no device"),
        (["build", "-t", "nvidia/nvidia-h100"], "is for sm_90, this machine's GPU is sm_61"),
        (["build", "-t", "cuda", "--threads", "2"], "--threads is of a CPU; leave it out"),
        (["build", "--precision", "fp16"], "--precision fp16 is for --target cuda"),
        (["check", "TABLE", "--rpc-key", "k"], "a GPU is measured on its own machine"),
        (["check", "TABLE", "--target", "cpu"], "is for the target"),
        (["build", "-t", "cuda", "-r", "64x128", "-o", "TABLE"], "something else: width 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(built, gpu, cli, arguments, message):  # noqa: F811
    _, path, _ = built
    before = path.read_bytes()
    done = cli("lut", *(str(path) if word == "TABLE" else word for word in arguments))
    assert done.code == 2
    assert message in done.error
    assert path.read_bytes() == before


def test_without_a_gpu(built, cli, monkeypatch, tmp_path):  # noqa: F811
    _, path, _ = built
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
    for command in (["build", "--target", "cuda"], ["check", path]):
        done = cli("lut", *command)
        assert done.code == 2
        assert "no NVIDIA driver on this machine" in done.error
    assert not (tmp_path / "home").exists()
