"""What a cubin, an ELF file for NVIDIA's GPUs, says of itself."""

import struct
from dataclasses import dataclass

from lut.errors import UserError

EM_CUDA = 190  # e_machine of the ELF header
_NEW_FLAGS = 8  # ABI version of CUDA 13, from which the architecture is the second byte
_SYMTAB, _STT_FUNC = 2, 2


@dataclass(frozen=True)
class Cubin:
    """The architecture that the code is for, such as ``sm_61``, and the names of its kernels."""

    architecture: str
    kernels: frozenset[str]


def read_cubin(data: bytes) -> Cubin:
    """Parse the ELF header and the symbols; raises UserError for anything but a cubin."""
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise UserError(f"not a cubin ({error})") from error


def _read(data: bytes) -> Cubin:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit ELF file")
    (machine,) = struct.unpack_from("<H", data, 18)
    if machine != EM_CUDA:
        raise ValueError(f"machine {machine} is not CUDA's {EM_CUDA}")
    offset, flags = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<I", data, 48)[0]
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size) for i in range(count)]
    architecture = (flags >> 8 if data[8] >= _NEW_FLAGS else flags) & 0xFF
    kernels: set[str] = set()
    for _, kind, _, _, start, length, link, _, _, entry in sections:
        if kind != _SYMTAB:
            continue
        names = sections[link][4]
        for at in range(start, start + length, entry):
            name, info = struct.unpack_from("<IB", data, at)
            if info & 15 == _STT_FUNC:
                end = data.index(b"\0", names + name)
                kernels.add(data[names + name : end].decode())
    return Cubin(f"sm_{architecture}", frozenset(kernels))
