"""What is left to TVM: its loops, their numbers, and the records that belong to them."""

import re

import numpy as np
import pytest
import tvm
from tvm import relax

from deploy.cpu.passes.schedule_fallback import (
    ScheduleFallback,
    apply_trace,
    left_to_tvm,
    rule_schedule,
    workload_key,
)
from deploy.cpu.pipeline import network_passes
from deploy.graph.frame import plan_frame
from deploy.graph.importer import import_graph
from deploy.graph.passes import passes_before, run_passes
from deploy.graph.place import OPERATION
from lut.errors import UserError
from tests.deploy.graph.nets import RNG, Net, max_error

LANES = 8


def unscheduled(model):
    """The PrimFuncs of a model as they come to the pass, without kernels of ours."""
    module = import_graph(model)
    module = run_passes(module, passes_before("ScheduleFallback", network_passes()))
    return module


def only(model):
    (function,) = left_to_tvm(unscheduled(model)).values()
    return function


def loops_of(function, kind):
    """How many loops of a kind the function's text shows."""
    return function.script().count(f"T.{kind}(")


def dense(size=(18, 24), cout=24, **options):
    net = Net(16, *size)
    return net.model(net.conv("x", cout, 3, act="relu6", **options))


def softmax():
    net = Net(20, 9, 12)
    return net.model(net._node("Softmax", ["x"], 20, axis=1))


