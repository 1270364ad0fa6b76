"""Scales that are made up: the same kernels as by frames."""

import numpy as np
import onnx
import pytest

from deploy.cpu.pipeline import lower_graph, make_kernels
from deploy.graph.export import read_metadata
from deploy.graph.frame import plan_frame
from deploy.graph.job import Job
from deploy.graph.place import OPERATION
from deploy.graph.reference import OnnxSession
from deploy.quantise.frames import open_frames
from deploy.quantise.run import Options, quantise
from deploy.quantise.synthetic import with_synthetic_scales
from deploy.targets import resolve_target
from tests.deploy.graphs import deployable, photo, segmenter
from tests.deploy.quantise.test_frames import folder_of

TARGET = resolve_target("x86-64-v3", precision="int8")


def calls_of(graph: onnx.ModelProto) -> list[str]:
    module = lower_graph(Job(graph, TARGET, make_kernels(TARGET, 1, {})))
    calls = plan_frame(module).entries["main"].calls
    return [str(module[call.kernel].attrs[OPERATION]) for call in calls]


@pytest.mark.parametrize("which", ["small", "tiny-mrms"])
def test_the_kernels_are_those_of_a_calibrated_network(which, graph, tmp_path):
    model = graph if which == "tiny-mrms" else deployable(segmenter(stride=2), tmp_path)
    before = model.SerializeToString()
    made_up = with_synthetic_scales(model)
    assert model.SerializeToString() == before
    frames = open_frames(folder_of(tmp_path / "f", 2), read_metadata(model), 100)
    calibrated = quantise(model, frames, Options(threads=1, gate=False)).graph
    ops = [[node.op_type for node in one.graph.node] for one in (made_up, calibrated)]
    assert ops[0].count("QuantizeLinear") == ops[1].count("QuantizeLinear") > 0
    calls = calls_of(made_up)
    assert calls == calls_of(calibrated)
    assert sum("dtype=int8" in call for call in calls) > 1


def test_it_runs_elsewhere(tmp_path):
    model = with_synthetic_scales(deployable(segmenter(stride=2), tmp_path))
    (labels,) = OnnxSession(model).run(photo())
    assert labels.dtype == np.uint8


def test_one_class_wins_everywhere(tmp_path):
    """As labels that change from pixel to pixel take longer, and by chance."""
    model = deployable(segmenter(stride=2), tmp_path)
    assert len(np.unique(OnnxSession(model).run(photo())[0])) > 1
    (labels,) = OnnxSession(with_synthetic_scales(model)).run(photo())
    assert not labels.any()
