"""onnxruntime as the reference that every binary is checked and timed against."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from deploy.graph.ends import with_logits_output
from deploy.graph.export import read_metadata
from lut.errors import UserError


class OnnxSession:
    """A graph with both ends in onnxruntime, on the CPU, at its documented best settings.

    `threads` is the size of its pool, which spins between calls as ours does.
    """

    def __init__(self, model: onnx.ModelProto, *, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own, all of them for this
            line = " ".join(str(error).split())[:300]
            raise UserError(f"onnxruntime cannot run this ONNX graph: {line}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, image: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of the graph, without the batch axis, for one input: an image uint8
        (H, W, 3) or a tensor float32 (3, H, W), as the graph takes it."""
        outputs: list[NDArray[Any]] = self._session.run(None, {self._input: image[None]})
        return [output[0] for output in outputs]


class Reference:
    """Labels and logits of a graph, whichever of the two it gives."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session, self._metadata = OnnxSession(with_logits_output(model)), read_metadata(model)

    def __call__(self, image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Labels (H, W), or masks (K, H, W), and logits float32 (K, H, W) of one input."""
        outputs = self._session.run(image)
        logits = outputs[-1]
        return outputs[0] if len(outputs) == 2 else self._metadata.found_in(logits), logits
