"""Writes a graph with pairs of QuantizeLinear and DequantizeLinear."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.grid import Grid
from deploy.quantise.places import Layer, Places, is_free
from deploy.quantise.scales import quantise_bias, quantise_weights
from deploy.quantise.wiring import Wiring

_PREFIX = "hmseg_q_"  # of the names that the pairs add to a graph


def with_pairs(
    model: onnx.ModelProto, places: Places, grids: Mapping[str, Grid]
) -> onnx.ModelProto:
    """A copy of a float graph in which each map of `places` is rounded to its grid, uint8, and each
    layer's weights are int8 with a scale for each output channel, its bias int32; of layers of
    means the weights alone.

    A Relu or Clip that its output's grid does the work of is left away. Weights that several layers
    read are written once for each.
    """
    wiring = Wiring(model.graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    writer = _Writer(copy.graph, wiring, places, grids)
    writer.write()
    onnx.checker.check_model(copy)
    return copy


class _Writer:
    def __init__(
        self, graph: onnx.GraphProto, wiring: Wiring, places: Places, grids: Mapping[str, Grid]
    ) -> None:
        self._graph, self._wiring, self._places, self._grids = graph, wiring, places, grids
        self._nodes = list(graph.node)  # of the copy: they are changed
        self._behind: dict[int | None, list[onnx.NodeProto]] = {}  # what comes after a node
        self._in_front: dict[int, list[onnx.NodeProto]] = {}
        self._removed = {
            maker
            for name in places.maps
            if (maker := wiring.maker(name)) in places.free
            and maker is not None
            and is_free(wiring.nodes[maker], wiring, grids[name].scale, grids[name].zero)
        }

    def write(self) -> None:
        for name in self._places.maps:
            # What only goes through a Relu that is left away is rounded once, behind it.
            if not self._removed.issuperset(self._places.readers[name]):
                self._pair(name)
        for layer in self._places.layers:
            self._weigh(layer)
        for layer in self._places.means:
            self._weigh_alone(layer)
        nodes = list(self._behind.get(None, ()))
        for number, node in enumerate(self._nodes):
            nodes += self._in_front.get(number, ())
            if number not in self._removed:
                nodes.append(node)
            nodes += self._behind.get(number, ())
        written = [_copied(node) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(written)
        self._drop_unread()

    def _pair(self, name: str) -> None:
        grid, source = self._grids[name], name
        maker = self._wiring.maker(name)
        if maker is not None and maker in self._removed:
            source = self._wiring.nodes[maker].input[0]
        scale = self._constant(f"{name}_scale", np.array(grid.scale, np.float32))
        zero = self._constant(f"{name}_zero_point", np.array(grid.zero, np.uint8))
        stored, read = f"{_PREFIX}{name}", f"{_PREFIX}{name}_float"
        self._behind.setdefault(maker, []).extend([
            _node("QuantizeLinear", [source, scale, zero], stored),
            _node("DequantizeLinear", [stored, scale, zero], read),
        ])  # fmt: skip
        for number in (*self._places.readers[name], *self._saturating(name)):
            inputs = self._nodes[number].input
            for index, given in enumerate(inputs):
                if given == name:
                    inputs[index] = read

    def _saturating(self, name: str) -> list[int]:
        """Relu and Clip nodes that stay and read a map which others read in 8 bits: of what is in
        memory, as a kernel does."""
        wiring = self._wiring
        return [
            number
            for number in wiring.readers(name)
            if number not in self._places.free and wiring.bounds(wiring.nodes[number]) is not None
        ]

    def _weigh(self, layer: Layer) -> None:
        node, original = self._nodes[layer.number], self._wiring.nodes[layer.number]
        weight = self._wiring.constant(original.input[1])
        assert weight is not None
        bias_name = original.input[2] if len(original.input) > 2 else ""
        bias = self._wiring.constant(bias_name) if bias_name else None
        input_scale = self._grids[original.input[0]].scale
        stored, scale = quantise_weights(weight, layer.axis, bias, input_scale)
        name = f"{layer.number}_weight"
        node.input[1] = self._dequantised(layer, name, stored, scale, layer.axis)
        if bias is not None:
            whole, unit = quantise_bias(bias, input_scale, scale)
            node.input[2] = self._dequantised(layer, f"{layer.number}_bias", whole, unit, 0)

    def _weigh_alone(self, layer: Layer) -> None:
        weight = self._wiring.constant(self._nodes[layer.number].input[1])
        assert weight is not None
        stored, scale = quantise_weights(weight, layer.axis, None, 1.0)
        name = self._dequantised(layer, f"{layer.number}_weight", stored, scale, layer.axis)
        self._nodes[layer.number].input[1] = name

    def _dequantised(
        self, layer: Layer, name: str, stored: NDArray[np.integer], scale: NDArray[np.float32],
        axis: int,
    ) -> str:  # fmt: skip
        inputs = [
            self._constant(name, stored),
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero_point", np.zeros(scale.shape, stored.dtype)),
        ]
        read = f"{_PREFIX}{name}_float"
        node = _node("DequantizeLinear", inputs, read, axis=axis)
        self._in_front.setdefault(layer.number, []).append(node)
        return read

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        full = f"{_PREFIX}{name}"
        self._graph.initializer.append(numpy_helper.from_array(value, full))
        return full

    def _drop_unread(self) -> None:
        """Weights that no node reads any more, and the sizes of what is not made any more."""
        read = {name for node in self._graph.node for name in node.input}
        made = {name for node in self._graph.node for name in node.output}
        for tensors, needed in ((self._graph.initializer, read), (self._graph.value_info, made)):
            kept = [tensor for tensor in tensors if tensor.name in needed]
            del tensors[:]
            tensors.extend(kept)


def _node(op: str, inputs: list[str], output: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"{output}_{op}", **attributes)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    """Apart from the graph that it is taken out of."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
