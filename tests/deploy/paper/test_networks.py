import tempfile

import pytest

from deploy.graph.source import open_source
from deploy.paper import networks
from deploy.paper.jobs import Job
from deploy.paper.networks import CALIBRATED, NoRoomError, open_network
from deploy.resolution import Resolution
from lut.errors import WorkError

SIZE = Resolution(64, 64)


def test_released_weights_are_those_of_as_many_classes():
    own = open_network(Job("tiny-mrms", SIZE, 11))
    assert own.weights == "trained on camvid"
    assert own.graph == open_source("tiny-mrms", resolution=SIZE).graph
    other = open_network(Job("tiny-mrms", SIZE, 19))
    assert other.weights == CALIBRATED
    assert len(other.metadata.classes) == 19


def test_a_calibration_without_memory_is_that_networks_failure(monkeypatch):
    def exhausted(*_: object) -> None:
        raise RuntimeError("not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(networks, "calibrate_batch_norm", exhausted)
    with pytest.raises(WorkError, match="not exported: not enough memory"):
        open_network(Job("tiny-mrms", SIZE, 19))


def test_a_peers_file_that_cannot_be_written_ends_all(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(NoRoomError, match=r"cannot write fast-scnn\.onnx for a moment: No"):
        open_network(Job("fast-scnn", SIZE, 19))
