"""Whether a kernel in 8 bits is wrong: each layer of a network by itself, on onnxruntime's maps.

    python -m benchmarks.int8_layers
    python -m benchmarks.int8_layers --networks stdc1-seg --by onnxruntime --images black

A network of `hmseg.families` (random weights, calibrated batch norm) is quantised by us or by
onnxruntime's own tool, and its graph is cut at every map that lies in 8 bits. onnxruntime runs the
whole, node by node; each piece is compiled for this CPU, reads the maps that onnxruntime made,
and what it writes is compared with what onnxruntime writes. So no layer inherits the error of those
ahead of it. Values that are not the same may be one quantum off, and only where the value in
double precision is near the middle of two (`TIE`), which roundings of float32 decide. Exits with 1
where one is not.
"""

import argparse
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from benchmarks.gate import deployable, export
from deploy.cli.console import print_table, run_main
from deploy.cpu.pipeline import Compiled, compile_graph, make_kernels
from deploy.graph.export import import_file, read_metadata
from deploy.graph.float64 import evaluate
from deploy.graph.job import Job
from deploy.graph.reference import OnnxSession, with_outputs
from deploy.quantise.frames import Frames
from deploy.quantise.run import Options, quantise
from deploy.resolution import Resolution, parse_resolution
from deploy.street import draw_street
from deploy.targets import resolve_target
from deploy.verify import probe_images
from hmseg.data.normalise import MEAN, STD, planes
from lut.errors import WorkError

NETWORKS = ("bisenetv1-r18", "stdc1-seg")
BY = ("us", "onnxruntime")
SCORES = 1e-5  # of the largest: float32's sums of bytes
TIE = 0.02  # quanta from the middle of two: a bias in whole numbers moves a sum by less
_IMAGES = ("Transpose", "Cast", "Mul", "Add", "Sub", "Div", "QuantizeLinear", "DequantizeLinear")
_MOVES = ("QuantizeLinear", "DequantizeLinear", "Slice", "Reshape")


@dataclass(frozen=True)
class Piece:
    """What a graph computes from maps in 8 bits to the next one.

    `sources` are the maps that it reads, or the image; `target` is what it writes, both as what
    stands behind them reads them. `graph` is of one input: the one source, or all of them in a row.
    `value`, times 1 / `scale`, is what is rounded; the class scores are not, and have no scale.
    """

    sources: tuple[str, ...]
    target: str
    graph: onnx.ModelProto
    value: str
    scale: float = 0.0

    @property
    def operators(self) -> str:
        """Those that compute, in order."""
        kinds = [node.op_type for node in self.graph.graph.node]
        return " ".join(kind for kind in kinds if kind not in _MOVES)


@dataclass(frozen=True)
class Found:
    """How many values are not onnxruntime's, by how many quanta at most, and how far at most those
    values are from the middle of two, in quanta. For scores the unit is `SCORES` of the largest."""

    values: int
    off: int = 0
    most: int = 0
    from_tie: float = 0.0

    @property
    def right(self) -> bool:
        """Whether roundings explain it."""
        return self.most <= 1 and self.from_tie <= TIE

    def __or__(self, other: "Found") -> "Found":
        """Of both together."""
        return Found(
            self.values + other.values, self.off + other.off, max(self.most, other.most),
            max(self.from_tie, other.from_tie),
        )  # fmt: skip


def pieces_of(model: onnx.ModelProto) -> list[Piece]:
    """Those of a graph with pairs, in its order, which has one output; where nothing but a pair
    stands between two maps there is none. The image's own map is inside the pieces that read it, as
    the first convolution's kernel reads the image. A piece that reads maps, too, is left out."""
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    cut = _Cut(model.graph)
    found = []
    for node in model.graph.node:
        rounding = cut.makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            found.append(cut.piece(model, rounding.input[0], [rounding, node]))
    found.append(cut.piece(model, model.graph.output[0].name, []))
    return [piece for piece in found if piece is not None]


