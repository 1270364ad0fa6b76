"""What the parity gate says of networks that are right, and of ones that are wrong on purpose.

    python -m benchmarks.gate
    python -m benchmarks.gate --networks erfnet tiny-hmseg --compile --weights 20 --scales 1 1e-5

Each network (of `hmseg.families`, random weights and calibrated batch norm, or of the zoo) is
exported, its scores are scaled, and the gate asked about: the same graph compiled for this CPU
(--compile) or in another evaluation (onnxruntime node by node); graphs with one weight, drawn at
random, off by 1%; with one layer's weights off by 1%; with one Resize of another mode. Wrong graphs
run in onnxruntime: what is asked is whether the gate sees them. Each row says how far the scores
are off, in the noise (what is allowed is `NOISE_MULTIPLE`), and on how many scores a weight's error
is in float32's noise for any gate: its error, in double, is less than the noise itself. Exits with
1 where a right network was refused, or a wrong one accepted that is not hidden so.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.graph.expected import Expectations, Expected
from deploy.graph.export import import_file
from deploy.graph.reference import OnnxSession
from deploy.noise import Deviation
from deploy.precision import NOISE_MULTIPLE
from deploy.resolution import Resolution, parse_resolution
from deploy.street import draw_street
from deploy.verify import probe_images
from hmseg import zoo
from hmseg.families import create_network
from hmseg.families.calibrate import calibrate_batch_norm
from hmseg.pretrained import list_released
from hmseg.testing import random_network

NETWORKS = (
    "erfnet",
    "efficientnet-b0-unet",
    "fcn-r50",
    "lraspp-mobilenet-v3-large-torchvision",
    "tiny-hmseg",
)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OTHER = {b"align_corners": b"half_pixel"}  # any other becomes align_corners


class Row(NamedTuple):
    """One graph's verdict: the worst of each statistic over the images, in the noise."""

    network: str
    scale: float
    change: str
    error: Deviation
    wrong: bool
    hidden: bool = False

    @property
    def passed(self) -> bool:
        """What the gate says."""
        return self.error.within(NOISE_MULTIPLE)

    @property
    def good(self) -> bool:
        """Whether the gate is right."""
        return self.passed != self.wrong or self.hidden

    def __str__(self) -> str:
        verdict = "accepted" if self.passed else "refused"
        note = "" if self.good else "  WRONG"
        return (
            f"{self.network:<22}{self.scale:>8.0e}  {self.change:<44}{self.error.rms:>10.2f}"
            f"{self.error.largest:>10.2f}  {verdict}{' (hidden)' * (self.hidden and self.passed)}"
            f"{note}"
        )


def deployable(
    name: str, size: Resolution, folder: Path, *, released: bool = False
) -> onnx.ModelProto:
    """From the image to logits; of the zoo with `released` weights, if asked for and there."""
    path = folder / "network.onnx"
    export(name, size, path, released=released)
    return import_file(path, output="logits").graph


def export(name: str, size: Resolution, path: Path, *, released: bool = False) -> None:
    """A network's file as its users write it, from floats to scores; weights as `deployable`'s."""
    if released and (name, "camvid") in list_released():
        model: torch.nn.Module = zoo.create_model(name, pretrained="camvid")
    elif name in zoo.list_own():
        model = random_network(zoo.entry(name).config)
    else:
        model = create_network(name)
        calibrate_batch_norm(model, 0)
    with torch.no_grad():
        torch.onnx.export(
            model.eval(), (torch.zeros(1, 3, *size),), path, dynamo=True, verbose=False,
            opset_version=20,
        )  # fmt: skip


