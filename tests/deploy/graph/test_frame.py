import numpy as np
import pytest
from tvm import relax

from deploy.cpu.isa import AVX512
from deploy.cpu.kernels import CpuKernels
from deploy.graph.frame import Space, plan_frame
from deploy.graph.place import KernelEmitter
from lut.errors import UserError
from lut.ops import ChannelSlice, Concat, Elementwise

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


def _blocked(calls, result):
    """The entry of calls of kernels of ours on maps of 4x6 pixels: (operation, inputs, channels);
    an input is the number of an earlier call, or the image for -1."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 2, 4, 6, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            emitter, values = KernelEmitter(builder, CpuKernels(AVX512, 1)), [x]
            for operation, inputs, channels in calls:
                function = emitter.function(operation)
                shape = emitter.kernels.own_shape(channels, 4, 6)
                values.append(
                    emitter.call(function, [values[i + 1] for i in inputs], shape, "float32")
                )
            result = builder.emit_output(values[result + 1])
        builder.emit_func_output(result)
    return plan_frame(builder.get()).entries["main"]


def relu(channels):
    return Elementwise(channels, 4, 6, then=("relu",))


def test_whole_blocks_of_channels_are_not_copied():
    block = 4 * 6 * 16 * 4
    entry = _blocked([
        (relu(32), [-1], 32),
        (ChannelSlice(32, 4, 6, 16, 16), [0], 16),
        (relu(16), [1], 16),
        (relu(24), [-1], 24),
        (Concat((16, 24), 4, 6), [2, 3], 40),
        (relu(40), [4], 40),
    ], 5)  # fmt: skip
    assert len(entry.calls) == 4
    first, second, third, last = (call.arguments for call in entry.calls)
    assert second[0].offset == first[1].offset + block
    assert second[0].shape == (1, 1, 4, 6, 16)
    assert second[1].offset == last[0].offset
    assert third[1].offset == last[0].offset + block
    assert last[0].bytes == 3 * block
    # While the parts are written nothing else lies where the whole will be.
    assert not first[1].offset <= last[0].offset < first[1].offset + 2 * block


@pytest.mark.parametrize("calls", [
    [(relu(32), [-1], 32), (ChannelSlice(32, 4, 6, 16, 8), [0], 16), (relu(16), [1], 16)],
    [(relu(32), [-1], 32), (ChannelSlice(32, 4, 6, 8), [0], 8), (relu(8), [1], 8)],
    [(ChannelSlice(32, 4, 6, 16), [-1], 16), (relu(16), [0], 16)],
    [(relu(24), [-1], 24), (relu(32), [-1], 32), (Concat((24, 32), 4, 6), [0, 1], 56)],
    [(relu(32), [-1], 32), (Concat((32, 32), 4, 6), [0, 0], 64), (relu(64), [1], 64)],
    [(relu(32), [-1], 32), (relu(32), [-1], 32), (Concat((32, 32), 4, 6), [0, 1], 64)],
], ids=["off a block", "half of one", "image", "between", "twice", "given back"])  # fmt: skip
def test_what_cannot_lie_there_is_copied(calls):
    assert len(_blocked(calls, len(calls) - 1).calls) == len(calls)


def test_a_part_of_two_concatenations_is_copied_into_the_second():
    calls = [
        (relu(32), [-1], 32), (relu(16), [-1], 16), (Concat((32, 16), 4, 6), [0, 1], 48),
        (Concat((16, 48), 4, 6), [1, 2], 64), (relu(64), [3], 64),
    ]  # fmt: skip
    assert len(_blocked(calls, 4).calls) == 4


def test_what_became_no_kernel_is_named():
    with pytest.raises(UserError, match="cannot lower it") as caught:
        plan_frame(module_of(lambda emit, x: emit(relax.op.cumsum(x, axis=1))))
    assert "cumsum" in str(caught.value)


def test_nothing_to_compute():
    with pytest.raises(UserError, match="gives back what it was given"):
        plan_frame(module_of(lambda emit, x: emit(relax.op.reshape(x, (1, 128)))))
