import importlib.util
import re
import stat
import struct

import pytest

from deploy.cpu.isa import NEON
from deploy.cpu.kernels import emit
from deploy.cpu.link import compile_c, link_shared, tools_of
from deploy.devices.kernels import kernel_library
from deploy.targets import resolve_target
from lut.errors import UserError
from lut.ops import GlobalPool

SIGMOID = GlobalPool(8, 8, 4, 4, "sigmoid")  # calls expf


def needed(library: bytes) -> set[str]:
    """The libraries that an ELF file asks its loader for."""
    (start,) = struct.unpack_from("<Q", library, 0x28)
    size, count = struct.unpack_from("<HH", library, 0x3A)
    sections = [struct.unpack_from("<IIQQQQII", library, start + i * size) for i in range(count)]
    dynamic = next(section for section in sections if section[1] == 6)
    strings = sections[dynamic[6]][4]
    entries = (struct.unpack_from("<QQ", library, dynamic[4] + i) for i in range(0, dynamic[5], 16))
    names = [strings + value for tag, value in entries if tag == 1]
    return {library[at : library.index(b"\0", at)].decode() for at in names}


@pytest.mark.parametrize(
    ("target", "libraries"),
    [
        ("arm", {"libm.so.6", "libpthread.so.0", "libc.so.6"}),
        ("android", {"libm.so", "libc.so"}),
    ],
)
def test_arm_without_a_toolchain(target, libraries):
    library = kernel_library({"pool": emit(SIGMOID, NEON)}, resolve_target(target))
    assert library[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", library, 18) == (183,)  # AArch64
    assert needed(library) == libraries
    # No version of a symbol, as bionic has none; glibc takes its oldest.
    assert not re.search(rb"GLIBC_", library)
    alignments = program_alignments(library)
    assert min(alignments) >= 16384


def program_alignments(library: bytes) -> list[int]:
    """Of what the loader maps."""
    (start,) = struct.unpack_from("<Q", library, 0x20)
    size, count = struct.unpack_from("<HH", library, 0x36)
    headers = [struct.unpack_from("<IIQQQQQQ", library, start + i * size) for i in range(count)]
    return [header[7] for header in headers if header[0] == 1]


def test_this_machines_own_compiler_links_for_it():
    assert "ziglang" not in tools_of(resolve_target("x86-64")).link


def test_without_ziglang(monkeypatch):
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install ziglang$"):
        tools_of(resolve_target("arm"))
    with pytest.raises(UserError, match=r"ziglang, or set TVM_NDK_CC to the NDK's"):
        tools_of(resolve_target("android"))


def test_the_ndk_where_it_is_named(monkeypatch, tmp_path):
    """Its compiler is called with the objects; no NDK is here, so a script stands for it."""
    compiler = tmp_path / "clang"
    compiler.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/called"\ntouch lib.so\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TVM_NDK_CC", str(compiler))
    assert link_shared(tools_of(resolve_target("android")), [b"a", b"b"], ("x",)) == b""
    called = (tmp_path / "called").read_text().split()
    assert called[-5:] == ["-o", "lib.so", "part0.o", "part1.o", "-lm"]
    assert "ziglang" in tools_of(resolve_target("arm")).link
    monkeypatch.setenv("TVM_NDK_CC", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="cannot run"):
        link_shared(tools_of(resolve_target("android")), [], ("x",))


def test_an_object_that_cannot_be_linked():
    with pytest.raises(UserError, match="linking with") as caught:
        link_shared(tools_of(resolve_target("arm")), [b"not an object"], ("x",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["x86-64", "arm", "android"])
def test_the_runtime_asks_for_the_c_library_alone(target):
    """And nothing but what is named is exported, or has its name in the file."""
    tools, default = tools_of(resolve_target(target)), '__attribute__((visibility("default"))) int'
    source = f"{default} shown(void) {{ return 1; }}\n{default} hidden(void) {{ return 2; }}\n"
    objects = compile_c(tools, {"a.c": source}, ("a.c",))
    library = link_shared(tools, list(objects.values()), ("shown",))
    assert library[:4] == b"\x7fELF"
    assert b"shown\0" in library
    assert b"hidden\0" not in library
    assert needed(library) <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "libc.so", "libm.so"}


def test_a_source_that_is_none():
    with pytest.raises(UserError, match="compiling with") as caught:
        compile_c(tools_of(resolve_target("x86-64")), {"a.c": "nonsense"}, ("a.c",))
    assert "\n" not in str(caught.value)
