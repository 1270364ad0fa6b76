"""NVIDIA's driver, libcuda, through ctypes: what a network needs of it. No toolkit, no runtime.

Prototypes follow cuda.h; a test compiles a stand-in against that header and runs this file on it.
"""

import ctypes
import os
from ctypes import (
    POINTER,
    byref,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_ubyte,
    c_uint,
    c_uint64,
    c_void_p,
)
from typing import Any

from lut.errors import UserError, WorkError

LIBRARY = "libcuda.so.1"
LEAST_VERSION = 12000  # what loads machine code of CUDA 12's compiler: CUDA 12.0, driver 525

_OUT_OF_MEMORY, _NOT_INITIALISED, _NO_DEVICE = 2, 3, 100
_NO_BINARY, _UNSUPPORTED_PTX = 209, 222
_MINOR, _MAJOR = 76, 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
NON_BLOCKING = 1  # a stream that does not wait for the default one
THREAD_LOCAL = 1  # capture: other threads may go on

_handle = c_void_p
_address = c_uint64

_PROTOTYPES: dict[str, list[Any]] = {
    "cuInit": [c_uint],
    "cuDriverGetVersion": [POINTER(c_int)],
    "cuGetErrorString": [c_int, POINTER(c_char_p)],
    "cuDeviceGetCount": [POINTER(c_int)],
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDeviceGetName": [c_char_p, c_int, c_int],
    "cuDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(_handle), c_int],
    "cuCtxSetCurrent": [_handle],
    "cuMemGetInfo_v2": [POINTER(c_size_t), POINTER(c_size_t)],
    "cuMemAlloc_v2": [POINTER(_address), c_size_t],
    "cuMemFree_v2": [_address],
    "cuMemHostAlloc": [POINTER(c_void_p), c_size_t, c_uint],
    "cuMemFreeHost": [c_void_p],
    "cuMemsetD8Async": [_address, c_ubyte, c_size_t, _handle],
    "cuMemcpyHtoDAsync_v2": [_address, c_void_p, c_size_t, _handle],
    "cuMemcpyDtoDAsync_v2": [_address, _address, c_size_t, _handle],
    "cuMemcpyDtoHAsync_v2": [c_void_p, _address, c_size_t, _handle],
    "cuModuleLoadData": [POINTER(_handle), c_char_p],
    "cuModuleUnload": [_handle],
    "cuModuleGetFunction": [POINTER(_handle), _handle, c_char_p],
    "cuStreamCreate": [POINTER(_handle), c_uint],
    "cuStreamDestroy_v2": [_handle],
    "cuStreamSynchronize": [_handle],
    "cuStreamBeginCapture_v2": [_handle, c_int],
    "cuStreamEndCapture": [_handle, POINTER(_handle)],
    "cuGraphInstantiateWithFlags": [POINTER(_handle), _handle, c_uint64],
    "cuGraphLaunch": [_handle, _handle],
    "cuGraphDestroy": [_handle],
    "cuGraphExecDestroy": [_handle],
    "cuLaunchKernel": [
        _handle, *[c_uint] * 7, _handle, POINTER(c_void_p), POINTER(c_void_p)
    ],
    "cuEventCreate": [POINTER(_handle), c_uint],
    "cuEventRecord": [_handle, _handle],
    "cuEventRecordWithFlags": [_handle, _handle, c_uint],
    "cuEventSynchronize": [_handle],
    "cuEventElapsedTime": [POINTER(c_float), _handle, _handle],
    "cuEventDestroy_v2": [_handle],
}  # fmt: skip


class NoGpuError(UserError):
    """There is no NVIDIA GPU here, or no driver for it."""


class ForkedError(UserError):
    """The driver was started by this process's parent, before it forked: NVIDIA's driver then works
    in the parent alone."""

    def __init__(self, text: str = "") -> None:
        super().__init__(
            text
            or "this process was forked from one that uses the GPU, and NVIDIA's driver works "
            "in that one alone; use the GPU behind the fork and not before it, or start processes "
            'with multiprocessing\'s "spawn"'
        )


