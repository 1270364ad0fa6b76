"""How far networks computed in a low precision lie from float32, and whether the gate tells that
from a wrong kernel: the figures of docs/decisions/0068-bf16.md.

    python -m benchmarks.low_precision
    python -m benchmarks.low_precision --networks tiny-hmseg erfnet --wrong 8 --output FILE

Each network (of `hmseg.families`, random weights and calibrated batch norm; of the zoo, released
weights where there are, else random ones) is compiled for this CPU and run on the five images of
the gate. Its class scores are compared
with what is expected in float32, by the root mean square of the error and the largest: in the noise
that the rounding of maps makes in onnxruntime, and in u of the scores, the most that one rounding
changes a number by; its labels, all of them and those that are no tie. Beside it, what a
wrong kernel gives, in onnxruntime and float32: of a convolution, drawn at random, the padding moved
by one pixel, two halves of the outputs exchanged, or the bias left out; an activation left out; a
Resize of another mode. A line of JSON for each network goes to --output. Exits with 1 where a right
network was refused.
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.gate import changed_resizes, compiled, deployable
from deploy import host
from deploy.cli.console import run_main
from deploy.graph.expected import Expectations, Expected
from deploy.graph.reference import OnnxSession
from deploy.noise import Deviation
from deploy.precision import PRECISIONS, Precision
from deploy.resolution import Resolution, parse_resolution
from deploy.street import draw_street
from deploy.verify import compare, probe_images
from lut.errors import WorkError
from lut.jsonl import append_record

NETWORKS = (
    "tiny-hmseg", "tiny-mrms", "mrms", "erfnet", "bisenetv1-r18", "bisenetv2", "stdc1-seg",
    "ddrnet-23-slim", "pidnet-s", "pp-liteseg-t", "hrnet-w18-small", "unet", "icnet",
    "swiftnet-r18", "enet", "dabnet", "fast-scnn", "deeplabv3plus-mobilenet-v2", "dfanet-a",
    "lraspp-mobilenet-v3-large", "efficientnet-b0-unet", "segformer-b0", "topformer-b",
    "convnext-atto",
)  # fmt: skip
_ACTIVATIONS = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "PRelu", "LeakyRelu"}


def wrong_kernels(
    graph: onnx.ModelProto, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """`count` graphs in which a node does something else, and each Resize in another mode."""
    nodes = list(graph.graph.node)
    constants = {tensor.name for tensor in graph.graph.initializer}
    convolutions = [
        i for i, n in enumerate(nodes) if n.op_type == "Conv" and n.input[1] in constants
    ]
    activations = [i for i, n in enumerate(nodes) if n.op_type in _ACTIVATIONS]
    for number in range(count):
        kind = number % 4
        if kind == 3 and not activations:
            continue
        index = int(rng.choice(activations if kind == 3 else convolutions))
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        how = (_move, _exchange, _unbias, _skip)[kind](copy, index)
        if how:
            yield f"{how}, {nodes[index].name or nodes[index].output[0]}", copy
    yield from changed_resizes(graph)


def _move(graph: onnx.ModelProto, index: int) -> str:
    """The window one pixel further left and up."""
    pads = next((a for a in graph.graph.node[index].attribute if a.name == "pads"), None)
    if pads is None or min(pads.ints) < 1:
        return ""
    top, left, bottom, right = pads.ints
    pads.ints[:] = [top + 1, left + 1, bottom - 1, right - 1]
    return "padding moved"


def _exchange(graph: onnx.ModelProto, index: int) -> str:
    """The outputs' halves in the other's place."""
    return (
        _change(graph, index, 1, lambda w: np.roll(w, len(w) // 2, axis=0)) and "halves exchanged"
    )


def _unbias(graph: onnx.ModelProto, index: int) -> str:
    if len(graph.graph.node[index].input) < 3:
        return ""
    return _change(graph, index, 2, np.zeros_like) and "no bias"


def _change(graph: onnx.ModelProto, index: int, operand: int, how: Any) -> bool:
    name = graph.graph.node[index].input[operand]
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            values = np.ascontiguousarray(how(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return True
    return False


def _skip(graph: onnx.ModelProto, index: int) -> str:
    node = graph.graph.node[index]
    kind, given, made = node.op_type, node.input[0], node.output[0]
    node.CopyFrom(onnx.helper.make_node("Identity", [given], [made], name=node.name))
    return f"no {kind}"


def judge(
    outputs: list[NDArray[np.float32]], expected: dict[str, Expected], precision: Precision
) -> dict[str, Any]:
    """Of each image the errors, root mean square and largest, in the noise and in u of the scores;
    the worst of the labels, and the gate's verdict."""
    times, shares, rows = {}, {}, []
    for (image, wanted), found in zip(expected.items(), outputs, strict=True):
        error = Deviation.between(found, wanted.scores)
        times[image] = _pair(error.over(wanted.noise))
        shares[image] = _pair(error.over(Deviation.size(wanted.scores)) * (1 / precision.unit))
        rows.append(compare("", image, wanted, found.argmax(0), found, precision))
    return {
        "of_noise": times,
        "in_u": shares,
        "labels_differing": max(row.differing_share for row in rows),
        "labels_unexplained": max(row.unexplained_share for row in rows),
        "passed": all(row.passed for row in rows),
    }