class _Cut:
    """A graph, looked at backwards from each map."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.values = {v.name: v for v in (*graph.value_info, *graph.input, *graph.output)}
        self._of_image = {value.name for value in graph.input}
        for node in graph.node:
            if node.op_type in _IMAGES and self._of_image.intersection(node.input):
                rest = {name for name in node.input if name} - self._of_image
                if rest <= set(self.constants):
                    self._of_image |= set(node.output)

    def piece(self, model: onnx.ModelProto, value: str, pair: list[onnx.NodeProto]) -> Piece | None:
        """Of what makes a tensor; `pair` stands behind it."""
        body, sources = self._body(value)
        whole = len(sources) > 1 and not set(sources) <= set(self.makers)
        if whole or value in self._of_image or all(n.op_type == "DequantizeLinear" for n in body):
            return None
        scale = numpy_helper.to_array(self.constants[pair[0].input[1]]).item() if pair else 0.0
        target = pair[-1].output[0] if pair else value
        graph = self._graph(model, sources, [*body, *pair], target)
        return Piece(tuple(sources), target, graph, value, scale)

    def _body(self, name: str) -> tuple[list[onnx.NodeProto], list[str]]:
        """The nodes that lead to a tensor from maps in 8 bits, in order, and those maps."""
        body: dict[str, onnx.NodeProto] = {}
        sources: dict[str, None] = {}

        def visit(name: str) -> None:
            node = self.makers.get(name)
            if not name or name in self.constants:
                return
            if node is None or self._is_map(node):
                sources[name] = None
            elif node.output[0] not in body:
                for given in node.input:
                    visit(given)
                body[node.output[0]] = node

        visit(name)
        return list(body.values()), list(sources)

    def _is_map(self, node: onnx.NodeProto) -> bool:
        if node.output[0] in self._of_image:
            return False
        return node.op_type == "DequantizeLinear" and node.input[0] not in self.constants

    def _graph(
        self, model: onnx.ModelProto, sources: list[str], body: list[onnx.NodeProto], target: str
    ) -> onnx.ModelProto:
        """Every source has its pair, so that its kernels read bytes."""
        nodes, constants, start = list[onnx.NodeProto](), list[TensorProto](), 0
        total = sum(math.prod(self._shape(name)) for name in sources)
        given = helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, total])
        for name in sources:
            if name not in self.makers:  # the image
                given = self.values[name]
                break
            read = "maps"
            if len(sources) == 1:
                given = helper.make_tensor_value_info("maps", TensorProto.FLOAT, self._shape(name))
            else:
                end = start + math.prod(self._shape(name))
                numbers = {"from": [start], "to": [end], "axis": [1], "shape": self._shape(name)}
                constants += [
                    numpy_helper.from_array(np.array(n, np.int64), f"{name}.{k}")
                    for k, n in numbers.items()
                ]
                row, read, start = f"{name}.row", f"{name}.map", end
                ends = [f"{name}.{key}" for key in ("from", "to", "axis")]
                nodes.append(helper.make_node("Slice", ["maps", *ends], [row]))
                nodes.append(helper.make_node("Reshape", [row, f"{name}.shape"], [read]))
            last = self.makers[name]
            grid, code = self.makers[last.input[0]].input[1:], f"{name}.code"
            nodes.append(helper.make_node("QuantizeLinear", [read, *grid], [code]))
            nodes.append(helper.make_node("DequantizeLinear", [code, *last.input[1:]], [name]))
            if any(node.op_type == "Concat" for node in body):
                nodes += _copied(nodes, name, self._shape(name), constants)
        nodes += body
        used = {name for node in nodes for name in node.input}
        constants += [tensor for tensor in self.constants.values() if tensor.name in used]
        end_of = helper.make_empty_tensor_value_info(target)
        graph = helper.make_graph(nodes, "piece", [given], [end_of], constants)
        whole = helper.make_model(
            graph, opset_imports=model.opset_import, ir_version=model.ir_version
        )
        return onnx.shape_inference.infer_shapes(whole, strict_mode=True, data_prop=True)

    def _shape(self, name: str) -> list[int]:
        return [axis.dim_value for axis in self.values[name].type.tensor_type.shape.dim]


def _copied(
    nodes: list[onnx.NodeProto], name: str, shape: list[int], constants: list[TensorProto]
) -> list[onnx.NodeProto]:
    """A layer of ones and zeros ahead of a map's name, and its pair once more: only behind a map
    that a kernel writes does a concatenation have one. The last two nodes are its pair."""
    first, last = nodes[-2:]
    inner, layer, code = f"{name}.given", f"{name}.copy", f"{name}.copied"
    last.output[0] = inner
    ones = np.eye(shape[1], dtype=np.float32)[:, :, None, None]
    constants.append(numpy_helper.from_array(ones, f"{name}.ones"))
    return [
        helper.make_node("Conv", [inner, f"{name}.ones"], [layer]),
        helper.make_node("QuantizeLinear", [layer, *first.input[1:]], [code]),
        helper.make_node("DequantizeLinear", [code, *last.input[1:]], [name]),
    ]


class Layers:
    """The pieces of a graph with pairs, compiled for this CPU one by one, beside onnxruntime."""

    def __init__(self, model: onnx.ModelProto, threads: int = 2) -> None:
        self.pieces = pieces_of(model)
        self._threads, names = threads, dict[str, None]()
        for piece in self.pieces:
            names |= dict.fromkeys((*piece.sources, piece.target))
        (self._image,) = (value.name for value in model.graph.input)
        names.pop(self._image, None)
        self._names = list(names)
        self._session = OnnxSession(with_outputs(model, self._names), optimised=False)

    def compare(self, images: Sequence[NDArray[Any]]) -> Iterator[tuple[Piece, Compiled, Found]]:
        """Each piece on the maps of every image; these have no batch axis."""
        runs = list[dict[str, NDArray[Any]]]()
        for image in images:
            found = self._session.run_batch(image[None], self._names)
            runs.append(dict(zip(self._names, found, strict=True)) | {self._image: image[None]})
        target = resolve_target("cpu", precision="int8")
        kernels = make_kernels(target, self._threads, {})
        for piece in self.pieces:
            compiled = compile_graph(Job(piece.graph, target, kernels))
            total = Found(0)
            with compiled.load() as library:
                for maps in runs:
                    given = _given(piece, maps)
                    got = library.run("main", given[0])
                    total |= compare(piece, given, got, maps[piece.target])
            yield piece, compiled, total


def _given(piece: Piece, maps: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What a piece's graph takes."""
    parts = [maps[name] for name in piece.sources]
    return parts[0] if len(parts) == 1 else np.concatenate([p.reshape(1, -1) for p in parts], 1)


