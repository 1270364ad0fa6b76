"""Run one kernel for 64-bit ARM under qemu, by a program of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deploy.cpu.machine_code import compile_kernel
from deploy.targets import resolve_target
from tests.conditions import qemu

_CODES = {"i": 0, "u": 1, "f": 2}
_MAIN = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct { int32_t type, small; void *pointer; } Any;
typedef struct {
    void *data; int32_t device, id, ndim; uint8_t code, bits; uint16_t lanes;
    int64_t *shape, *strides; uint64_t offset;
} Tensor;
typedef struct { void *sync; int32_t tasks; } Group;
typedef int (*Task)(int, Group *, void *);

int __tvm_ffi_k(void *, const Any *, int32_t, Any *);
extern void *__TVMBackendParallelLaunch __attribute__((weak));
extern void *__TVMBackendAllocWorkspace __attribute__((weak));
extern void *__TVMBackendFreeWorkspace __attribute__((weak));
void TVMFFIErrorSetRaisedFromCStrParts(void) { exit(3); }

static int launch(Task task, void *data, int tasks)
{
    Group group = {0, 1};
    return task(0, &group, data);
}
static void *allocate(int type, int id, uint64_t bytes, int code, int bits)
{
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}
static int release(int type, int id, void *memory) { free(memory); return 0; }

static int64_t shapes[][8] = {SHAPES};
static Tensor tensors[] = {TENSORS};
enum { COUNT = sizeof tensors / sizeof *tensors };

int main(void)
{
    Any arguments[COUNT], result = {0};
    size_t bytes = 0;
    for (int i = 0; i < COUNT; i++) {
        bytes = tensors[i].bits / 8;
        for (int k = 0; k < tensors[i].ndim; k++)
            bytes *= shapes[i][k];
        tensors[i].shape = shapes[i];
        tensors[i].data = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (fread(tensors[i].data, 1, bytes, stdin) != bytes)
            return 2;
        arguments[i] = (Any){7, 0, &tensors[i]};
    }
    if (&__TVMBackendParallelLaunch)
        __TVMBackendParallelLaunch = (void *)launch;
    if (&__TVMBackendAllocWorkspace)
        __TVMBackendAllocWorkspace = (void *)allocate;
    if (&__TVMBackendFreeWorkspace)
        __TVMBackendFreeWorkspace = (void *)release;
    if (__tvm_ffi_k(0, arguments, COUNT, &result))
        return 4;
    return fwrite(tensors[COUNT - 1].data, 1, bytes, stdout) != bytes;
}
"""


def run(func: Any, cpu: str, arrays: list[np.ndarray], out: np.ndarray) -> np.ndarray:
    """The output, which starts as `out`, of a kernel for a CPU by LLVM's name."""
    every = [*map(np.ascontiguousarray, arrays), out]
    shapes = ", ".join(f"{{{', '.join(map(str, a.shape))}}}" for a in every)
    tensors = ", ".join(
        f"{{0, 1, 0, {a.ndim}, {_CODES[a.dtype.kind]}, {8 * a.itemsize}, 1}}" for a in every
    )
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    with tempfile.TemporaryDirectory() as folder:
        main = _MAIN.replace("SHAPES", shapes).replace("TENSORS", tensors)
        (Path(folder) / "main.c").write_text(main)
        (Path(folder) / "k.o").write_bytes(compile_kernel("k", func, resolve_target(cpu)))
        subprocess.run(
            [*zig, "-O1", "-w", "main.c", "k.o", "-o", "program"], cwd=folder, check=True
        )
        done = subprocess.run(
            [qemu(), "-cpu", "max", f"{folder}/program"],
            input=b"".join(a.tobytes() for a in every), capture_output=True, check=True,
        )  # fmt: skip
    return np.frombuffer(done.stdout, out.dtype).reshape(out.shape)
