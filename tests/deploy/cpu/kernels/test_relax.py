"""The PrimFuncs inside a Relax function: one call_tir after the other, one virtual machine."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax

from deploy.cpu import layout
from deploy.cpu.kernels import emit, module_of, pointwise, resize
from lut.ops import Labels, Pointwise, Resize

from .helpers import ISAS, normal, target


def tensor_type(array_or_shape, dtype="float32"):
    return relax.TensorType(array_or_shape, dtype)


@pytest.mark.parametrize("isa", ISAS)
def test_chain_in_a_virtual_machine(isa):
    convolve = Pointwise(10, 7, 6, 9, "relu6")
    shrink = Resize(7, 6, 9, 3, 4)
    end = Labels(7, 3, 4, 24, 32)
    w, b, image = normal(1, 7, 10), normal(2, 7), normal(3, 1, 10, 6, 9)
    steps = [
        (convolve, pointwise.pack(convolve, isa, w, b), layout.activation_shape(isa, 7, 6, 9)),
        (shrink, resize.pack(shrink, isa), layout.activation_shape(isa, 7, 3, 4)),
        (end, module_of(end).pack(end, isa), (1, 24, 32)),
    ]
    builder = relax.BlockBuilder()
    x = relax.Var("x", tensor_type(layout.activation_shape(isa, 10, 6, 9)))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = x
            for i, (op, constants, shape) in enumerate(steps):
                func = builder.add_func(emit(op, isa), f"kernel_{i}")
                args = [y, *(relax.const(c) for c in constants)]
                out = tensor_type(shape, "uint8" if op is end else "float32")
                y = builder.emit(relax.call_tir(func, args, out_ty=out))
            result = builder.emit_output(y)
        builder.emit_func_output(result)
    library = tvm.compile(builder.get(), target=target(isa))
    machine = relax.VirtualMachine(library, tvm.cpu())
    labels = machine["main"](tvm.runtime.tensor(layout.pack_activation(isa, image))).numpy()
    h = F.relu6(F.conv2d(*(torch.from_numpy(a) for a in (image, w[:, :, None, None], b))))
    for size in ((3, 4), (24, 32)):
        h = F.interpolate(h, size, mode="bilinear", align_corners=False)
    assert (labels != h.argmax(1).numpy()).mean() < 0.01
    assert np.unique(labels).size > 1
