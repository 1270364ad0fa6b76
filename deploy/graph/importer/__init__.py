"""From ONNX to a Relax module: one function for each operator (`registry.OPERATORS`)."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
import tvm
from onnx import helper, numpy_helper
from tvm import relax

from deploy.graph.importer.node import (
    TYPES,
    Node,
    Value,
    constant,
    dtype_of,
    label,
    printable,
    shape_of,
)
from deploy.graph.importer.registry import OPERATORS
from deploy.graph.stored import DOMAIN
from lut.errors import UserError

_OLDEST, _NEWEST = 13, 20  # opsets whose operators mean what the functions here write


def import_graph(model: onnx.ModelProto) -> tvm.IRModule:
    """Convert a graph of static shapes whose parameters are constants (`deploy.reading`).

    The function ``main`` takes the graph's inputs and returns its output, or a tuple of them;
    weights are constants. Raises UserError, which names the node, for an operator, attribute or
    type that is not supported, and where the result would not have the shape or type that the file
    says.
    """
    _check_operators(model)
    graph = model.graph
    values: dict[str, Value | None] = {"": None}
    values.update((tensor.name, _array(tensor)) for tensor in graph.initializer)
    parameters = [_parameter(info) for info in graph.input if info.name not in values]
    values.update(
        zip((info.name for info in graph.input if info.name not in values), parameters, strict=True)
    )
    said = {info.name: info for info in (*graph.value_info, *graph.output)}
    builder = relax.BlockBuilder()
    try:
        with builder.function("main", parameters):
            with builder.dataflow():
                for proto in graph.node:
                    for name, value in zip(
                        proto.output, _convert(proto, values, builder), strict=False
                    ):
                        _check(proto, said.get(name), value)
                        values[name] = value
                outputs = [_output(info.name, values) for info in graph.output]
                whole = outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)
                result = builder.emit_output(whole)
            builder.emit_func_output(result)
    except UserError:
        builder._end_block()  # else TVM warns, on stderr, of a builder that was left open
        raise
    module = builder.get()
    module["main"] = module["main"].with_attrs({"num_input": len(parameters)})
    return module


def _check_operators(model: onnx.ModelProto) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    version = opsets.get("", opsets.get("ai.onnx", _NEWEST))
    if not _OLDEST <= version <= _NEWEST:
        raise UserError(
            f"the graph has opset {version} (supported: {_OLDEST} to {_NEWEST}); export it with "
            f"opset_version={_NEWEST}"
        )
    unknown = {
        printable(
            f"{node.domain + '.' if node.domain else ''}{node.op_type} (node {node.name or '?'})"
        )
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx", DOMAIN) or node.op_type not in OPERATORS
    }
    if unknown:
        raise UserError(
            f"the ONNX graph uses operators that are not supported: {', '.join(sorted(unknown))}; "
            "replace them in the network, or cut the graph before them with "
            "onnx.utils.extract_model"
        )


def _array(tensor: onnx.TensorProto) -> Value:
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        raise UserError(f"the constant {tensor.name!r} is damaged ({error})") from error


def _parameter(info: onnx.ValueInfoProto) -> relax.Var:
    kind = info.type.tensor_type
    shape = [dim.dim_value for dim in kind.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "?"
    if min(shape, default=1) < 1 or dtype not in TYPES:
        raise UserError(
            f"the input {info.name!r} is {dtype} {shape}; export the network with fixed sizes, in "
            "float32 or uint8"
        )
    # The name shows in what is dumped only.
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in info.name)
    return relax.Var(
        name if name[:1].isalpha() else f"input_{name}", relax.TensorType(shape, dtype)
    )


def _convert(
    proto: onnx.NodeProto, values: dict[str, Value | None], builder: relax.BlockBuilder
) -> Sequence[Value]:
    """The values of a node's outputs."""
    missing = [name for name in proto.input if name not in values]
    if missing:
        raise UserError(f"{label(proto)}: its input {missing[0]!r} is not in the graph")
    try:
        # What a node reads is bound here, not where it was made: what nothing reads is left out.
        for name in proto.input:
            value = values[name]
            if value is not None and not isinstance(value, np.ndarray | relax.Var):
                values[name] = builder.emit(value)
        node = Node(proto, [values[name] for name in proto.input], builder)
        result = OPERATORS[proto.op_type](node)
        node.refuse_unread()
        results = result if isinstance(result, list) else [result]
        return [
            value if isinstance(value, np.ndarray) else builder.normalize(value)
            for value in results
        ]
    except UserError:
        raise
    except Exception as error:  # TVM's operators raise whatever they happen to raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{label(proto)}: cannot be imported ({printable(lines[-1])[:200]}); check the file "
            "with onnx.checker.check_model(model, full_check=True)"
        ) from error


def _check(proto: onnx.NodeProto, info: onnx.ValueInfoProto | None, value: Value) -> None:
    """Raise UserError where a value is not what the file says that it is."""
    if isinstance(value, np.ndarray):
        shape, dtype = value.shape, value.dtype.name
    else:
        shape, dtype = shape_of(value), dtype_of(value)
    if math.prod(shape) == 0:
        raise UserError(f"{label(proto)}: an empty tensor {shape} is not supported")
    kind = None if info is None else info.type.tensor_type
    if kind is None or not kind.elem_type or not kind.HasField("shape"):
        return
    said = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    fits = len(said) == len(shape) and all(
        want in (None, have) for want, have in zip(said, shape, strict=True)
    )
    if not fits or helper.tensor_dtype_to_np_dtype(kind.elem_type).name != dtype:
        raise UserError(
            f"{label(proto)}: gives {dtype} {shape} where the file says {said}; check the file "
            "with onnx.checker.check_model(model, full_check=True)"
        )


def _output(name: str, values: dict[str, Value | None]) -> relax.Expr:
    value = values.get(name)
    if value is None:
        raise UserError(f"the output {name!r} is not in the graph")
    return constant(value) if isinstance(value, np.ndarray) else value
