"""`--target adreno`: the OpenCL of a whole network, read by clang's OpenCL front end. No phone ran
it, and no test here says what one would do with it."""

import re
from pathlib import Path

import pytest

from deploy.build import build_artifact
from deploy.targets import resolve_target
from lut.errors import UserError

WORDS = Path(__file__).with_name("opencl_words.h")
MOST_THREADS = 256  # in a work-group, on the Adreno 5xx of a Snapdragon 835 with few registers


@pytest.fixture(scope="module")
def adreno(network_source):
    artifact, comparisons = build_artifact(
        network_source.graph, resolve_target("adreno"), threads=1
    )
    assert comparisons == []
    return artifact


def complaints(source: str) -> list[str]:
    """What clang says of OpenCL C 1.2."""
    from clang.cindex import Index, TranslationUnit

    text = f'#include "{WORDS}"\n{source}'
    unit = Index.create().parse(
        "kernels.cl", args=["-x", "cl", "-cl-std=CL1.2", "-cl-no-stdinc", "-Wall", "-Wno-unused"],
        unsaved_files=[("kernels.cl", text)], options=TranslationUnit.PARSE_NONE,
    )  # fmt: skip
    return [str(diagnostic) for diagnostic in unit.diagnostics]


def test_the_front_end_takes_the_whole_network(adreno):
    assert complaints(adreno.code.opencl) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("vstore4(", "vstore4(1, "), ("__global float*", "__global flaot*"), ("barrier(", "barier(")],
)
def test_the_front_end_finds_mistakes(adreno, before, after):
    assert complaints(adreno.code.opencl.replace(before, after, 1))


def test_every_launch_has_its_kernel(adreno):
    kernels = dict(re.findall(r"__kernel void (\w+)\(([^)]*)\) \{", adreno.code.opencl))
    for entry in adreno.code.plan.entries.values():
        for launch in entry.launches:
            assert len(launch.arguments) == kernels[launch.kernel].count("__global")
            x, y, z = launch.block
            assert x * y * z <= MOST_THREADS


def test_it_says_that_it_was_not_checked(adreno):
    assert not adreno.parity["checked"]
    assert adreno.parity["reason"] == "no OpenCL GPU runs artifacts in this version"
    assert adreno.target.architecture == "opencl"
    assert not adreno.code.cubins
    assert not adreno.code.ptx


def test_tags():
    assert resolve_target("qcom/adreno-opencl").config == resolve_target("adreno").config
    with pytest.raises(UserError, match="OpenCL; use adreno"):
        resolve_target("qcom/adreno-vulkan")
    with pytest.raises(UserError, match="no such tag"):
        resolve_target("qcom/none")
