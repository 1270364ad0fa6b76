import shutil
import subprocess

import pytest

from deploy.cpu.link import compile_c, tools_of
from deploy.cpu.symbols import rename_symbols, renamer
from deploy.targets import resolve_target

SOURCE = """
void *__TVMBackendParallelLaunch;
static int __tvm_ffi_hidden(void) { return 1; }
int __tvm_ffi_k(void) { return __tvm_ffi_hidden(); }
int other(void) { return __tvm_ffi_k(); }
"""


@pytest.fixture
def data() -> bytes:
    return compile_c(tools_of(resolve_target("x86-64")), {"k.c": SOURCE}, ("k.c",))["k.c"]


def test_names_of_kernels_change_in_place_and_others_stay(data, tmp_path):
    rename = renamer("tiny")
    changed = rename_symbols(data, rename)
    assert len(changed) == len(data)
    (tmp_path / "k.o").write_bytes(changed)
    if shutil.which("nm"):
        names = subprocess.check_output(["nm", tmp_path / "k.o"], text=True).split()[2::3]
        assert {rename("__tvm_ffi_k"), rename("__TVMBackendParallelLaunch"), "other"} <= {*names}
        assert not any(name.startswith("__tvm_ffi") for name in names)


def test_names_are_of_the_prefix():
    first, second = renamer("a"), renamer("b")
    assert first("__tvm_ffi_k") != second("__tvm_ffi_k")
    assert first("__tvm_ffi_k") == renamer("a")("__tvm_ffi_k")
    assert len(first("__tvm_ffi_k")) == len("__tvm_ffi_k")
    assert first("memset") == "memset"


@pytest.mark.parametrize("data", [b"", b"!<arch>", b"\x7fELF\x01\x01" + b"0" * 60])
def test_what_is_no_object_file(data):
    with pytest.raises(ValueError, match="no 64-bit ELF"):
        rename_symbols(data, renamer("a"))


def test_another_length_is_refused(data):
    with pytest.raises(ValueError, match="cannot become"):
        rename_symbols(data, lambda name: name + "x" if name == "other" else name)