def max_pool():
    net = Net(20, 18, 24)
    return net.model(
        net._node("MaxPool", ["x"], 20, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    )


def transposed_convolution():
    net = Net(16, 9, 11)
    weight = net._weight(RNG.normal(0, 0.1, (16, 12, 2, 2)).astype(np.float32))
    return net.model(net._node("ConvTranspose", ["x", weight], 12, strides=[2, 2]))


def nearest():
    net = Net(16, 9, 11)
    sizes = net._weight(np.array([1, 16, 18, 22], np.int64))
    y = net._node(
        "Resize", ["x", "", "", sizes], 16, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    return net.model(y)


def per_channel_slope():
    net = Net(16, 9, 11)
    slope = net._weight(RNG.uniform(0, 1, (16, 1, 1)).astype(np.float32))
    return net.model(net._node("PRelu", ["x", slope], 16))


OTHERS = [softmax, max_pool, transposed_convolution, nearest, per_channel_slope]


@pytest.mark.parametrize("make", OTHERS, ids=lambda f: f.__name__)
def test_numbers_of_other_operators(make):
    assert max_error(make(), "x86-64-v3") < 1e-4


def test_an_operator_that_tvm_cannot_lower_is_named():
    """None that the importer writes; but whoever adds one finds out by a line."""
    x = relax.Var("x", relax.TensorType((16, 9), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            total = builder.emit_output(relax.op.cumsum(x, axis=1))
        builder.emit_func_output(total)
    module = run_passes(builder.get(), network_passes())
    with pytest.raises(UserError, match="cumsum"):
        plan_frame(module)


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v4"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": (17, 23)},
        {"size": (5, 1)},
        {"stride": 2},
        {"groups": 4},
        {"dilation": 3, "size": (40, 32)},
        {"cout": 3},
    ],
    ids=str,
)
def test_numbers_of_convolutions(options, target):
    assert max_error(dense(**options), target) < 1e-4


def test_loops_of_a_convolution():
    """Parallel rows; sums and their start and end in vectors; padding and activation apart."""
    function = only(dense(size=(32, 48)))
    assert not loops_of(function, "parallel") + loops_of(function, "vectorized")
    scheduled = rule_schedule(function, LANES)
    assert loops_of(scheduled, "parallel") == 2  # the sum, and the bias with the activation
    assert loops_of(scheduled, "vectorized") >= 4


def test_sums_of_several_rows_are_held_in_registers():
    """Two vectors of a row, so six rows or the most that divide them; and none for a single one."""
    for rows, each in ((32, 4), (18, 6), (7, 1), (1, 1)):
        text = rule_schedule(only(dense(size=(rows, 48))), LANES).script()
        assert text.count(f"T.unroll(T.int64({each}))") == (3 if each > 1 else 0), rows
        assert ("T.unroll(" in text) == (each > 1)


def test_small_nests_are_not_parallel():
    function = only(dense(size=(4, 8), cout=4))
    assert not loops_of(rule_schedule(function, LANES), "parallel")


def test_widths_without_a_divisor_stay_scalar():
    net = Net(16, 9, 11)
    function = only(net.model(net.sigmoid("x")))
    assert not loops_of(rule_schedule(function, LANES), "vectorized")


def test_every_function_left_gets_a_key_and_keeps_its_name():
    before = unscheduled(softmax())
    after = ScheduleFallback(LANES, {})(before)
    assert {v.name_hint for v in left_to_tvm(before)} == {v.name_hint for v in left_to_tvm(after)}
    (function,) = left_to_tvm(after).values()
    assert function.attrs[OPERATION] == workload_key(only(softmax()))
    assert OPERATION not in (only(softmax()).attrs or {})  # the input module is as it was


def test_the_key_is_of_the_loops_not_of_the_name():
    function = only(softmax())
    assert workload_key(function.with_attr("global_symbol", "other")) == workload_key(function)
    assert workload_key(only(dense())) != workload_key(only(dense(cout=25)))


def test_a_record_is_applied_to_its_own_loops_only():
    function = only(dense())
    key = workload_key(function)
    schedule = tvm.s_tir.Schedule(
        tvm.IRModule({"main": tvm.s_tir.renew_defs(function).with_attr("global_symbol", "main")})
    )
    loops = schedule.get_loops(schedule.get_sblock("conv2d_nchw"))
    schedule.unroll(loops[-1])
    values = {"trace": tvm.ir.load_json(tvm.ir.save_json(schedule.trace.as_json()))}
    assert loops_of(apply_trace(function, values), "unroll") == 1
    assert workload_key(function) == key  # the input is as it was
    measured = {key: values}
    scheduled = ScheduleFallback(LANES, measured)(unscheduled(dense()))
    (applied,) = left_to_tvm(scheduled).values()
    assert loops_of(applied, "unroll") == 1
    (other,) = left_to_tvm(ScheduleFallback(LANES, measured)(unscheduled(softmax()))).values()
    rule = rule_schedule(only(softmax()), LANES)
    assert loops_of(other, "unroll") == loops_of(rule, "unroll")


@pytest.mark.parametrize(
    "trace", [None, [], [[["GetSBlock", [], ["no", "main"], ["b"]]], []]], ids=str
)
def test_a_record_that_does_not_fit(trace):
    function = only(softmax())
    with pytest.raises(UserError, match="delete it and tune again") as caught:
        apply_trace(function, {"trace": trace} if trace is not None else {})
    assert "\n" not in str(caught.value)


def test_of_a_user_network_left_to_tvm_below_avx2():
    net = Net(16, 9, 11)
    assert isinstance(unscheduled(net.model(net.conv("x", 8)))["main"], relax.Function)
    assert max_error(net.model(net.conv("x", 8)), "x86-64") < 1e-4


def test_what_is_spread_over_a_map_is_computed_once():
    """x * sigmoid(x) is one statement; the sigmoid of a value per channel stays apart."""
    for make, together in ((lambda net: net.sigmoid("x"), True), (per_channel_gate, False)):
        net = Net(16, 9, 16)
        model = net.model(net.multiply("x", make(net)))
        functions = left_to_tvm(unscheduled(model)).values()
        (function,) = [
            f for f in functions if "multiply" in f.script() and "T.reinterpret(" in f.script()
        ]
        lines = rule_schedule(function, LANES).script().splitlines()
        (line,) = [line for line in lines if "T.reinterpret(" in line]
        (written,) = re.findall(r"^\s*(\w+)\[", line)
        assert written.startswith("T_multiply") == together
        assert max_error(model, "x86-64-v3") < 1e-4


def per_channel_gate(net):
    return net.sigmoid(net.conv(net.average("x"), 16, bias=False))
