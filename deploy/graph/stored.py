"""What pairs of QuantizeLinear and DequantizeLinear say: a map lies in memory in bytes.

`mark_stored` makes one node of each pair, whose float output is its input (rounded to a grid,
which kernels do as they write); the importer takes it for a call that nothing looks through, and
`take_grids` makes a note of it instead when kernels are placed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx
import tvm
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tvm import relax

from deploy.graph.view import Graph, shape_of
from deploy.grid import Grid
from lut.errors import UserError

_Proto = TypeVar("_Proto", onnx.NodeProto, onnx.TensorProto)
DOMAIN, STORED = "hmseg", "Stored"  # of the node that stands for a pair
FUNCTION = "hmseg.stored"  # of the call that the node becomes
_SIGNED = 128  # between the zero point of an int8 map and that of the same map in uint8
_PRODUCTS = ("relax.nn.conv2d", "relax.nn.conv2d_transpose")


def has_pairs(model: onnx.ModelProto) -> bool:
    """Whether a map of a graph goes through 8 bits."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def mark_stored(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one `Stored` node (map, scale, zero point) for each pair on a map, and floats in
    the place of constants in 8 or 32 bits. Raises UserError, which names the node, for pairs that
    are not of 8 bits with one scale for the map."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    grids: dict[str, Grid] = {}  # of maps, by name
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        maker = makers.get(node.input[0])
        if node.input[0] in constants:
            graph.initializer.append(_dequantised(node, constants))
        elif maker is not None and maker.op_type == "QuantizeLinear":
            grid = _grid_of(maker, constants)
            if grid != _grid_of(node, constants):
                raise UserError(
                    f"{node.name or node.output[0]}: a map is written with one scale and read with "
                    "another; quantise the network anew"
                )
            if grids.setdefault(maker.input[0], grid) != grid:
                raise UserError(
                    f"{maker.name or maker.output[0]}: a map that has another scale already; "
                    "quantise the network anew, with one scale for each map"
                )
            nodes.append(_stored(maker.input[0], node.output[0], grid, graph))
        else:
            nodes.append(node)
    kept = _copies(_without_unread(nodes, graph))
    del graph.node[:]
    graph.node.extend(kept)
    copy.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return copy


def _stored(name: str, output: str, grid: Grid, graph: onnx.GraphProto) -> onnx.NodeProto:
    values = np.float32(grid.scale), np.float32(grid.zero)
    names = [f"{output}_grid_{i}" for i in range(len(values))]
    for value, constant in zip(values, names, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(value), constant))
    return helper.make_node(STORED, [name, *names], [output], f"{output}_stored", domain=DOMAIN)


