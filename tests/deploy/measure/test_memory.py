import pytest

from deploy.graph.export import save_onnx
from deploy.measure.memory import PeakMemory, measure_peak
from lut.errors import WorkError


def test_both_sides_in_processes_of_their_own(artifact_path, graph, tmp_path):
    save_onnx(graph, tmp_path / "n.onnx")
    ours = measure_peak("artifact", artifact_path, calls=2, threads=1)
    peer = measure_peak("onnx", tmp_path / "n.onnx", calls=2, threads=1)
    for peak in (ours, peer):
        assert 10_000 < peak.base_kib < peak.peak_kib < 2_000_000
        assert peak.network_kib == peak.peak_kib - peak.base_kib
    # Without torch and the compiler: with them the base alone is above 200 MiB.
    assert ours.base_kib < 150_000
    # 2.5 MB of weights must be in it.
    assert ours.network_kib > 2_000


def test_the_difference():
    assert PeakMemory(base_kib=100, peak_kib=130).network_kib == 30


def test_a_process_that_fails(tmp_path):
    with pytest.raises(WorkError, match=r"measuring the memory of artifact failed.*no such file"):
        measure_peak("artifact", tmp_path / "none.hmseg")
