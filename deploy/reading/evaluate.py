"""The value of a node whose inputs are all constants: what onnxruntime makes of it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from deploy.reading.graph import Node, proto_of
from deploy.reading.text import one_line
from lut.errors import UserError


class Evaluator:
    """Runs single nodes of a file's opset; keeps the sessions, as shapes are computed alike."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._sessions: dict[bytes, ort.InferenceSession] = {}

    def __call__(self, node: Node, values: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a node, in order, without those left out.

        `values` holds each of its inputs, and what its subgraphs read from outside. Raises
        UserError where onnxruntime refuses it.
        """
        if node.op != "QuantizeLinear":  # which would not saturate as it should
            values = {name: _in_bytes(value) for name, value in values.items()}
        names = {name: f"i{index}" for index, name in enumerate(values)}
        feed = {names[name]: value for name, value in values.items()}
        proto = proto_of(node)
        proto.name = ""
        if not any(isinstance(v, onnx.GraphProto) for v in node.attributes.values()):
            # Names of their own, so that equal nodes are one session.
            for index, name in enumerate(proto.input):
                proto.input[index] = names.get(name, "")
            for index, name in enumerate(proto.output):
                proto.output[index] = f"o{index}" if name else ""
        else:
            feed = values
        try:
            return self._session(proto, feed).run(None, feed)  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime has many classes of errors, all of them for this
            raise node.error(f"onnxruntime cannot compute it ({one_line(error)})") from error

    def _session(
        self, proto: onnx.NodeProto, feed: dict[str, NDArray[Any]]
    ) -> ort.InferenceSession:
        # Lists have their length: ONNX's inference counts sizes and axes before it has them.
        types = {
            name: helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(value.dtype),
                value.shape if value.ndim < 2 else [None] * value.ndim,
            )
            for name, value in feed.items()
        }
        described = "".join(f"{name}{t.SerializeToString()!r}" for name, t in types.items())
        key = proto.SerializeToString(deterministic=True) + described.encode(errors="replace")
        if key not in self._sessions:
            model = helper.make_model(
                helper.make_graph(
                    [proto],
                    "node",
                    [helper.make_value_info(name, kind) for name, kind in types.items()],
                    [helper.make_empty_tensor_value_info(name) for name in proto.output if name],
                ),
                opset_imports=[helper.make_opsetid("", self._opset)],
                ir_version=10,
            )
            options = session_options()
            self._sessions[key] = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[key]


def _in_bytes(value: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in 8 bits where they are of 4: of these onnxruntime takes no arrays."""
    wider = {"int4": np.int8, "uint4": np.uint8}.get(value.dtype.name)
    return value if wider is None else value.astype(wider)


def run_all(
    model: onnx.ModelProto, feeds: Iterable[dict[str, NDArray[Any]]]
) -> list[list[NDArray[Any]]]:
    """The outputs of a part of a file's graph for each feed; raises UserError where onnxruntime
    refuses it."""
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        return [session.run(None, feed) for feed in feeds]
    except Exception as error:  # as above
        raise UserError(f"onnxruntime cannot run a part of it ({one_line(error)})") from error


def session_options() -> ort.SessionOptions:
    """Of a session that computes a graph as it stands, on one thread, and prints nothing."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return options