def _pair(error: Deviation) -> list[float]:
    return [round(error.rms, 2), round(error.largest, 2)]


def worst(row: dict[str, Any], unit: str, statistic: int) -> float:
    """Over the images, of a judgement."""
    return float(max(values[statistic] for values in row[unit].values()))


def measure(name: str, precision: Precision, size: Resolution, wrong: int, folder: Path) -> Any:
    """The record of one network."""
    graph = deployable(name, size, folder, released=True)
    images = probe_images(size, draw_street(size))
    expectations = Expectations(graph, images, maps=precision.maps)
    expected = {image: expectations[image] for image in images}
    right = judge(compiled(graph, images, precision.name), expected, precision)
    rows = []
    for change, changed in wrong_kernels(graph, wrong, np.random.default_rng(0)):
        session = OnnxSession(changed)
        found = judge([session.run(i)[0] for i in images.values()], expected, precision)
        rows.append({"change": change} | found)
    return {
        "network": name, "precision": precision.name, "size": str(size), "right": right,
        "wrong": rows, "machine": host.cpu_model(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {tool: version(tool) for tool in ("torch", "onnxruntime", "apache-tvm")},
    }  # fmt: skip


def line(record: dict[str, Any]) -> str:
    """One row."""
    right, wrong = record["right"], record["wrong"]
    refused = sum(not row["passed"] for row in wrong)
    return (
        f"{record['network']:<28}{worst(right, 'in_u', 0):>8.1f}"
        f"{worst(right, 'of_noise', 0):>8.2f}{worst(right, 'of_noise', 1):>8.2f}"
        f"{right['labels_differing']:>10.3%}{right['labels_unexplained']:>10.3%}"
        f"{'  accepted' if right['passed'] else '  REFUSED '}{refused:>5} of {len(wrong)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument(
        "--precision", default="bf16", choices=[p for p in PRECISIONS if p != "fp32"]
    )
    parser.add_argument("--size", type=parse_resolution, default=Resolution(128, 256))
    parser.add_argument("--wrong", type=int, default=8, help="graphs with a wrong node")
    parser.add_argument("--output", type=Path, help="a line of JSON for each network")
    options = parser.parse_args()
    precision, refused = PRECISIONS[options.precision], []
    print(
        f"{'network':<28}{'rms, u':>8}{'/ noise':>8}{'largest':>8}{'labels':>10}{'no ties':>10}"
        "  the gate  wrong refused"
    )
    with TemporaryDirectory() as folder:
        for name in options.networks:
            record = measure(name, precision, options.size, options.wrong, Path(folder))
            print(line(record), flush=True)
            if options.output:
                append_record(options.output, record)
            if not record["right"]["passed"]:
                refused.append(name)
    if refused:
        raise WorkError(f"refused: {', '.join(refused)}")


if __name__ == "__main__":
    run_main(main)
