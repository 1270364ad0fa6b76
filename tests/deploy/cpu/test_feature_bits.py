import pytest

from deploy import host
from deploy.cpu.feature_bits import feature_bits
from deploy.cpu.pipeline import compile_graph, make_kernels
from deploy.graph.job import Job
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.deploy.graphs import photo

WIDER = "graniterapids"  # AMX and AVX512-FP16 among others


def test_every_feature_that_a_target_may_have_has_a_bit():
    for name, flags in host.FEATURE_FLAGS.items():
        target = resolve_target("x86-64" if name == "x86_64" else "arm")
        every = type(target)("t", target.config, name, tuple(flags))
        bits, _ = feature_bits(every)
        assert len(bits) == len(set(bits)) == len(flags)


def test_a_library_for_another_cpu_is_refused_before_its_first_kernel(small_graph):
    target = resolve_target(WIDER)
    if not host.missing_features(target.features, host.cpu_flags()):
        pytest.fail("this CPU has all of them: name a wider one")
    compiled = compile_graph(Job(small_graph, target, make_kernels(target, 2, {})))
    with pytest.raises(UserError, match="this CPU lacks instructions"):
        compiled.load()


def test_one_for_this_cpu_runs(small_graph, cpu):
    with compile_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {}))).load() as library:
        assert library.run("main", photo()).shape == (64, 64)
