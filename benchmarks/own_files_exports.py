"""The files of `benchmarks.own_files`: a peer network, written by torch's two exporters."""

import hashlib
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn
from torch.onnx import register_custom_op_symbolic, symbolic_helper

from benchmarks.own_files import Row, one_line
from hmseg.families import create_network
from hmseg.families.calibrate import calibrate_batch_norm, made_up_images

SEED = 0


def export_all(task: Row) -> list[Row]:
    """Write the files of a network that are asked for; a row for each."""
    model = create_network(task["network"])
    size = (task["height"], task["width"])
    # At another size some networks are so far from what their norms were set by that float32 itself
    # is wrong in the third digit.
    calibrate_batch_norm(model, SEED, size)
    image = made_up_images(size, torch.Generator().manual_seed(SEED + 1))[-1:]
    rows = []
    for file in task["files"]:
        start = time.perf_counter()
        try:
            row = export(model, image, file["exporter"], file["asked"], Path(file["path"]))
        except Exception as error:  # the exporters raise whatever their parts raise
            traceback.print_exc()
            row = {"failed": "not exported", "why": one_line(error)}
        rows.append(file | row | {"seconds": round(time.perf_counter() - start, 1)})
    return rows


def export(model: nn.Module, image: torch.Tensor, exporter: str, opset: int, path: Path) -> Row:
    """Write the file and run it in onnxruntime on the image, against torch."""
    named = {"input_names": ["image"], "output_names": ["scores"], "opset_version": opset}
    path.parent.mkdir(parents=True, exist_ok=True)
    if exporter == "dynamo":
        program = torch.onnx.export(model, (image,), dynamo=True, verbose=False, **named)
        assert program is not None
        program.save(path)
    else:
        know_unpooling()
        with divided_pools():
            torch.onnx.export(model, (image,), path, dynamo=False, **named)
    graph = onnx.load(path)
    row = {
        "opset": next(entry.version for entry in graph.opset_import if not entry.domain),
        "nodes": len(graph.graph.node),
        "sha256": hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
    }
    with torch.no_grad():
        expected = model(image).numpy()
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {"image": image.numpy()})
    except Exception as error:  # onnxruntime's own classes, one for each status
        return row | {"runs": False, "why": one_line(error)}
    difference = float(np.quantile(np.abs(scores - expected), 0.99) / np.abs(expected).max())
    return row | {"runs": bool(difference < 1e-3), "error": difference}


@contextmanager
def divided_pools() -> Iterator[None]:
    """Adaptive average pools that do not divide, as two products with constant matrices."""
    stock = F.adaptive_avg_pool2d

    def bins(size: int, count: int) -> torch.Tensor:
        rows = []
        for i in range(count):
            start, stop = i * size // count, -(-(i + 1) * size // count)
            rows.append([(start <= j < stop) / (stop - start) for j in range(size)])
        return torch.tensor(rows)  # whole: writing into one would be traced

    def pool(x: torch.Tensor, output_size: Any) -> torch.Tensor:
        rows, columns = (output_size,) * 2 if isinstance(output_size, int) else output_size
        height, width = int(x.shape[-2]), int(x.shape[-1])
        if height % rows == 0 and width % columns == 0:
            return stock(x, (rows, columns))
        return bins(height, rows) @ x @ bins(width, columns).T

    F.adaptive_avg_pool2d = pool
    try:
        yield
    finally:
        F.adaptive_avg_pool2d = stock


def know_unpooling() -> None:
    """Tell the tracing exporter, which does not know it, how ONNX says max_unpool2d over 2x2: its
    indices are those of the whole tensor, torch's those of a channel's map."""

    def unpool(g: Any, x: Any, indices: Any, output_size: Any) -> Any:
        n, c = g.original_node.inputsAt(0).type().sizes()[:2]
        h, w = symbolic_helper._parse_arg(output_size, "is")
        maps = (torch.arange(n * c) * h * w).reshape(n, c, 1, 1)
        indices = g.op("Add", indices, g.op("Constant", value_t=maps))
        shape = g.op("Constant", value_t=torch.tensor([n, c, h, w]))
        unpooled = g.op("MaxUnpool", x, indices, shape, kernel_shape_i=[2, 2], strides_i=[2, 2])
        return unpooled.setType(torch._C.TensorType.create_from_tensor(torch.empty(n, c, h, w)))

    register_custom_op_symbolic("aten::max_unpool2d", unpool, 11)
