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
# Without a C library, which would have to be compiled first: it needs three calls of Linux.
_MAIN = r"""
typedef unsigned char byte;
typedef int int32;
typedef unsigned long word;

typedef struct { int32 type, small; void *pointer; } Any;
typedef struct {
    void *data; int32 device, id, ndim; byte code, bits; short lanes;
    long *shape, *strides; word offset;
} Tensor;
typedef struct { void *sync; int32 tasks; } Group;
typedef int (*Task)(int, Group *, void *);

int __tvm_ffi_k(void *, const Any *, int32, Any *);
extern void *__TVMBackendParallelLaunch __attribute__((weak));
extern void *__TVMBackendAllocWorkspace __attribute__((weak));
extern void *__TVMBackendFreeWorkspace __attribute__((weak));

static long call(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
static void leave(int code) { for (;;) call(93, code, 0, 0); }
static void move(long number, long file, byte *data, word bytes)
{
    while (bytes) {
        long done = call(number, file, (long)data, bytes);
        if (done <= 0)
            leave(2);
        data += done, bytes -= done;
    }
}
void TVMFFIErrorSetRaisedFromCStrParts(void) { leave(3); }
void *memset(void *to, int value, word count)
{
    for (volatile byte *at = to; count--; at++)
        *at = value;
    return to;
}
void *memcpy(void *to, const void *from, word count)
{
    const byte *source = from;
    for (volatile byte *at = to; count--; at++)
        *at = *source++;
    return to;
}

static byte memory[32 << 20] __attribute__((aligned(64)));
static word used;
static void *allocate(int type, int id, word bytes, int code, int bits)
{
    used += (bytes + 63) / 64 * 64;
    if (used > sizeof memory)
        leave(5);
    return memory + used - (bytes + 63) / 64 * 64;
}
static int release(int type, int id, void *data) { return 0; }
static int launch(Task task, void *data, int tasks)
{
    Group group = {0, 1};
    return task(0, &group, data);
}

static long shapes[][8] = {SHAPES};
static Tensor tensors[] = {TENSORS};
enum { COUNT = sizeof tensors / sizeof *tensors };

__attribute__((used)) static void work(void)
{
    Any arguments[COUNT], result = {0};
    word bytes = 0;
    for (int i = 0; i < COUNT; i++) {
        bytes = tensors[i].bits / 8;
        for (int k = 0; k < tensors[i].ndim; k++)
            bytes *= shapes[i][k];
        tensors[i].shape = shapes[i];
        tensors[i].data = allocate(0, 0, bytes, 0, 0);
        move(63, 0, tensors[i].data, bytes);
        arguments[i] = (Any){7, 0, &tensors[i]};
    }
    if (&__TVMBackendParallelLaunch)
        __TVMBackendParallelLaunch = (void *)launch;
    if (&__TVMBackendAllocWorkspace)
        __TVMBackendAllocWorkspace = (void *)allocate;
    if (&__TVMBackendFreeWorkspace)
        __TVMBackendFreeWorkspace = (void *)release;
    if (__tvm_ffi_k(0, arguments, COUNT, &result))
        leave(4);
    move(64, 1, tensors[COUNT - 1].data, bytes);
    leave(0);
}
void _start(void) { work(); }
"""


def run(func: Any, cpu: str, arrays: list[np.ndarray], out: np.ndarray) -> np.ndarray:
    """The output, which starts as `out`, of a kernel for a CPU by LLVM's name."""
    every = [*map(np.ascontiguousarray, arrays), out]
    shapes = ", ".join(f"{{{', '.join(map(str, a.shape))}}}" for a in every)
    tensors = ", ".join(
        f"{{0, 1, 0, {a.ndim}, {_CODES[a.dtype.kind]}, {8 * a.itemsize}, 1}}" for a in every
    )
    zig = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "aarch64-freestanding",
        "-nostdlib",
        "-static",
    ]
    with tempfile.TemporaryDirectory() as folder:
        main = _MAIN.replace("SHAPES", shapes).replace("TENSORS", tensors)
        (Path(folder) / "main.c").write_text(main)
        (Path(folder) / "k.o").write_bytes(compile_kernel("k", func, resolve_target(cpu)))
        subprocess.run(
            [
                *zig,
                "-O1",
                "-w",
                "-fno-builtin",
                "-fno-sanitize=all",
                "main.c",
                "k.o",
                "-o",
                "program",
            ],
            cwd=folder,
            check=True,
        )
        done = subprocess.run(
            [qemu(), "-cpu", "max", f"{folder}/program"],
            input=b"".join(a.tobytes() for a in every), capture_output=True, check=True,
        )  # fmt: skip
    return np.frombuffer(done.stdout, out.dtype).reshape(out.shape)
