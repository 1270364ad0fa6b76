"""How many parameters the kernels of a program's code have, by the code itself: a launch with fewer
would read beyond what it is given."""

import re
import struct
from collections.abc import Iterator, Mapping

_PTX_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)")
_OPENCL_KERNEL = re.compile(r"\b(?:__)?kernel\s+(?:__attribute__\s*\(\(.*?\)\)\s*)?void\s+(?:"
                            r"__attribute__\s*\(\(.*?\)\)\s*)?(\w+)\s*\(([^)]*)\)")  # fmt: skip
_INFO = b".nv.info."  # the section of a cubin that describes a kernel, before its name
_FORM_SIZED, _PARAMETER = 4, 0x17  # of an entry there: with bytes behind it; of one parameter


def parameters_in_ptx(text: str) -> dict[str, int]:
    """Of the kernels in PTX."""
    return {name: inside.count(".param") for name, inside in _PTX_ENTRY.findall(text)}


def parameters_in_opencl(text: str) -> dict[str, int]:
    """Of the kernels in OpenCL C."""
    return {
        name: inside.count(",") + 1 if inside.strip() else 0
        for name, inside in _OPENCL_KERNEL.findall(text)
    }


def parameters_in_cubin(data: bytes) -> dict[str, int | None]:
    """Of the kernels in a cubin, an ELF file; none of what is no such file, which no driver
    loads. None for a kernel whose section does not tell: other compilers may say it in another way.
    """
    found: dict[str, int | None] = {}
    try:
        for name, content in _sections(data):
            if name.startswith(_INFO):
                found[name.removeprefix(_INFO).decode()] = _count(content) or None
    except (struct.error, IndexError, ValueError, OverflowError):
        return {}
    return found


def _sections(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names_at = struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    names = heads[names_at][4]
    for name, _, _, _, start, length in heads:
        end = data.index(b"\0", names + name)
        yield data[names + name : end], data[start : start + length]


def _count(content: bytes) -> int:
    found = at = 0
    while at < len(content):
        form, attribute, size = struct.unpack_from("<BBH", content, at)
        found += attribute == _PARAMETER
        at += 4 + (size if form == _FORM_SIZED else 0)
    return found


def wrong_launch(launches: Mapping[str, set[int]], code: Mapping[str, int | None]) -> str:
    """What is wrong with launches, the numbers of arguments by kernel; "" where nothing is, or
    where the code does not tell."""
    for kernel, counts in launches.items() if code else ():
        if kernel not in code:
            return f"its code has no kernel {kernel!r:.80}"
        if code[kernel] is not None and counts != {code[kernel]}:
            given = ", ".join(map(str, sorted(counts)))
            return f"the kernel {kernel!r:.80} has {code[kernel]} parameters, it is given {given}"
    return ""