def _grid_of(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Grid:
    """Of a QuantizeLinear or DequantizeLinear on a map."""
    where = node.name or node.output[0]
    if node.input[1] not in constants:
        raise UserError(f"{where}: its scale is no constant; quantise the network statically")
    scale = numpy_helper.to_array(constants[node.input[1]])
    zero = np.zeros(1, np.uint8)
    if len(node.input) > 2 and node.input[2]:
        zero = numpy_helper.to_array(constants[node.input[2]])
    if zero.dtype not in (np.uint8, np.int8) or scale.size != 1:
        raise UserError(
            f"{where}: a map in {zero.dtype.name} with {scale.size} scales is not supported; "
            "quantise maps to 8 bits with one scale each"
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise UserError(f"{where}: a scale of {scale.item():g}; quantise the network anew")
    return Grid(float(scale.item()), int(zero.item()) + (_SIGNED if zero.dtype == np.int8 else 0))


def _dequantised(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> onnx.TensorProto:
    """A constant as floats, under the name of the node's output."""
    given = [numpy_helper.to_array(constants[name]) for name in node.input if name]
    value, scale = given[0].astype(np.float64), given[1].astype(np.float64)
    zero = given[2].astype(np.float64) if len(given) > 2 else np.zeros(1)
    if scale.size > 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if i == axis % value.ndim else 1 for i in range(value.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    return numpy_helper.from_array(((value - zero) * scale).astype(np.float32), node.output[0])


def _without_unread(nodes: list[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes without QuantizeLinear that nothing reads any more; constants without readers go,
    too."""
    read = {name for node in nodes for name in node.input} | {info.name for info in graph.output}
    kept = [n for n in nodes if n.op_type != "QuantizeLinear" or read.intersection(n.output)]
    read = {name for node in kept for name in node.input} | {info.name for info in graph.output}
    copies = _copies([tensor for tensor in graph.initializer if tensor.name in read])
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return kept


def _copies(protos: Sequence[_Proto]) -> list[_Proto]:
    """Apart from the graph, whose own list is emptied next."""
    return [type(proto).FromString(proto.SerializeToString()) for proto in protos]


def take_grids(module: tvm.IRModule) -> tuple[tvm.IRModule, dict[relax.Var, Grid]]:
    """The module without calls of `FUNCTION`, and the grids of the maps that they were on.

    Where the smallest number of a map's grid is zero, and nothing ahead of it says that it has no
    smaller ones, an activation is put there that the bytes do the work of: a ReLU6 behind a sum of
    maps that does not go beyond 6, and behind every sum of products if none does, else a ReLU.
    """
    graph = Graph(module["main"])
    found = {var: grid for var in graph.vars if (grid := marked(graph, var)) is not None}
    if not found:
        return module, {}
    low = [var for var, grid in found.items() if grid.zero == 0]
    products = [var for var in low if _is_sum_of_products(graph, _source(graph, var))]
    added = [v for v in low if graph.call(_source(graph, v), "relax.add") is not None]
    sums = [var for var in added if var not in products]
    # Two layers of a block have the same activation, whatever the ranges of their maps.
    rectified = dict.fromkeys(products, _rectifier(found[var] for var in products))
    rectified |= {var: _rectifier([found[var]]) for var in sums}
    taker = _Taker(module, graph, found, rectified)
    function = taker.visit_expr(module["main"])
    taker.builder_.update_func(module.get_global_var("main"), function)
    return taker.builder_.get(), taker.grids


def _rectifier(grids: Iterable[Grid]) -> str:
    return "relu6" if all(grid.within_six for grid in grids) else "relu"


def _is_sum_of_products(graph: Graph, var: relax.Var) -> bool:
    """Whether a value is a sum of products, its bias added."""
    biased = graph.call(var, "relax.add")
    if biased is not None and graph.constant(biased.args[1]) is not None:
        var = biased.args[0]
    return graph.call(var, *_PRODUCTS) is not None


def marked(graph: Graph, var: relax.Var) -> Grid | None:
    """The grid that a value is marked with, if it is such a call."""
    call = graph.call(var, "relax.call_pure_packed")
    if call is None or str(call.args[0].global_symbol) != FUNCTION:
        return None
    scale, zero = (graph.constant(argument) for argument in call.args[2:4])
    assert scale is not None
    assert zero is not None
    return Grid(float(scale.item()), int(zero.item()))


def with_mark(call: relax.Call, value: relax.Expr) -> relax.Call:
    """Another value with the mark of a call."""
    return relax.op.call_pure_packed(FUNCTION, value, *call.args[2:], ty_args=value.ty)


def _source(graph: Graph, var: relax.Var) -> relax.Var:
    source: relax.Var = graph.definition(var).args[1]
    return source


@relax.expr_functor.mutator
class _Taker(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(
        self,
        module: tvm.IRModule,
        graph: Graph,
        found: Mapping[relax.Var, Grid],
        rectified: Mapping[relax.Var, str],
    ) -> None:
        super().__init__(module)
        self.graph, self.found, self.rectified = graph, found, rectified
        self.grids: dict[relax.Var, Grid] = {}
        self.taken: dict[relax.Var, relax.Expr] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        grid = self.found.get(binding.var)
        if grid is None:
            super().visit_var_binding_(binding)
            return
        source = _source(self.graph, binding.var)
        value = self.visit_expr(source)
        if binding.var in self.rectified:
            if source not in self.taken:  # one map may have several readers, each with its mark
                rectify = getattr(relax.op.nn, self.rectified[binding.var])
                self.taken[source] = self.builder_.emit(rectify(value))
            value = self.taken[source]
        if self.grids.get(value, grid) != grid:  # rounded twice: two values, one behind the other
            value = self.builder_.emit(relax.op.reshape(value, shape_of(value)))
        self.grids[value] = grid
        self.set_var_remap(binding.var, value)


def codes_of(
    weight: NDArray[np.float32], axis: int = 0
) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Weights as int8, and the scale (O,) of each channel along `axis`, where every one is a whole
    number of at most 127 times a number of its channel's; else None.

    A file's own scale is found again from the largest weight, which is some whole number of them;
    where smaller numbers do as well, the numbers mean the same.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    most = np.abs(rows).max(1)
    scales = np.zeros(len(rows))
    scales[most == 0] = 1.0
    for whole in range(127, 0, -1):
        todo = scales == 0
        if not todo.any():
            break
        candidates = most[todo] / whole
        ratio = rows[todo] / candidates[:, None]
        fits = np.abs(ratio - np.rint(ratio)).max(1) < _NEAR
        scales[np.flatnonzero(todo)[fits]] = candidates[fits]
    if (scales == 0).any():
        return None
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    codes = np.rint(weight / scales.reshape(shape)).astype(np.int8)
    return codes, scales.astype(np.float32)


_NEAR = 1e-4  # of a whole number: float32 rounds 127 quanta by 1e-5 of one
