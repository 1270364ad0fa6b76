import pytest

from deploy.gpu.kernels import GpuKernels
from deploy.gpu.pipeline import compile_source, gpu_passes
from deploy.graph.job import Job
from deploy.precision import FP16, FP32
from deploy.targets import resolve_target


def names_of(precision):
    return [step.info.name for step in gpu_passes(GpuKernels(), precision)]


def test_half_precision_is_one_pass_more():
    assert names_of(FP16) == [*names_of(FP32), "StoreHalf"]
    assert names_of(FP32)[0] == "Place"


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_the_module_after_each_pass_is_written(small_graph, tmp_path, precision):
    target = resolve_target("cuda", "sm_90", precision.name)
    plain = compile_source(Job(small_graph, target))
    dumped = compile_source(Job(small_graph, target, dump=tmp_path))
    assert dumped.lowered.source == plain.lowered.source
    names = ["import", *(name.rpartition(".")[2] for name in names_of(precision))]
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"{n:02}-{name}.py" for n, name in enumerate(names)]
