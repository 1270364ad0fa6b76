"""What CUDA's words mean in emulation: a warp's shuffles are as NVIDIA's guide says of them."""

import numpy as np
import pytest

from deploy.gpu.emulator import EmulatedGpu
from lut.errors import WorkError

# y[i] for thread i of a block of any size. Of TVM's reductions: a mask, shuffles down, a broadcast.
SOURCE = """
#include <cuda.h>
extern "C" __global__ void sums(float* x, float* y) {
  const unsigned mask = __activemask();
  float sum = x[threadIdx.x];
  for (int by = 16; by; by /= 2) {
    const float other = __shfl_down_sync(mask, sum, by, 32);
    if (threadIdx.x % 32 + by < __builtin_popcount(mask)) sum += other;
  }
  y[threadIdx.x] = __shfl_sync(mask, sum, 0, 32);
}

extern "C" __global__ void whole(float* x, float* y) {
  __shared__ float parts[32];
  float sum = x[threadIdx.x];
  unsigned mask = __activemask();
  for (int by = 16; by; by /= 2) sum += __shfl_down_sync(mask, sum, by, 32);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 4) {
    sum = parts[threadIdx.x];
    mask = __activemask();
    sum += __shfl_down_sync(mask, sum, 2, 4);
    sum += __shfl_down_sync(mask, sum, 1, 4);
    if (threadIdx.x == 0) parts[0] = sum;
  }
  __syncthreads();
  y[threadIdx.x] = parts[0];
}

extern "C" __global__ void lanes(float* x, double* y) {
  const double own = x[threadIdx.x];
  const unsigned all = 0xffffffffu;
  y[threadIdx.x] = __shfl_up_sync(all, own, 3, 8);
  y[32 + threadIdx.x] = __shfl_down_sync(all, own, 3, 8);
  y[64 + threadIdx.x] = __shfl_sync(all, own, threadIdx.x + 1, 16);
}

extern "C" __global__ void masks(float* x, unsigned* y) {
  if (threadIdx.x % 3 == 0) return;
  if (x[threadIdx.x] > 0) {
    y[threadIdx.x] = __activemask();
  } else {
    y[threadIdx.x] = __activemask();
  }
}

extern "C" __global__ void missing(float* x, float* y) {
  if (threadIdx.x < 16) {
    const unsigned mask = __activemask();
    y[threadIdx.x] = __shfl_down_sync(mask, x[threadIdx.x], 8, 32);
  }
}

extern "C" __global__ void stuck(float* x, float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 8, 32);
  __syncthreads();
}
"""


@pytest.fixture(scope="module")
def gpu() -> EmulatedGpu:
    return EmulatedGpu(SOURCE)


@pytest.fixture(params=[False, True])
def launch(request, gpu):
    """A kernel on one block, its threads in one order and the other."""

    def run(kernel, given, result):
        addresses = [given.ctypes.data, result.ctypes.data]
        block = (len(given), 1, 1)
        gpu.launch(kernel, (1, 1, 1), block, addresses, backwards=request.param)
        return result

    return run


def numbers(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(-50, 50, count).astype(np.float32)


@pytest.mark.parametrize("count", [32, 20, 50, 1])
def test_a_warp_adds_up(launch, count):
    """Also one that is not full."""
    x = numbers(count)
    y = launch("sums", x, np.empty(count, np.float32))
    for first in range(0, count, 32):
        assert (y[first : first + 32] == x[first : first + 32].sum()).all()


def test_a_block_adds_up(launch):
    x = numbers(128)
    assert (launch("whole", x, np.empty(128, np.float32)) == x.sum()).all()


def test_lanes_of_a_part_of_a_warp(launch):
    """8 bytes; past the end of the part a lane keeps its own."""
    x, lane = numbers(32), np.arange(32)
    up, down, any_lane = launch("lanes", x, np.empty((3, 32)))
    np.testing.assert_array_equal(up, x[np.where(lane % 8 >= 3, lane - 3, lane)])
    np.testing.assert_array_equal(down, x[np.where(lane % 8 < 5, lane + 3, lane)])
    np.testing.assert_array_equal(any_lane, x[lane // 16 * 16 + (lane + 1) % 16])


def test_the_mask_has_those_at_the_same_place(launch):
    x, lane = numbers(32), np.arange(32)
    left = lane % 3 != 0
    bits = 1 << lane.astype(np.uint32)
    y = launch("masks", x, np.zeros(32, np.uint32))
    for side in (x > 0, x <= 0):
        assert (y[left & side] == bits[left & side].sum()).all()
    assert (y[~left] == 0).all()


def test_a_lane_that_is_not_there_shows(launch):
    x = numbers(32)
    y = launch("missing", x, np.zeros(32, np.float32))
    np.testing.assert_array_equal(y[:8], x[8:16])
    assert np.isnan(y[8:16]).all()


def test_threads_that_wait_for_ever(launch):
    x, y = numbers(32), np.zeros(32, np.float32)
    with pytest.raises(WorkError, match="threads of stuck wait for others for ever"):
        launch("stuck", x, y)
    assert (launch("whole", numbers(128), np.empty(128, np.float32)) == numbers(128).sum()).all()
