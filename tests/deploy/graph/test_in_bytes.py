"""Graphs with pairs on this CPU: what is computed in 8 bits; numbers beside onnxruntime's."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from deploy.cpu.pipeline import compile_graph, lower_graph, make_kernels
from deploy.graph.job import Job
from deploy.graph.place import OPERATION
from deploy.graph.reference import OnnxSession
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import find_places
from deploy.quantise.scales import Range, grid_of
from deploy.quantise.wiring import Wiring
from deploy.targets import resolve_target
from lut.ops import GlobalPool, InvertedResidual, Operation, Pointwise, dtype_of, parse_operation
from tests.deploy.quantise.maps import conv, graph_of, node

INT8 = resolve_target("cpu", precision="int8")
RANGE, RELU6 = Range(-4, 4), Range(0, 6)


def quantised(model: onnx.ModelProto, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    places = find_places(Wiring(model.graph), keep)
    ranges = {name: RELU6 if name in ("f", "g") else RANGE for name in places.maps}
    return with_pairs(model, places, {name: grid_of(found) for name, found in ranges.items()})


def block(residual: bool = True) -> onnx.ModelProto:
    """1x1, ReLU6, depthwise, ReLU6, 1x1[, residual sum], 1x1 to scores."""
    nodes = [
        conv("x", "e"), node("Clip", "e zero six", "f"), conv("f", "d", 3, group=4),
        node("Clip", "d zero six", "g"), conv("g", "p" if residual else "s"),
        *([node("Add", "p x", "s")] if residual else []), conv("s", "y"),
    ]  # fmt: skip
    return graph_of(nodes, ["y"])


def job(model: onnx.ModelProto, precision: str = "int8") -> Job:
    target = resolve_target("cpu", precision=precision)
    return Job(model, target, make_kernels(target, 2, {}))


def operations(model: onnx.ModelProto, precision: str = "int8") -> list[Operation]:
    module = lower_graph(job(model, precision))
    texts = [str(f.attrs[OPERATION]) for f in module.functions.values() if OPERATION in f.attrs]
    return [parse_operation(text) for text in texts if not text.startswith("tvm:")]


def off_by(model: onnx.ModelProto, quantum: float) -> np.ndarray:
    """How many quanta each output is from onnxruntime's, node by node as the file is written."""
    x = np.random.default_rng(5).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    wanted = OnnxSession(model, optimised=False).run_batch(x)[0]
    with compile_graph(job(model)).load() as library:
        got = library.run("main", x[0])
    return np.abs(got.reshape(wanted.shape) - wanted) / quantum


@pytest.mark.parametrize("residual", [True, False])
def test_a_block_is_one_kernel_in_bytes(residual: bool) -> None:
    found = operations(quantised(block(residual)))
    blocks = [op for op in found if isinstance(op, InvertedResidual)]
    assert [dtype_of(op) for op in blocks] == ["int8"]
    assert [op.act for op in blocks] == ["none"]  # which saturation does


def test_scores_stay_wide() -> None:
    (scores,) = [op for op in operations(quantised(block())) if isinstance(op, Pointwise)]
    assert scores.dtype == "int8"
    assert scores.wide


def with_context(mean: str = "GlobalAveragePool") -> onnx.ModelProto:
    """3x3, and 1x1 of that and, as a gate, of its mean."""
    nodes = [
        conv("x", "e", 3), node("Relu", "e", "f"), node(mean, "f", "m"), conv("m", "c"),
        node("Sigmoid", "c", "a"), conv("f", "d", 3), node("Mul", "d a", "s"), conv("s", "y"),
    ]  # fmt: skip
    return graph_of(nodes, ["y"])


def test_of_a_mean_the_weights_alone_are_in_bytes() -> None:
    """A file whose weights have no grid, such as one of quantised training, keeps them."""
    model = quantised(with_context())
    assert GlobalPool(4, 4, 8, 8, "sigmoid", "int8", real=True) in operations(model)
    off = off_by(model, 8 / 255)
    assert off.max() < 4
    assert (off > 1e-2).mean() < 0.02
    places = replace(find_places(Wiring(with_context().graph)), means=())
    wide = with_pairs(with_context(), places, {n: grid_of(RANGE) for n in places.maps})
    assert GlobalPool(4, 4, 8, 8, "sigmoid") in operations(wide)


def test_without_the_precision_pairs_are_computed_as_written() -> None:
    assert all(dtype_of(op) == "float32" for op in operations(quantised(block()), "fp32"))


def test_a_layer_that_is_kept_is_wide_and_its_neighbours_are_not() -> None:
    found = operations(quantised(block(), keep=("p",)))
    kinds = {dtype_of(op) for op in found if isinstance(op, Pointwise | InvertedResidual)}
    assert kinds == {"float32", "int8"}


