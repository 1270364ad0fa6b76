"""Files that were quantised elsewhere, in either form, in kernels of bytes on this CPU."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deploy.cpu.pipeline import compile_graph, lower_graph
from deploy.graph.place import OPERATION
from deploy.graph.reference import OnnxSession
from lut.ops import dtype_of, parse_operation
from tests.deploy.graph.test_in_bytes import job
from tests.deploy.quantised_networks import WAYS, Way, given, last_quantum, network, quantised
from tests.deploy.reading.files import normal_form


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_numbers_are_those_of_onnxruntime(way: Way, tmp_path: Path) -> None:
    """Of the file as it is, node by node; but for ties of roundings. A linear resize to twice the
    size, rounded to the nearest as in pairs, gives ties at every sixteenth number."""
    file = quantised(network("linear" if way.form == "QOperator" else "nearest"), way, tmp_path)
    wanted = OnnxSession(file, optimised=False).run_batch(given(9))[0]
    with compile_graph(job(normal_form(file))).load() as library:
        found = library.run("main", given(9)[0])
    off = np.rint(np.abs(found.reshape(wanted.shape) - wanted) / last_quantum(file))
    assert off.max() <= 1
    assert (off > 0).mean() < 2e-2


def test_both_forms_are_the_same_kernels(tmp_path: Path) -> None:
    """But for a linear resize, which operators of integers round otherwise."""
    kinds = []
    for form in ("QOperator", "QDQ"):
        model = normal_form(quantised(network("nearest"), Way(form), tmp_path))
        functions = lower_graph(job(model)).functions.values()
        texts = [str(f.attrs[OPERATION]) for f in functions if OPERATION in f.attrs]
        parsed = [parse_operation(text) for text in texts if not text.startswith("tvm:")]
        kinds.append(Counter((op.kind, dtype_of(op)) for op in parsed if op.macs))
    assert kinds[0] == kinds[1]
    layers = sum(n for (_, dtype), n in kinds[0].items() if dtype == "int8")
    assert layers >= 5
