import itertools

import numpy as np
import pytest

from deploy.measure.ceilings import Ceilings
from deploy.pipeline import isa_of
from deploy.profile import KernelProfile, Profile, profile
from deploy.roofline import draw_roofline
from deploy.runtime import open_artifact

CEILINGS = Ceilings(2, 100.0, ((16 << 10, 400.0), (1 << 30, 20.0)))
KERNEL = KernelProfile("k", "pointwise", "spec", 2, 0.5, macs=10_000_000, bytes=10_000)


def test_rates():
    assert KERNEL.gflops == pytest.approx(40)  # 2 * 1e7 operations in 0.5 ms
    assert KERNEL.gbytes_per_s == pytest.approx(0.02)
    assert KERNEL.share_of_ceiling(CEILINGS) == pytest.approx(0.4)
    copying = KernelProfile("c", "resize", "", 1, 1.0, macs=0, bytes=10_000_000)
    assert copying.share_of_ceiling(CEILINGS) == pytest.approx(0.5)  # 10 MB at 20 GB/s, 0.5 ms
    assert Profile((KERNEL,), 1.0, CEILINGS).fma_share == pytest.approx(0.2)


def test_the_level_of_memory_is_that_of_one_call():
    # 100 calls of 10 kB each: every call fits 16 KiB a thread, so 1 MB at 400 GB/s, 2.5 us.
    often = KernelProfile("o", "resize", "", 100, 0.005, macs=0, bytes=1_000_000)
    assert often.share_of_ceiling(CEILINGS) == pytest.approx(0.5)


def test_every_kernel_of_a_frame_is_timed(small_artifact, cpu):
    network = open_artifact(small_artifact, "small")
    clock = itertools.count(step=1000)
    result = profile(network, small_artifact.golden.image, CEILINGS, lambda: next(clock), repeat=3)
    called = {kernel.name for kernel in result.kernels}
    assert called <= {kernel.name for kernel in small_artifact.kernels}
    assert all(kernel.median_ms > 0 for kernel in result.kernels)
    if isa_of(cpu) is not None:
        assert "labels_end" in {kernel.template for kernel in result.kernels}
    # The instrument is gone afterwards, and results are what they were.
    np.testing.assert_array_equal(
        network(small_artifact.golden.image), small_artifact.golden.labels
    )


def test_roofline_is_a_picture(tmp_path):
    from PIL import Image

    path = tmp_path / "roofline.png"
    draw_roofline(Profile((KERNEL,), 1.0, CEILINGS), "title", path)
    assert Image.open(path).size[0] > 400
