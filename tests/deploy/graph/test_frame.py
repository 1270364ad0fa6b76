import numpy as np
import pytest
from tvm import relax

from deploy.graph.frame import Space, plan_frame
from lut.errors import UserError

SHAPE = (1, 2, 8, 8)


def module_of(build):
    """A module of calls of PrimFuncs, made of operators: `build(emit, x)` gives the result."""
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(build(builder.emit, x))
        builder.emit_func_output(result)
    module = relax.transform.LegalizeOps()(builder.get())
    return relax.transform.RewriteDataflowReshape()(module)


def kinds(entry):
    names = (call.kernel.removeprefix("tir_") for call in entry.calls)
    return [name.rstrip("0123456789") for name in names]


def test_calls_in_order_on_places_that_do_not_meet():
    ones = np.arange(64, dtype=np.float32).reshape(8, 8)

    def build(emit, x):
        a = emit(relax.op.add(x, relax.const(ones)))
        b = emit(relax.op.exp(a))
        c = emit(relax.op.add(b, relax.const(ones)))
        return emit(relax.op.negative(c))

    frame = plan_frame(module_of(build))
    entry = frame.entries["main"]
    assert kinds(entry) == ["add", "exp", "add", "negative"]
    assert set(frame.kernels) == {call.kernel for call in entry.calls}
    given, constant, first = entry.calls[0].arguments
    assert (given.space, constant.space, first.space) == (
        Space.INPUT, Space.CONSTANT, Space.MAP
    )  # fmt: skip
    assert entry.calls[2].arguments[1] == constant  # equal constants share their bytes
    size = 4 * 2 * 8 * 8
    assert frame.map_bytes == 2 * size  # of four maps no more than two live at once
    assert entry.output.space is Space.OUTPUT
    assert entry.calls[-1].arguments[-1] == entry.output
    raw = np.frombuffer(frame.constants, np.float32)
    np.testing.assert_array_equal(raw[:64], ones.reshape(-1))


def test_a_reshape_is_the_same_bytes():
    def build(emit, x):
        a = emit(relax.op.exp(x))
        return emit(relax.op.negative(emit(relax.op.reshape(a, (1, 128)))))

    entry = plan_frame(module_of(build)).entries["main"]
    assert kinds(entry) == ["exp", "negative"]
    written, read = entry.calls[0].arguments[1], entry.calls[1].arguments[0]
    assert (written.offset, written.space) == (read.offset, read.space)
    assert read.shape == (1, 128)


def test_a_map_lives_as_long_as_it_is_read():
    def build(emit, x):
        a = emit(relax.op.exp(x))
        b = emit(relax.op.negative(emit(relax.op.sqrt(a))))
        return emit(relax.op.add(b, a))

    entry = plan_frame(module_of(build)).entries["main"]
    kept = entry.calls[0].arguments[-1]
    for each in entry.calls[1:]:
        assert each.arguments[-1].offset != kept.offset


def test_what_became_no_kernel_is_named():
    with pytest.raises(UserError, match="cannot lower it") as caught:
        plan_frame(module_of(lambda emit, x: emit(relax.op.cumsum(x, axis=1))))
    assert "cumsum" in str(caught.value)


def test_nothing_to_compute():
    with pytest.raises(UserError, match="gives back what it was given"):
        plan_frame(module_of(lambda emit, x: emit(relax.op.reshape(x, (1, 128)))))
