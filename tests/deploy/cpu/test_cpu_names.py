from pathlib import Path

import pytest
from tvm.target import Target, codegen

from deploy.cpu import cpu_names
from deploy.cpu.cpu_names import ARM_ALIASES, CPU_NAMES

TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


@pytest.mark.parametrize("architecture", TRIPLES)
def test_they_are_those_that_llvm_lists(architecture):
    target = Target({"kind": "llvm", "mtriple": TRIPLES[architecture]})
    listed = set(map(str, codegen.llvm_get_cpu_archlist(target)))
    assert listed == CPU_NAMES[architecture] - ARM_ALIASES, Path(cpu_names.__file__).name


def test_other_names_of_the_same_cpus():
    assert all(codegen.llvm_is_valid_cpu(name, TRIPLES["aarch64"]) for name in ARM_ALIASES)
