"""Names in object files that are made anew for each library, so that a program can link several.

A kernel has one name, by which its object file serves every network (`deploy.object_cache`). Names
are changed in place, to others of the same length: no other byte of the file moves.
"""

import hashlib
import struct
from collections.abc import Callable

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little end first
_SYMBOLS, _LEAST = 2, 5  # a section's type; bytes of a name that are changed
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
# What TVM's compiled kernels define, and what they ask for.
_OF_TVM = ("__tvm_ffi_", "__TVMBackend", "TVMFFI")


def renamer(prefix: str) -> Callable[[str], str]:
    """Gives a kernel's names those of the library with this prefix; all others stay."""
    number, digits = int(hashlib.sha256(prefix.encode()).hexdigest(), 16), ""
    for _ in range(_LEAST - 1):
        number, digit = divmod(number, 36)
        digits += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    return lambda name: f"h{digits}{name[_LEAST:]}" if name.startswith(_OF_TVM) else name


def rename_symbols(data: bytes, rename: Callable[[str], str]) -> bytes:
    """An object file whose symbols have other names of the same length. Raises ValueError for what
    is no object file of a 64-bit machine."""
    if not data.startswith(_MAGIC):
        raise ValueError("no 64-bit ELF object file")
    changed = bytearray(data)
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, start + i * size) for i in range(count)]
    for _, kind, _, _, offset, length, link, _, _, each in sections:
        if kind != _SYMBOLS:
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, each):
            begin = names + _SYMBOL.unpack_from(data, at)[0]
            end = data.index(b"\0", begin)
            name = data[begin:end].decode()
            new = rename(name).encode()
            if len(new) != end - begin:
                raise ValueError(f"{name} cannot become {new.decode()}")
            changed[begin:end] = new
    return bytes(changed)
