import ctypes
from dataclasses import replace

import pytest

from deploy import host
from deploy.cpu import source
from deploy.cpu.feature_bits import feature_bits
from deploy.cpu.library import PREFIX
from deploy.cpu.link import compile_c, link_shared, tools_of
from deploy.cpu.loaded import load_memory
from deploy.cpu.pipeline import compile_graph, make_kernels
from deploy.graph.job import Job
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.deploy.graphs import photo

NEVER = (0x7FFFFFFF, 0, 0, 31)  # neither a leaf of cpuid nor an auxiliary entry


def test_every_feature_that_a_target_may_have_has_a_bit():
    for name, flags in host.FEATURE_FLAGS.items():
        target = resolve_target("x86-64" if name == "x86_64" else "arm")
        every = type(target)("t", target.config, name, tuple(flags))
        bits, _ = feature_bits(every)
        assert len(bits) == len(set(bits)) == len(flags)


ASK = """
#include "cpu.c"
__attribute__((visibility("default")))
int ask(const hmseg_feature *features, int32_t count, uint32_t state)
{
    return hmseg_cpu_fits(features, count, state);
}
"""


def test_the_cpu_says_at_these_bits_what_the_system_says_of_it(cpu):
    """Of each feature that it has; the system may hide more of them."""
    tools = tools_of(cpu)
    files = {name: source.runtime_text(name, PREFIX) for name in ("frame.h", "cpu.c")}
    objects = compile_c(tools, files | {"ask.c": ASK}, ("ask.c",))
    library = load_memory(link_shared(tools, list(objects.values()), ("ask",)))
    names = host.FEATURE_FLAGS[cpu.architecture]
    known = [name for name, flag in names.items() if flag in host.cpu_flags()]
    assert known
    for name in known:
        bits, kept = feature_bits(replace(cpu, features=(name,)))
        assert library.ask((ctypes.c_uint32 * 4)(*bits[0]), 1, kept) == 1, name
    assert library.ask((ctypes.c_uint32 * 4)(*NEVER), 1, 0) == 0


def test_a_library_for_another_cpu_is_refused_before_its_first_kernel(
    small_graph, cpu, monkeypatch
):
    """Of a feature that no CPU has, so that every machine runs this test."""
    monkeypatch.setattr(source, "feature_bits", lambda _: ([NEVER], 0))
    compiled = compile_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {})))
    with pytest.raises(UserError, match="this CPU lacks instructions"):
        compiled.load()


def test_one_for_this_cpu_runs(small_graph, cpu):
    with compile_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {}))).load() as library:
        assert library.run("main", photo()).shape == (64, 64)
