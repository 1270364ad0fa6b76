"""What kernels' code says of their parameters; NVRTC and our own OpenCL are the reference."""

import pytest

from deploy.gpu.parameters import (
    parameters_in_cubin,
    parameters_in_opencl,
    parameters_in_ptx,
    wrong_launch,
)

SOURCE = """
extern "C" __global__ void __launch_bounds__(64) one(
    float* __restrict__ a, const float* b, float* c)
{ c[0] = a[0] + b[0]; }
extern "C" __global__ void two(float* a) { a[0] = 1; }
"""


@pytest.mark.parametrize("architecture", ["61", "90"])
def test_what_nvrtc_writes(architecture):
    from deploy.gpu.nvrtc import compile_cubin, compile_ptx

    wanted = {"one": 3, "two": 1}
    assert parameters_in_cubin(compile_cubin(SOURCE, f"sm_{architecture}")) == wanted
    assert parameters_in_ptx(compile_ptx(SOURCE, f"compute_{architecture}").decode()) == wanted


def test_a_kernel_that_does_not_tell():
    """The entries of its parameters, those of attribute 0x17 in its section, made others."""
    from deploy.gpu.nvrtc import compile_cubin

    data = compile_cubin(SOURCE, "sm_61").replace(b"\x04\x17\x0c\x00", b"\x04\x7f\x0c\x00")
    found = parameters_in_cubin(data)
    assert found == {"one": None, "two": None}
    assert wrong_launch({"one": {3}, "two": {7}}, found) == ""
    assert wrong_launch({"three": {3}}, found) == "its code has no kernel 'three'"


def test_opencl():
    text = """
    __kernel __attribute__((reqd_work_group_size(8, 8, 1))) void k(
        __global float* a, __global const float* restrict b) { }
    __kernel void none() { }
    """
    assert parameters_in_opencl(text) == {"k": 2, "none": 0}


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01" + b"\xff" * 58, b"no ELF at all" * 9])
def test_no_cubin(data):
    assert parameters_in_cubin(data) == {}


def test_launches():
    assert wrong_launch({"k": {2}}, {"k": 2, "other": 1}) == ""
    assert wrong_launch({"k": {2}}, {}) == ""
    assert wrong_launch({"k": {2, 3}}, {"k": 2}) == (
        "the kernel 'k' has 2 parameters, it is given 2, 3"
    )
    assert wrong_launch({"x": {2}}, {"k": 2}) == "its code has no kernel 'x'"