def scaled(graph: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The graph with its logits times a factor."""
    copy = _copy(graph)
    name = copy.graph.output[0].name
    for node in copy.graph.node:
        for names in (node.input, node.output):
            names[:] = ["unscaled" if found == name else found for found in names]
    copy.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    copy.graph.node.append(helper.make_node("Mul", ["unscaled", "factor"], [name], name="scale"))
    return onnx.shape_inference.infer_shapes(copy, strict_mode=True)


def changed_weights(
    graph: onnx.ModelProto, rng: np.random.Generator, *, whole: bool
) -> tuple[str, onnx.ModelProto]:
    """One weight, or those of one layer, off by 1%."""
    copy = _copy(graph)
    names = {n for node in copy.graph.node if node.op_type in _WEIGHTED for n in node.input[:2]}
    tensors = [t for t in copy.graph.initializer if t.name in names]
    tensor = tensors[rng.integers(len(tensors))]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[slice(None) if whole else rng.integers(values.size)] *= np.float32(1.01)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    shape = "x".join(map(str, values.shape))
    return f"{'a layer' if whole else 'a weight'} of {shape} off by 1%", copy


def changed_resizes(graph: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Each Resize in another mode by itself."""
    for index, node in enumerate(graph.graph.node):
        if node.op_type != "Resize":
            continue
        copy = _copy(graph)
        values = {a.name: a for a in copy.graph.node[index].attribute}
        if values["mode"].s == b"nearest":
            values["mode"].s = b"linear"
        else:
            kind = values["coordinate_transformation_mode"]
            kind.s = _OTHER.get(kind.s, b"align_corners")
        yield f"{node.name or node.output[0]}"[:32] + " of another mode", copy


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy


def compiled(
    graph: onnx.ModelProto, images: dict[str, NDArray[np.uint8]], precision: str = "fp32"
) -> list[NDArray[np.float32]]:
    """The logits of this CPU's binary, without the gate."""
    from deploy.backends import backend_of
    from deploy.backends.base import Job
    from deploy.build import draft
    from deploy.runtime import open_artifact
    from deploy.targets import resolve_target

    target = resolve_target("cpu", precision=precision)
    backend = backend_of(target)
    logits = OnnxSession(graph).run(images["golden"])[0]
    kernels = backend.kernels(target, 2, {})
    drafted = draft(graph, target, images["golden"], Expected(logits, Deviation(0, 0)), 2)
    built = backend.compile(Job(graph, target, kernels), drafted, lambda _: None)
    network = open_artifact(built.artifact, "it", threads=2)
    return [network.logits(image) for image in images.values()]


def judge(outputs: list[NDArray[np.float32]], expected: list[Expected]) -> Deviation:
    """The worst over the images, in the noise."""
    worst = Deviation(0, 0)
    for found, wanted in zip(outputs, expected, strict=True):
        worst = worst.or_more(Deviation.between(found, wanted.scores).over(wanted.noise))
    return worst


def rows_of(name: str, options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """All rows of one network."""
    base = deployable(name, options.size, folder)
    images = probe_images(options.size, draw_street(options.size))
    for factor in options.scales:
        graph = scaled(base, factor)
        expectations = Expectations(graph, images)
        expected = [expectations[image] for image in images]

        def run(changed: onnx.ModelProto, *, optimised: bool = True) -> list[NDArray[np.float32]]:
            session = OnnxSession(changed, optimised=optimised)
            return [session.run(image)[0] for image in images.values()]

        right = run(graph)
        yield Row(
            name, factor, "none, node by node", judge(run(graph, optimised=False), expected), False
        )
        if options.compile:
            yield Row(
                name, factor, "none, compiled", judge(compiled(graph, images), expected), False
            )
        rng = np.random.default_rng(0)
        wrong = [changed_weights(graph, rng, whole=False) for _ in range(options.weights)]
        wrong += [changed_weights(graph, rng, whole=True) for _ in range(options.layers)]
        for change, changed in [*wrong, *changed_resizes(graph)]:
            outputs = run(changed)
            # The two differ by the error, and by as little else as can be.
            itself = judge(
                outputs, [Expected(s, e.noise) for s, e in zip(right, expected, strict=True)]
            )
            error = judge(outputs, expected)
            yield Row(name, factor, change, error, True, itself.rms < 1)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=parse_resolution, default=Resolution(128, 256))
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 1e-6, 1e6])
    parser.add_argument("--weights", type=int, default=10, help="single weights that are changed")
    parser.add_argument("--layers", type=int, default=3, help="layers that are changed")
    parser.add_argument("--compile", action="store_true", help="judge this CPU's binary too")
    options = parser.parse_args()
    print(
        f"{'network':<22}{'scale':>8}  {'change':<44}{'rms/noise':>10}{'largest':>10}  verdict "
        f"(allowed {NOISE_MULTIPLE.rms:g} and {NOISE_MULTIPLE.largest:g})"
    )
    rows = []
    with TemporaryDirectory() as folder:
        for name in options.networks:
            for row in rows_of(name, options, Path(folder)):
                rows.append(row)
                print(row, flush=True)
    right, wrong = ([row for row in rows if row.wrong == kind] for kind in (False, True))
    seen = [row for row in wrong if not row.hidden]
    print(
        f"{sum(not row.passed for row in right)} false alarms of {len(right)}; accepted: "
        f"{sum(row.passed for row in seen)} of {len(seen)} wrong graphs, and of those whose error "
        f"float32's noise hides {sum(row.passed for row in wrong if row.hidden)} of "
        f"{len(wrong) - len(seen)}"
    )
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
