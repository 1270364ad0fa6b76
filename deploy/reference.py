"""onnxruntime as the reference that every binary is checked and timed against."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from deploy.ends import IMAGE, with_logits_output
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

    def run(self, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Every output of the graph, without the batch axis, for one image uint8 (H, W, 3)."""
        outputs: list[NDArray[Any]] = self._session.run(None, {IMAGE: image[None]})
        return [output[0] for output in outputs]


class Reference:
    """Labels and logits of a graph, whichever of the two it gives."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = OnnxSession(with_logits_output(model))

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """labels uint8 (H, W) and logits float32 (K, H, W) of an image uint8 (H, W, 3)."""
        outputs = self._session.run(image)
        logits = outputs[-1]
        labels = outputs[0] if len(outputs) == 2 else logits.argmax(0).astype(np.uint8)
        return labels, logits