class Driver:
    """The library, and one GPU's primary context: that which torch and others share."""

    def __init__(self, library: str | None = None) -> None:
        try:
            self._library = ctypes.CDLL(library or LIBRARY)
        except OSError as error:
            raise NoGpuError(
                "no NVIDIA driver on this machine (libcuda.so.1 is not found); a GPU is needed"
            ) from error
        for symbol, arguments in _PROTOTYPES.items():
            try:
                function = getattr(self._library, symbol)
            except AttributeError as error:
                raise _too_old("") from error
            function.argtypes, function.restype = arguments, c_int
        status = self._library.cuInit(0)
        if status == _NOT_INITIALISED:
            raise ForkedError
        if status:
            text = "no NVIDIA GPU" if status == _NO_DEVICE else f"no GPU: {self._text(status)}"
            raise NoGpuError(f"{text} on this machine; a GPU is needed")
        version = self._int("cuDriverGetVersion")
        self.version = f"{version // 1000}.{version % 1000 // 10}"
        if version < LEAST_VERSION:
            raise _too_old(f", it has CUDA {self.version}")
        if self._int("cuDeviceGetCount") == 0:
            raise NoGpuError("no NVIDIA GPU on this machine; a GPU is needed")
        self._device = self._int("cuDeviceGet", 0)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), self._device)
        self.name = name.value.decode()
        major, minor, self.multiprocessors = (
            self._int("cuDeviceGetAttribute", attribute, self._device)
            for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS)
        )
        self.capability = 10 * major + minor
        self._context = self.handle("cuDevicePrimaryCtxRetain", self._device)
        self._process = os.getpid()
        self.enter()

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that started the driver."""
        return self._process != os.getpid()

    @property
    def architecture(self) -> str:
        """The one whose machine code is made for this GPU, such as ``sm_61``."""
        return f"sm_{self.capability}"

    def enter(self) -> None:
        """Make the GPU's context that of the calling thread."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401
        """Call a function of the driver; raises UserError where memory is exhausted, WorkError for
        any other failure."""
        status = getattr(self._library, name)(*arguments)
        if status == 0:
            return
        if status == _OUT_OF_MEMORY:
            raise UserError(
                f"the memory of the {self.name} is exhausted; free some, or compile the network "
                "for a smaller resolution"
            )
        raise WorkError(f"{name} failed on the GPU: {self._text(status)}")

    def handle(self, name: str, *arguments: Any) -> c_void_p:  # noqa: ANN401
        """What a function writes to its first parameter."""
        made = _handle()
        self.call(name, byref(made), *arguments)
        return made

    def load(self, code: bytes, name: str) -> c_void_p:
        """A module of machine code or PTX; raises UserError where this driver cannot load it."""
        made = _handle()
        status = self._library.cuModuleLoadData(byref(made), code)  # ctypes ends it with a zero
        if status == _UNSUPPORTED_PTX:
            detail = f" for this artifact's {name}, it has CUDA {self.version}"
            raise _too_old(detail, "575 or later for code of CUDA 12.9, 580 for CUDA 13")
        if status == _NO_BINARY:
            raise UserError(f"the artifact's {name} does not run on the {self.name}")
        if status:
            raise WorkError(f"loading {name} on the GPU failed: {self._text(status)}")
        return made

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of the GPU's memory; raises UserError where it has not as
        many."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        address = _address()
        status = self._library.cuMemAlloc_v2(byref(address), size)
        if status == _OUT_OF_MEMORY:
            raise UserError(
                f"the network needs {size / 1e6:.0f} MB of the {self.name}, {free.value / 1e6:.0f} "
                f"of {total.value / 1e6:.0f} MB are free; free some, or compile it for a smaller "
                "resolution"
            )
        if status:
            raise WorkError(f"cuMemAlloc failed on the GPU: {self._text(status)}")
        return address.value

    def milliseconds(self, start: c_void_p, stop: c_void_p) -> float:
        """Between two recorded events."""
        elapsed = c_float()
        self.call("cuEventElapsedTime", byref(elapsed), start, stop)
        return elapsed.value

    def _int(self, name: str, *arguments: Any) -> int:  # noqa: ANN401
        value = c_int()
        self.call(name, byref(value), *arguments)
        return value.value

    def _text(self, status: int) -> str:
        text = c_char_p()
        known = self._library.cuGetErrorString(status, byref(text)) == 0 and text.value
        return text.value.decode() if known and text.value else f"error {status}"


def _too_old(detail: str, least: str = "525 or later, CUDA 12") -> UserError:
    return UserError(f"the NVIDIA driver is too old{detail}; update it ({least})")