@pytest.mark.parametrize("keep", [(), ("p",), ("d",)])
@pytest.mark.parametrize("residual", [True, False])
def test_numbers_are_onnxruntimes(residual: bool, keep: tuple[str, ...]) -> None:
    """The last layer's weights are of about 1: a quantum of what it reads is one of its own."""
    model = quantised(block(residual), keep)
    off = off_by(model, 8 / 255)
    assert off.max() < 4
    assert (off > 1e-2).mean() < 0.02  # but for ties of roundings


def tokens(*between: onnx.NodeProto) -> onnx.ModelProto:
    """1x1, then products on tokens (1, 64, 4) with a sum of both ends, and back to scores."""
    rng = np.random.default_rng(7)
    nodes = [
        conv("x", "e", 3), node("Reshape", "e flat", "f"),
        node("Transpose", "f", "t", perm=[0, 2, 1]), *between,
        node("MatMul", "n w1", "h"), node("Relu", "h", "g"), node("MatMul", "g w2", "p"),
        node("Add", "p t", "s"), node("Transpose", "s", "b", perm=[0, 2, 1]),
        node("Reshape", "b back", "m"), conv("m", "y"),
    ]  # fmt: skip
    return graph_of(nodes, ["y"], {
        "flat": np.array([1, 4, 64], np.int64), "back": np.array([1, 4, 8, 8], np.int64),
        "w1": rng.normal(0, 0.5, (4, 8)).astype(np.float32),
        "w2": rng.normal(0, 0.5, (8, 4)).astype(np.float32),
        "factors": np.ones(4, np.float32),
    })  # fmt: skip


def test_products_of_tokens_are_layers_in_bytes() -> None:
    """What they are marked with goes with them onto maps; a layer norm between stays float32. Of
    two marks with nothing but moves between each counts: one grid has no numbers below zero."""
    norm = node("LayerNormalization", "t factors", "n", axis=-1)
    model = quantised(tokens(norm))
    found = [op for op in operations(model) if op.macs]
    assert [dtype_of(op) for op in found] == ["int8"] * 4
    off = off_by(model, 8 / 255)
    assert off.max() < 6
    assert (off > 1e-2).mean() < 0.03


def test_numbers_that_stay_tokens_are_rounded_as_they_lie() -> None:
    """Behind an operator that has no map (a sum along the tokens before each) nothing is in 8 bits,
    and every pair is kept."""
    run = [node("CumSum", "t along", "c"), node("Mul", "c small", "n")]
    model = tokens(*run)
    for name, value in (("along", np.int64(1)), ("small", np.float32(1 / 16))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    off = off_by(quantised(model), 8 / 255)
    assert off.max() < 6
    assert (off > 1e-2).mean() < 0.03


def test_a_window_over_concatenated_maps_is_a_layer_in_bytes() -> None:
    """As U-Nets have it: the maps are moved together, which 8-bit kernels read."""
    wide = np.random.default_rng(3).normal(0, 0.2, (4, 8, 3, 3)).astype(np.float32)
    nodes = [
        conv("x", "a"), conv("x", "b", 3), node("Concat", "a b", "c", axis=1),
        node("Conv", "c wide", "d", pads=[1] * 4), conv("d", "y"),
    ]  # fmt: skip
    model = quantised(graph_of(nodes, ["y"], {"wide": wide}))
    found = [op for op in operations(model) if op.macs]
    assert [dtype_of(op) for op in found] == ["int8"] * 4
    off = off_by(model, 8 / 255)
    assert off.max() < 4
    assert (off > 1e-2).mean() < 0.02


def test_a_depthwise_layer_whose_sum_is_read_wide_is_wide() -> None:
    """As positions that are added to tokens in front of a layer norm: in 8 bits it writes bytes."""
    nodes = [
        conv("x", "a"), conv("a", "d", 3, group=4), node("Add", "d a", "s"),
        node("Softmax", "s", "n", axis=1), conv("n", "y"),
    ]  # fmt: skip
    model = quantised(graph_of(nodes, ["y"]))
    layers = [op for op in operations(model) if "groups=4" in str(op)]
    assert [dtype_of(op) for op in layers] == ["float32"]
    assert off_by(model, 8 / 255).max() < 4


def test_pairs_without_a_kernel_are_rounded_all_the_same() -> None:
    """Not even the output's pair is lost where nothing is placed."""
    nodes = [node("Concat", "x x", "y", axis=3)]
    graph = graph_of([*nodes, *pair("y", "z")], ["z"], {"y_scale": np.float32(0.5),
                     "y_zero": np.uint8(100)})  # fmt: skip
    assert {op.kind for op in operations(graph)} == {"convert"}
    assert off_by(graph, 0.5).max() == 0


def pair(name: str, output: str) -> list[onnx.NodeProto]:
    grid = f"{name}_scale {name}_zero"
    return [
        node("QuantizeLinear", f"{name} {grid}", f"{name}_code"),
        node("DequantizeLinear", f"{name}_code {grid}", output),
    ]
