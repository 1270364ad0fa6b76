"""onnxruntime as the reference that every binary is checked and timed against."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from deploy.graph.ends import with_logits_output
from deploy.reading.text import one_line
from lut.errors import UserError

# Rounds float weights between pairs of QuantizeLinear and DequantizeLinear to 8 bits, with one
# scale for all channels, though the graph does not.
_NOT_THE_SAME = ["WeightBiasQuantization"]
# What makes a session of a graph that is not one protobuf.
Opener = Callable[[ort.SessionOptions], ort.InferenceSession]


def _with_own_zero_points(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, without zero points that constants in 8 bits share, as exporters write them: at
    ``session.x64quantprecision`` onnxruntime makes a new one of each by the old one's name, and
    fails at the second ("Attempt to replace the existing tensor")."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    seen, shared = set[str](), list[int]()
    for number, node in enumerate(model.graph.node):
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        if len(node.input) > 2 and node.input[2] in constants:
            if node.input[2] in seen:
                shared.append(number)
            seen.add(node.input[2])
    if not shared:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number in shared:
        node = copy.graph.node[number]
        own = copy.graph.initializer.add()
        own.CopyFrom(constants[node.input[2]])
        own.name = node.input[2] = f"{node.input[2]}_of_{node.output[0]}"
    return copy


class OnnxSession:
    """A graph, or what opens one, in onnxruntime, on the CPU, at its documented best settings, or,
    where not `optimised`, node by node as it is written.

    `threads` is the size of its pool, which spins between calls as ours does. Raises UserError for
    a graph that onnxruntime does not take.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Opener,
        *,
        threads: int | None = None,
        optimised: bool = True,
    ) -> None:
        levels = ort.GraphOptimizationLevel
        options = ort.SessionOptions()
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        )
        options.log_severity_level = 4  # what fails is raised
        # What only checks gives its maps back after a run: of a large network, whose several
        # sessions wait for each other, kept ones are many GB.
        options.enable_cpu_mem_arena = optimised
        # 8-bit products as ONNX says: without VNNI, its fastest kernels saturate sums of two.
        options.add_session_config_entry("session.x64quantprecision", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = (
                ort.InferenceSession(
                    _with_own_zero_points(model).SerializeToString(),
                    options,
                    providers=["CPUExecutionProvider"],
                    disabled_optimizers=_NOT_THE_SAME,
                )
                if isinstance(model, onnx.ModelProto)
                else model(options)
            )
        except UserError:
            raise
        except Exception as error:  # onnxruntime raises classes of its own, all of them for this
            raise UserError(
                f"onnxruntime cannot run this ONNX graph: {one_line(error, 300)}"
            ) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, image: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of the graph, without the batch axis, for one input: an image uint8
        (H, W, C) or a tensor float32 (C, H, W), as the graph takes it. Raises UserError where
        onnxruntime fails on it."""
        return [output[0] for output in self.run_batch(image[None])]

    def run_batch(
        self, given: NDArray[Any], names: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        """As `run`, with the batch axis; `names` of outputs, by default all."""
        try:
            outputs: list[NDArray[Any]] = self._session.run(names, {self._input: given})
        except Exception as error:  # an index out of bounds, a shape that does not fit
            raise UserError(
                f"onnxruntime fails on this ONNX graph: {one_line(error, 300)}"
            ) from error
        return outputs


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy whose outputs are these tensors of the graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    # onnxruntime finds their types by itself.
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return copy


class Reference:
    """Labels and logits of a graph, whichever of the two it gives."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from deploy.graph.export import read_metadata  # late: torch

        self._session, self._metadata = OnnxSession(with_logits_output(model)), read_metadata(model)

    def __call__(self, image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Labels (H, W), or masks (K, H, W), and logits float32 (K, H, W) of one input."""
        outputs = self._session.run(image)
        logits = outputs[-1]
        return outputs[0] if len(outputs) == 2 else self._metadata.found_in(logits), logits
