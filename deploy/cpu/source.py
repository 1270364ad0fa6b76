"""The C that a network's library is made of besides its kernels: the plan of a frame as data, and
the runtime of `deploy/cpu/runtime`, under the library's own prefix."""

import math
from pathlib import Path

import numpy as np
import tvm_ffi

from deploy.arena import aligned
from deploy.cpu.feature_bits import feature_bits
from deploy.cpu.symbols import renamer
from deploy.graph.ends import LOGITS
from deploy.graph.frame import Entry, Frame, Space, Tensor
from deploy.target import Target

RUNTIME = Path(__file__).parent / "runtime"
HEADERS, SOURCES, SERVED = (
    ("frame.h", "hmseg.h", "tools.h"),
    ("cpu.c", "network.c", "pool.c"),
    "tvm.c",
)
_ALIGNMENT = 64  # of the constants: vectors are read at it


def runtime_text(name: str, prefix: str) -> str:
    """A file of the runtime, its names with another prefix."""
    text = (RUNTIME / name).read_text()
    rename = renamer(prefix)
    for symbol in (
        "__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace",
        "TVMFFIErrorSetRaisedFromCStrParts",
    ):  # fmt: skip
        text = text.replace(symbol, rename(symbol))
    return with_prefix(text, prefix)


def with_prefix(text: str, prefix: str) -> str:
    """C whose names have another prefix than the runtime's own."""
    return text.replace("hmseg_", f"{prefix}_").replace("HMSEG_", f"{prefix.upper()}_")


def frame_text(frame: Frame, target: Target, prefix: str) -> str:
    """The C file that holds the plan of a frame."""
    main, scores = frame.entries["main"], frame.entries.get(LOGITS, frame.entries["main"])
    input_offset = frame.map_bytes
    arena = input_offset + aligned(main.input.bytes)
    kernels = {name: number for number, name in enumerate(frame.kernels)}
    shapes = _Shapes()
    entries = [_entry_text("main", main, kernels, shapes)]
    if scores is not main:
        entries.append(_entry_text("scores", scores, kernels, shapes))
    bits, kept = feature_bits(target)
    rename, (rows, row_bytes) = renamer(prefix), _rows(main.input)
    symbols = [rename(f"__tvm_ffi_{name}") for name in kernels]
    arguments = "void *, const hmseg_any *, int32_t, hmseg_any *"
    declared = [f"extern int {symbol}({arguments});" for symbol in symbols]
    listed = ",\n    ".join(symbols)
    last = "main" if scores is main else "scores"
    features = ",\n    ".join(
        f"{{0x{leaf:x}u, {sub}, {reg}, {bit}}}" for leaf, sub, reg, bit in bits
    )
    lines = [
        '#include "frame.h"',
        "",
        *declared,
        "",
        f"static const hmseg_kernel kernels[] = {{\n    {listed}\n}};",
        shapes.text(),
        *entries,
        f"static const hmseg_feature features[] = {{\n    {features or '{0, 0, 0, 0}'}\n}};",
        "extern const unsigned char hmseg_constants[];",
        "const hmseg_frame_plan hmseg_frame = {",
        f"    kernels, {len(kernels)}, &main_entry, &{last}_entry,",
        f"    features, {len(bits)}, 0x{kept:x}u, {arena}u, {input_offset}u, {rows}, {row_bytes},",
        "    hmseg_constants",
        "};",
        "",
    ]
    text = "\n".join(lines)
    return with_prefix(text, prefix)


def constants_text(prefix: str) -> str:
    """The assembly that puts the file constants.bin, in the folder, into read-only data."""
    return (
        f'.section .rodata,"a"\n.balign {_ALIGNMENT}\n.globl {prefix}_constants\n'
        f".hidden {prefix}_constants\n{prefix}_constants:\n"
        f'.incbin "constants.bin"\n.byte 0\n.section .note.GNU-stack,"",%progbits\n'
    )


class _Shapes:
    """Of all tensors, each once."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[int, ...], int] = {}
        self._numbers: list[int] = []

    def at(self, shape: tuple[int, ...]) -> str:
        if shape not in self._offsets:
            self._offsets[shape] = len(self._numbers)
            self._numbers += shape
        return f"shapes + {self._offsets[shape]}"

    def text(self) -> str:
        return f"static const int64_t shapes[] = {{{', '.join(map(str, self._numbers)) or '0'}}};"


def _entry_text(name: str, entry: Entry, kernels: dict[str, int], shapes: _Shapes) -> str:
    places: list[str] = []
    calls = []
    for call in entry.calls:
        calls.append(f"{{{kernels[call.kernel]}, {len(places)}, {len(call.arguments)}}}")
        places += [_place_text(tensor, shapes) for tensor in call.arguments]
    rows, row_bytes = _rows(entry.output)
    counts = f"{len(calls)}, {len(places)}, {rows}, {row_bytes}, {entry.output.offset}u"
    return (
        f"static const hmseg_call {name}_calls[] = {{\n    " + ",\n    ".join(calls) + "\n};\n"
        f"static const hmseg_place {name}_places[] = {{\n    " + ",\n    ".join(places) + "\n};\n"
        f"static const hmseg_entry {name}_entry = {{\n"
        f"    {name}_calls, {name}_places, {counts}\n}};"
    )


def _place_text(tensor: Tensor, shapes: _Shapes) -> str:
    kind = tvm_ffi.dtype(tensor.dtype)
    return (
        f"{{{tensor.offset}u, {shapes.at(tensor.shape)}, {len(tensor.shape)}, "
        f"{{{kind.type_code}, {kind.bits}, 1}}, HMSEG_{tensor.space.name}}}"
    )


def _rows(end: Tensor) -> tuple[int, int]:
    """How many rows an input or output has, and bytes of each: an image's pixels have their
    channels beside each other, everything else is planes."""
    interleaved = end.dtype == "uint8" and len(end.shape) == 4 and end.space is Space.INPUT
    row = math.prod(end.shape[-2 if interleaved else -1 :]) * np.dtype(end.dtype).itemsize
    return end.bytes // row, row
