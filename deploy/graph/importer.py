"""From ONNX to a Relax module."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx, onnx_frontend

from lut.errors import UserError


def import_graph(model: onnx.ModelProto) -> tvm.IRModule:
    """Convert a graph with both ends; the function ``main`` takes the image, weights are constants.

    Raises UserError naming the operators that TVM's importer does not know.
    """
    _check_operators(model)
    try:
        # The importer prints the operator that failed, besides raising.
        with _constant_clips(), redirect_stdout(io.StringIO()):
            return from_onnx(model, keep_params_in_input=False)
    except Exception as error:  # TVM's importer raises whatever its converters happen to raise
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(f"TVM cannot import this ONNX graph: {line[:300]}") from error


def _check_operators(model: onnx.ModelProto) -> None:
    known = onnx_frontend._get_convert_map()
    unknown = {
        f"{node.domain + '.' if node.domain else ''}{node.op_type} (node {node.name or '?'})"
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx") or known.get(node.op_type) is None
    }
    if unknown:
        raise UserError(
            f"the ONNX graph uses operators TVM cannot import: {', '.join(sorted(unknown))}"
        )


@contextmanager
def _constant_clips() -> Iterator[None]:
    """Import Clip with constant bounds as one `relax.clip`.

    The stock converter guards every bound against NaN with operators of its own (isnan, where),
    three PrimFuncs per ReLU6 whose constant folding alone takes seconds, and hides the activation
    from every later pass.
    """
    stock_map = onnx_frontend._get_convert_map
    stock_clip = stock_map()["Clip"]

    class ConstantClip(stock_clip):  # type: ignore[misc, valid-type]
        @classmethod
        def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:  # noqa: ANN401
            bounds = [inputs[1], inputs[2]]
            if all(isinstance(bound, tvm.ir.GenericConst) for bound in bounds):
                low, high = (float(bound.value.numpy()) for bound in bounds)
                if low == low and high == high:
                    return relax.op.clip(inputs[0], low, high)
            return super()._impl_v13(bb, inputs, attr, params)

    onnx_frontend._get_convert_map = lambda: {**stock_map(), "Clip": ConstantClip}
    try:
        yield
    finally:
        onnx_frontend._get_convert_map = stock_map
