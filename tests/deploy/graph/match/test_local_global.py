import pytest

from lut.ops import LocalGlobal, Pointwise
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    kernels_of,
    max_error,
    operations_of,
    placed,
    placed_on_a_gpu,
)

SIZE, LOW = (10, 14), (5, 7)


class Head:
    """LGE, LCF and the fuse layer, value by value."""

    def __init__(
        self, *, gate=True, mid_act="relu6", act="relu6", low=LOW, swap=False, end=True, channels=40
    ):  # fmt: skip
        self.net = net = Net(16, *SIZE)
        coarse = net.conv(net.resize("x", *low), 40)
        local = net.depthwise("x", act="relu6")
        self.wide = self.gated = net.conv(local, 40)
        if gate:
            self.factor = net.sigmoid(net.conv(net.average(local), channels))
            order = (self.factor, self.wide) if swap else (self.wide, self.factor)
            self.gated = net.multiply(*order)
        self.up = net.resize(coarse, *SIZE)
        order = (self.up, self.gated) if swap else (self.gated, self.up)
        self.total = net.add(*order)
        self.middle = net.act(self.total, mid_act)
        self.end = net.conv(self.middle, 24, act=act) if end else self.middle


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"gate": False}, {"swap": True}, {"mid_act": "relu"}, {"low": (3, 9)}, {"act": "none"},
        {"mid_act": "sigmoid", "act": "sigmoid"},
    ],
    ids=str,
)  # fmt: skip
def test_lge_sum_and_fuse_layer_become_one_kernel(options, target):
    head = Head(**options)
    model = head.net.model(head.end)
    fields = {name: value for name, value in options.items() if name not in ("low", "swap")}
    expected = LocalGlobal(16, 40, 24, *SIZE, *options.get("low", LOW), **fields)
    assert placed(model)[-1] == expected
    kernels = kernels_of(model, target)
    assert kernels.count("local_global") == 1
    assert kernels.count("global_pool") == (1 if options.get("gate", True) else 0)
    assert operations_of(model, target).count("relax.multiply") == 0
    assert max_error(model, target) < 2e-4  # sums of up to 256 products


def test_a_gpu_has_its_parts():
    head = Head()
    found = placed_on_a_gpu(head.net.model(head.end))
    assert tuple(found[-2:]) == LocalGlobal(16, 40, 24, *SIZE, *LOW).parts()


@pytest.mark.parametrize("read", ["wide", "gated", "up", "total", "middle"])
def test_values_that_are_read_elsewhere_are_written(read):
    head = Head()
    model = head.net.model(head.end, head.net.depthwise(getattr(head, read)))
    assert not [op for op in placed(model) if isinstance(op, LocalGlobal) and op.gate]
    assert max_error(model, "x86-64-v3") < 2e-4


def test_a_gate_that_is_read_elsewhere_stays_one():
    head = Head()
    model = head.net.model(head.end, head.net.conv(head.factor, 8))
    assert placed(model)[-2] == LocalGlobal(16, 40, 24, *SIZE, *LOW)
    assert max_error(model, "x86-64-v3") < 2e-4


def test_without_an_activation_between_it_is_two_operations():
    head = Head(gate=False, mid_act="none")
    model = head.net.model(head.end)
    low = {"low_height": LOW[0], "low_width": LOW[1]}
    parts = [Pointwise(16, 40, *SIZE, add="low", **low), Pointwise(40, 24, *SIZE, "relu6")]
    assert placed_on_a_gpu(model)[-2:] == parts
    assert not [op for op in placed(model) if isinstance(op, LocalGlobal)]
    assert max_error(model, "x86-64-v3") < 2e-4


def test_one_value_for_all_channels_is_no_gate():
    head = Head(channels=1)
    model = head.net.model(head.end)
    assert not [op for op in placed(model) if isinstance(op, LocalGlobal)]
    assert operations_of(model, "x86-64-v3").count("relax.multiply") == 1
    assert max_error(model, "x86-64-v3") < 2e-4
