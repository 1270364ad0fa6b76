import os
import platform
import re

import pytest

from deploy import host


def test_this_machine():
    assert host.architecture() == platform.machine()
    assert host.cpu_model()
    assert {"sse2", "fpu"} <= host.cpu_flags()


def test_an_arm_machines_name():
    """Four A55 and four A76, as a phone's kernel lists them."""
    core = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: {}\nCPU revision\t: 0\n\n"
    text = "".join(core.format(n, "0xd05" if n < 4 else "0xd0b") for n in range(8))
    board = "Rock 5 B"
    assert host.arm_model(text, board) == "Rock 5 B, 4 cores 0x41/0xd05, 4 cores 0x41/0xd0b"
    assert host.arm_model(text, "") == "4 cores 0x41/0xd05, 4 cores 0x41/0xd0b"
    assert host.arm_model("model name\t: an x86 CPU\n", "") == ""


def test_missing_features_are_named_as_llvm_names_them():
    flags = frozenset({"avx2", "avx512_vnni", "pni", "abm"})
    assert host.missing_features(("avx2", "avx512vnni", "sse3", "lzcnt"), flags) == ()
    assert host.missing_features(("avx2", "avx512f", "made-up"), flags) == ("avx512f", "made-up")
    assert host.missing_features((), frozenset()) == ()


def test_every_name_is_one_llvm_knows():
    import tvm
    from tvm.target import codegen

    known: set[str] = set()
    for mcpu in ("sapphirerapids", "znver5", "tigerlake"):
        target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": mcpu})
        known |= {str(name) for name in codegen.llvm_get_cpu_features(target)}
    assert set(host.X86_FEATURE_FLAGS) <= known
    target = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "grace"})
    assert set(host.ARM_FEATURE_FLAGS) <= {
        str(name) for name in codegen.llvm_get_cpu_features(target)
    }


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        ("0::/a/b\n", {"a/cpu.max": "50000 100000"}, [1]),
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000", "cpu.max": "max 100000"}, [3]),
        ("0::/\n", {"unified/cpu.max": "200000 100000"}, [2]),
        ("4:cpu,cpuacct:/d/x\n5:memory:/d\n",
         {"cpu/d/x/cpu.cfs_quota_us": "150000", "cpu/d/x/cpu.cfs_period_us": "100000",
          "cpu/d/cpu.cfs_quota_us": "-1", "cpu/d/cpu.cfs_period_us": "100000"}, [2]),
        ("4:cpuset:/d\n", {"cpu.max": "100000 100000"}, []),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, []),
        ("", {}, []),
    ],
)  # fmt: skip
def test_quotas_of_both_versions(tmp_path, groups, files, limits):
    """Whatever the groups around this process's allow counts too."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert list(host._quotas(groups, tmp_path)) == limits


def test_usable_cpus_are_at_least_one_and_at_most_those_of_the_process():
    assert 1 <= host.usable_cpus() <= len(os.sched_getaffinity(0))


def test_a_running_machine_has_a_digest_and_no_name():
    found = host.running_machine()
    assert found == host.running_machine()
    assert re.fullmatch("[0-9a-f]{16}", found)
