import json
from dataclasses import replace

import pytest

from deploy.cpu.pipeline import isa_of
from deploy.measure.ceilings import Ceilings
from deploy.measure.local import LocalDevice
from deploy.profile import KernelProfile, Profile, profile, require_timed, summarise_kernels
from lut.errors import UserError
from lut.ops import Pointwise

CEILINGS = Ceilings(2, 100.0, ((16 << 10, 400.0), (1 << 30, 20.0)))
KERNEL = KernelProfile("k", "pointwise", "spec", 2, 0.5, macs=10_000_000, bytes=10_000)
MACHINE = {"machine": "a CPU", "architecture": "x86_64", "emulated": False}
PROFILE = Profile((KERNEL,), 1.0, CEILINGS, 2, MACHINE)


def test_rates():
    assert KERNEL.gflops == pytest.approx(40)  # 2 * 1e7 operations in 0.5 ms
    assert KERNEL.gbytes_per_s == pytest.approx(0.02)
    assert KERNEL.share_of_ceiling(CEILINGS) == pytest.approx(0.4)
    copying = KernelProfile("c", "resize", "", 1, 1.0, macs=0, bytes=10_000_000)
    assert copying.share_of_ceiling(CEILINGS) == pytest.approx(0.5)  # 10 MB at 20 GB/s, 0.5 ms
    assert PROFILE.fma_share == pytest.approx(0.2)


def test_each_kernel_has_the_ceiling_of_its_type():
    ceilings = Ceilings(2, 100.0, CEILINGS.reads, {"bfloat16": 200.0})
    plain, low = Pointwise(16, 96, 8, 9), Pointwise(16, 96, 8, 9, dtype="bfloat16")
    shares = [replace(KERNEL, spec=str(op)).share_of_ceiling(ceilings) for op in (plain, low)]
    assert shares == pytest.approx([0.4, 0.2])
    assert replace(KERNEL, spec=str(low), template="tvm").share_of_ceiling(ceilings) == shares[0]
    both = tuple(replace(KERNEL, spec=str(op)) for op in (plain, low))
    assert replace(PROFILE, kernels=both, ceilings=ceilings).fma_share == pytest.approx(0.3)


def test_the_level_of_memory_is_that_of_one_call():
    # 100 calls of 10 kB each: every call fits 16 KiB a thread, so 1 MB at 400 GB/s, 2.5 us.
    often = KernelProfile("o", "resize", "", 100, 0.005, macs=0, bytes=1_000_000)
    assert often.share_of_ceiling(CEILINGS) == pytest.approx(0.5)


def test_calls_become_kernels_in_the_order_of_their_first_call(small_artifact):
    names = [kernel.name for kernel in small_artifact.kernels[:2]]
    first, second = small_artifact.kernels[:2]
    called = replace(small_artifact, calls=(names[1], names[0], names[1]))
    found = summarise_kernels(called, [[1, 10, 100], [3, 30, 500], [2, 20, 300]])
    assert [(k.name, k.calls, k.median_ms) for k in found] == [
        (names[1], 2, 302 / 1e6), (names[0], 1, 20 / 1e6),
    ]  # fmt: skip
    assert [k.bytes for k in found] == [2 * second.bytes, first.bytes]


def test_every_kernel_of_a_frame_is_timed(small_artifact, cpu):
    result = LocalDevice(2).use(small_artifact, lambda session: profile(session, 2, frames=3))
    called = list(dict.fromkeys(small_artifact.calls))
    assert [kernel.name for kernel in result.kernels] == called
    # What is left makes the scores, which a frame does not ask for.
    left = [kernel for kernel in small_artifact.kernels if kernel.name not in called]
    assert len(left) + len(called) == len(small_artifact.kernels)
    assert {kernel.template for kernel in left} <= {"logits_end", "tvm"}
    assert result.emulated is False
    assert (result.ceilings is None) == (isa_of(cpu) is None)
    if isa_of(cpu) is not None:
        assert "labels_end" in {kernel.template for kernel in result.kernels}
    json.dumps(result.to_json())


def test_an_artifact_of_an_earlier_version(small_artifact):
    old = replace(small_artifact, calls=())
    with pytest.raises(UserError, match=r"n\.hmseg: .* no entry .* compile the model again"):
        require_timed(old, "n.hmseg")
    with pytest.raises(UserError, match="no entry"):
        LocalDevice(2).use(old, lambda session: profile(session, 2))


def test_without_ceilings():
    result = replace(PROFILE, ceilings=None)
    assert result.fma_share is None
    data = json.loads(json.dumps(result.to_json()))
    assert data["kernels"][0]["share_of_ceiling"] is data["ceilings"] is None
    assert data["kernels"][0]["gflops"] == pytest.approx(40)
