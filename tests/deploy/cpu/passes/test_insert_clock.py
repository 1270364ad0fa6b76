import numpy as np
import tvm

from deploy.cpu.passes.insert_clock import ENTRY, TICK, InsertClock, called_functions
from deploy.cpu.pipeline import compile_graph, lower_graph, make_kernels, network_passes
from deploy.graph.job import Job
from deploy.graph.passes import passes_before
from deploy.measure.clock import BUFFER_WORDS, WORDS, empty_buffer, kernel_times
from tests.deploy.graphs import photo


def test_the_clock_is_read_around_every_kernel(small_graph, cpu):
    kernels = make_kernels(cpu, 2, {})
    passes = passes_before("InsertClock", network_passes(kernels))
    before = lower_graph(Job(small_graph, cpu, kernels, passes=passes))
    after = InsertClock()(before)
    calls = called_functions(before["main"])
    assert called_functions(after["main"]) == calls
    wanted = [TICK, *(name for call in calls for name in (call, TICK))]
    assert called_functions(after[ENTRY]) == wanted


def test_it_computes_and_counts(small_graph, cpu):
    compiled = compile_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {})))
    module = lower_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {})))
    kernels = called_functions(module["main"])
    assert list(compiled.calls) == kernels
    assert TICK not in [info.name for info in compiled.kernels]
    machine = compiled.load()
    image = tvm.runtime.tensor(photo()[None])
    ticks = tvm.runtime.tensor(empty_buffer())
    labels = machine["main"](image).numpy()
    for _ in range(3):
        np.testing.assert_array_equal(machine[ENTRY](image, ticks).numpy(), labels)
    times = kernel_times(ticks.numpy(), 3)
    assert [len(frame) for frame in times] == [len(kernels)] * 3
    assert all(ns >= 0 for frame in times for ns in frame)
    while ticks.numpy()[0] + WORDS < BUFFER_WORDS - 1:
        before = int(ticks.numpy()[0])
        machine[ENTRY](image, ticks)
        if int(ticks.numpy()[0]) == before:
            break
    machine[ENTRY](image, ticks)  # a full buffer is left alone, and nothing is written behind it
    assert int(ticks.numpy()[0]) <= BUFFER_WORDS - 1
