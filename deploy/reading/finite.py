"""Weights that are no numbers: called so, before anything is computed with them."""

import numpy as np

from deploy.reading.graph import Graph
from deploy.reading.text import plain
from lut.errors import UserError

# Operators whose constants are weights: an infinite one elsewhere may be meant, as in a mask.
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}
_MAY_BE_NAN = {"Clip"}  # a bound that is NaN is no bound


def check_finite(graph: Graph) -> None:
    """Raise UserError, naming the weight and its node, where one is NaN, or infinite."""
    for node in graph.nodes:
        for name in node.inputs:
            values = graph.constants.get(name)
            if values is None or not np.issubdtype(values.dtype, np.floating):
                continue
            wrong = np.isnan(values) & (node.op not in _MAY_BE_NAN)
            if node.op in _WEIGHTED:
                wrong |= np.isinf(values)
            if wrong.any():
                kind = "NaN" if np.isnan(values).any() else "infinite"
                raise UserError(
                    f"{node.title}: its weight '{plain(name)}' has {int(wrong.sum())} values that "
                    f"are {kind}: the training has diverged; export an earlier checkpoint"
                )