def compare(piece: Piece, given: NDArray[Any], got: NDArray[Any], wanted: NDArray[Any]) -> Found:
    """What a piece made of `given`, beside what was wanted."""
    got = got.reshape(wanted.shape)
    scale = piece.scale or SCORES * np.abs(wanted).max()
    error = np.abs(got - wanted) / scale
    off = np.rint(error).astype(int) if piece.scale else np.floor(error).astype(int)
    if not off.any():
        return Found(off.size)
    if not piece.scale:
        return Found(off.size, int((off > 0).sum()), int(off.max()), math.inf)
    (value,) = evaluate(piece.graph, given, [piece.value])
    quanta = value[off > 0] / piece.scale
    from_tie = np.abs(quanta - np.floor(quanta) - 0.5).max()
    return Found(off.size, int((off > 0).sum()), int(off.max()), float(from_tie))


def quantised(name: str, by: str, size: Resolution, folder: Path) -> onnx.ModelProto:
    """A network's graph with pairs, from the image to the class scores, calibrated on a drawn
    street."""
    street = draw_street(size)
    if by == "us":
        graph = deployable(name, size, folder)
        frames = Frames.of_image(street, read_metadata(graph))
        return quantise(graph, frames, Options(gate=False)).graph
    plain, made = folder / "plain.onnx", folder / "quantised.onnx"
    export(name, size, plain)
    given = {onnx.load(plain).graph.input[0].name: planes(street, MEAN, STD)[None]}

    class Street(CalibrationDataReader):  # type: ignore[misc]
        left = iter([given])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.left, None)

    logging.disable(logging.WARNING)  # which asks for other steps before
    quantize_static(
        plain, made, Street(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return import_file(made, output="logits").graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--by", nargs="+", choices=BY, default=BY, help="who quantises")
    parser.add_argument("--size", type=parse_resolution, default=Resolution(128, 256))
    parser.add_argument("--images", nargs="+", help="of the gate's five (all of them)")
    options = parser.parse_args()
    wrong = []
    images = probe_images(options.size, draw_street(options.size))
    chosen = [images[name] for name in options.images or images]
    for name, by in product(options.networks, options.by):
        total, rows = Found(0), list[tuple[str, ...]]()
        with TemporaryDirectory() as folder:
            layers = Layers(quantised(name, by, options.size, Path(folder)))
        for piece, compiled, found in layers.compare(chosen):
            total |= found
            if not found.right:
                wrong.append(f"{name} by {by}: {piece.target}")
            if found.off:
                kernels = " ".join(info.template for info in compiled.kernels)
                rows.append((piece.target[-40:], piece.operators, kernels, str(found.off),
                             str(found.most), f"{found.from_tie:.4f}"))  # fmt: skip
        head = "writes", "operators", "kernels", "values off", "quanta", "from a tie"
        print_table(
            f"{name}, quantised by {by}: {len(layers.pieces)} layers, {total.off} of "
            f"{total.values} values off, by {total.most} at most, {total.from_tie:.4f} from a tie",
            head, rows,
        )  # fmt: skip
    if wrong:
        raise WorkError(f"wrong: {'; '.join(wrong)}")


if __name__ == "__main__":
    run_main(main)
