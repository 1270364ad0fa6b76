"""ONNX's own tests of single operators, through the importer, the passes and the kernels.

python -m tests.deploy.graph.importer.backend_nodes     # write the list of outcomes anew
"""

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from deploy.graph.importer import import_graph
from deploy.graph.importer.registry import OPERATORS
from lut.errors import UserError
from tests.deploy.graph.importer.library import Library

OUTCOMES = Path(__file__).parent / "backend_nodes.json"
OPSET = 20

# Inputs that must be constants: shapes, weights, bounds. The others are given at run time.
PARAMETERS = {
    "BatchNormalization": (1, 2, 3, 4),
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "CumSum": (1,),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "OneHot": (1, 2),
    "PRelu": (1,),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}


@dataclass(frozen=True)
class Case:
    """A graph of one node, the inputs that are not constants, and what must come out."""

    model: onnx.ModelProto
    inputs: Sequence[np.ndarray]
    expected: Sequence[np.ndarray]
    rtol: float
    atol: float


def collect() -> dict[str, Case]:
    """The tests of every operator that is imported, by name; what is not valid in opset 20 has
    another form there, or none. (Those called ``_expanded`` write the same in other operators.)"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of the overflows that are tested
        found = collect_testcases()
    cases = {}
    for test in found:
        nodes = test.model.graph.node
        known = all(node.op_type in OPERATORS and node.domain == "" for node in nodes)
        if known and "_expanded" not in test.name:
            case = _case(test)
            if case is not None:
                cases[test.name] = case
    return cases


def _case(test) -> Case | None:
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    inputs, outputs = test.data_sets[0]
    names = [info.name for info in model.graph.input]
    given = dict(zip(names, inputs, strict=True))
    constants = {
        name
        for node in model.graph.node
        for position, name in enumerate(node.input)
        if name in given and position in _parameters(node.op_type)
    }
    for name in sorted(constants):
        model.graph.initializer.append(_proto(given[name], name))
    kept = [info for info in model.graph.input if info.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for entry in model.opset_import:
        entry.version = OPSET
    model.ir_version = 9
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return None
    return Case(
        model, [_array(given[info.name]) for info in kept], [_array(output) for output in outputs],
        test.rtol, test.atol,
    )  # fmt: skip


def _parameters(op: str) -> Sequence[int]:
    return (1,) if op.startswith("Reduce") else PARAMETERS.get(op, ())


def _proto(value, name: str) -> onnx.TensorProto:
    if not isinstance(value, onnx.TensorProto):
        return numpy_helper.from_array(np.asarray(value), name)
    value.name = name
    return value


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def outcomes(cases: dict[str, Case], folder: Path) -> dict[str, str]:
    """For each test "right", "refused: ..." or "wrong: ...". Any other error is a traceback of ours
    and is raised."""
    found, modules = {}, {}
    for name, case in cases.items():
        try:
            modules[name] = import_graph(case.model)
        except UserError as error:
            found[name] = f"refused: {error}"
    library = Library(modules, folder)
    for name in modules:
        found[name] = _compare(cases[name], library.run(name, cases[name].inputs))
    return dict(sorted(found.items()))


def _compare(case: Case, outputs: Sequence[np.ndarray]) -> str:
    for output, expected in zip(outputs, case.expected, strict=True):
        if (output.dtype, output.shape) != (expected.dtype, expected.shape):
            return f"wrong: {output.dtype}{output.shape}, not {expected.dtype}{expected.shape}"
        if output.dtype.kind == "f":
            same = np.isclose(output, expected, case.rtol, case.atol, equal_nan=True)
        else:
            same = output == expected
        if not same.all():
            return f"wrong: {output[~same][:3]}, not {expected[~same][:3]}"
    return "right"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = outcomes(collect(), Path(folder))
    OUTCOMES.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
