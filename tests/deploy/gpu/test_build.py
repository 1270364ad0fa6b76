"""The artifact for CUDA, without a GPU: machine code for each architecture, and nothing to compile
when it is loaded."""

import re
from dataclasses import replace

import numpy as np
import pytest

from deploy.artifact import Golden
from deploy.artifact_file import load_artifact, save_artifact
from deploy.gpu.cubin import read_cubin
from deploy.gpu.program import GpuProgram
from deploy.resolution import Resolution
from deploy.street import draw_street
from lut.errors import UserError

MOST_BYTES = 4_000_000  # for each architecture


def launched(program: GpuProgram) -> set[str]:
    entries = program.plan.entries.values()
    return {launch.kernel for entry in entries for launch in entry.launches}


@pytest.mark.parametrize("architecture", ["sm_61", "sm_90"])
def test_machine_code_of_every_kernel(artifact, architecture):
    """The cubin's own header names the architecture; its symbols are the kernels of the plan."""
    found = read_cubin(artifact.gpu.cubins[architecture])
    assert found.architecture == architecture
    assert launched(artifact.gpu) <= found.kernels


def test_ptx_for_later_architectures(artifact):
    (text,) = (code.decode().rstrip("\0") for code in artifact.gpu.ptx.values())
    assert list(artifact.gpu.ptx) == ["compute_90"]
    assert re.search(r"^\.target sm_90$", text, re.MULTILINE)
    assert set(re.findall(r"\.visible \.entry (\w+)\(", text)) == launched(artifact.gpu)
    # What only reads is read through the cache for constants; no product is rounded to TF32.
    assert "ld.global.nc" in text
    assert "tf32" not in text


def test_nothing_is_left_to_compile(artifact_file):
    """No source and no library: only machine code, PTX, numbers and the plan."""
    artifact = load_artifact(artifact_file)
    assert artifact.library == b""
    assert artifact.gpu.opencl == ""
    assert set(artifact.gpu.members()) == {
        "gpu/plan.json", "gpu/constants.bin", "gpu/sm_61.cubin", "gpu/sm_90.cubin",
        "gpu/compute_90.ptx",
    }  # fmt: skip
    assert artifact_file.stat().st_size < MOST_BYTES


def test_of_a_large_image_too_it_stays_small(artifact, tmp_path):
    """Golden image, labels and scores grow with the image; scores of noise compress least."""
    size = Resolution(1024, 2048)
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 11, (32, 64), np.uint8), 32, 0).repeat(32, 1)
    scores = rng.normal(size=(11, *size)).astype(np.float32)
    large = replace(
        artifact, metadata=replace(artifact.metadata, resolution=size),
        golden=Golden.sampled(draw_street(size), labels, scores),
    )  # fmt: skip
    save_artifact(large, tmp_path / "large.hmseg")
    assert (tmp_path / "large.hmseg").stat().st_size < MOST_BYTES


def test_a_written_artifact_is_the_same(artifact, artifact_file):
    read = load_artifact(artifact_file)
    assert read.gpu == artifact.gpu
    assert read.target == artifact.target
    assert read.manifest() == artifact.manifest()
    assert read.manifest()["format_version"] == 2
    assert read.versions["cuda-nvrtc"] == "12.9"


def test_the_gate_ran(built):
    artifact, comparisons = built
    assert len(comparisons) == 5
    assert all(comparison.passed for comparison in comparisons)
    assert artifact.parity["checked"] is True
    assert "emulated" in artifact.parity["how"]


def test_our_kernels_cover_the_network(artifact):
    assert {kernel.template for kernel in artifact.kernels} == {
        "stem", "pointwise", "depthwise", "resize", "global_mean", "label_end",
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01" + b"\0" * 58, b"no ELF at all" * 9])
def test_no_cubin(data):
    with pytest.raises(UserError, match="not a cubin"):
        read_cubin(data)
