"""What this machine is: its architecture and the CPU features it has. Imports nothing heavy."""

import ctypes
import hashlib
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lut.errors import UserError

# LLVM's name of a CPU feature -> the flag in /proc/cpuinfo (x86-64) that promises it. Only what
# generated code can contain; a binary is refused on a machine that lacks one it was built with.
X86_FEATURE_FLAGS = {
    "sse3": "pni", "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "popcnt": "popcnt",
    "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "bmi": "bmi1", "bmi2": "bmi2",
    "lzcnt": "abm", "movbe": "movbe", "adx": "adx", "avxvnni": "avx_vnni",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd",
    "avx512dq": "avx512dq", "avx512vl": "avx512vl", "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi", "avx512vbmi2": "avx512_vbmi2", "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg", "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16",
    "avx512vp2intersect": "avx512_vp2intersect", "amx-tile": "amx_tile", "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16", "gfni": "gfni", "vaes": "vaes", "vpclmulqdq": "vpclmulqdq",
}  # fmt: skip

# The same for 64-bit ARM, in the kernel's names.
ARM_FEATURE_FLAGS = {
    "neon": "asimd", "crc": "crc32", "aes": "aes", "sha2": "sha2", "sha3": "sha3", "lse": "atomics",
    "rdm": "asimdrdm", "fullfp16": "asimdhp", "dotprod": "asimddp", "fp16fml": "asimdfhm",
    "rcpc": "lrcpc", "jsconv": "jscvt", "complxnum": "fcma", "sve": "sve", "sve2": "sve2",
    "i8mm": "i8mm", "bf16": "bf16",
}  # fmt: skip
FEATURE_FLAGS = {"x86_64": X86_FEATURE_FLAGS, "aarch64": ARM_FEATURE_FLAGS}

# The kernel's flags of 64-bit ARM by their bits in the auxiliary vector (ATHWCAP, AT_HWCAP2).
HWCAP = {
    16: {1: "asimd", 3: "aes", 6: "sha2", 7: "crc32", 8: "atomics", 10: "asimdhp",
         12: "asimdrdm", 13: "jscvt", 14: "fcma", 15: "lrcpc", 17: "sha3", 20: "asimddp",
         22: "sve", 23: "asimdfhm"},
    26: {1: "sve2", 13: "i8mm", 14: "bf16"},
}  # fmt: skip


BOARD = "/proc/device-tree/model"
_OF_CPU_TIME = re.compile(r"(^|,)cpu(,|$)")  # among the kinds of a control group


def architecture() -> str:
    """As ``uname -m`` prints it."""
    return platform.machine()


def cpu_flags() -> frozenset[str]:
    """The CPU flags that the kernel reports for this machine."""
    if architecture() == "aarch64":  # an emulator shows its host's /proc/cpuinfo
        return hwcap_flags(_hwcap())
    return cpuinfo_flags(Path("/proc/cpuinfo").read_text())


def cpuinfo_flags(text: str) -> frozenset[str]:
    """The CPU flags in the /proc/cpuinfo of an x86-64 machine."""
    for name, value in _cpuinfo(text):
        if name == "flags":
            return frozenset(value.split())
    return frozenset()


def cpu_model() -> str:
    """The CPU's name as the kernel reports it; on 64-bit ARM, where it has none, the board's and
    the cores' numbers."""
    try:
        board = Path(BOARD).read_text()
    except OSError:  # a server or a virtual machine
        board = ""
    return model_of(architecture(), Path("/proc/cpuinfo").read_text(), board)


def model_of(architecture: str, cpuinfo: str, board: str) -> str:
    """`cpu_model` of a machine with this /proc/cpuinfo and this file `BOARD`."""
    if architecture == "aarch64" and (name := arm_model(cpuinfo, board.rstrip("\0").strip())):
        return name
    for name, value in _cpuinfo(cpuinfo):
        if name == "model name":
            return value
    return "unknown"


def running_machine() -> str:
    """A digest that no two machines have, nor one before and after it was started anew; empty where
    the kernel does not tell. Names are no help: machines made from one image share them."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(started.strip()).hexdigest()[:16]


def max_frequency_khz(cpu: int) -> int:
    """The highest clock of CPU number `cpu`; 0 where the kernel does not tell."""
    try:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq")
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def usable_cpus() -> int:
    """How many CPUs' worth of time this process may use: the CPUs that it may run on, and no more
    than its container's quota, rounded up."""
    count = len(os.sched_getaffinity(0))
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return count
    return max(1, min([count, *_quotas(groups, Path("/sys/fs/cgroup"))]))


def default_threads() -> int:
    """TVM_NUM_THREADS, else one for each CPU that this process may use, within its container's
    quota. Raises UserError where the variable is no number."""
    given = os.environ.get("TVM_NUM_THREADS")
    if not given:
        return usable_cpus()
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"TVM_NUM_THREADS is {given!r}; it must be a whole number of at least 1")
    return int(given)


def _quotas(groups: str, root: Path) -> Iterator[int]:
    """Of this process's control groups and those around them, the limits of CPU time; of both
    versions, named by /proc/self/cgroup."""
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        kinds, _, group = rest.partition(":")
        if kinds and not _OF_CPU_TIME.search(kinds):  # of the second version there are no kinds
            continue
        path = PurePosixPath("/" + group.strip("/"))
        for inner in (path, *path.parents):
            for mount in (root, root / "cpu", root / "unified"):
                folder = mount / str(inner).strip("/")
                quota, period = _quota(folder)
                if quota > 0 and period > 0:
                    yield -(-quota // period)


def _quota(folder: Path) -> tuple[int, int]:
    """Microseconds of CPU time and of the period in which they may be used; 0 where there is no
    limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota), int(period)
    except (OSError, ValueError):  # "max" of the newer version is none, too
        return 0, 0


def arm_model(cpuinfo: str, board: str) -> str:
    """ "BOARD, 4 cores 0x41/0xd05, 4 cores 0x41/0xd0a": implementer and part of /proc/cpuinfo, most
    numerous first; empty where neither says anything."""
    implementer, cores = "", Counter[str]()
    for name, value in _cpuinfo(cpuinfo):
        if name == "CPU implementer":
            implementer = value
        elif name == "CPU part":
            cores[f"{implementer}/{value}"] += 1
    kinds = sorted(cores.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join([board] * bool(board) + [f"{n} cores {kind}" for kind, n in kinds])


def _cpuinfo(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def missing_features(features: tuple[str, ...], flags: frozenset[str]) -> tuple[str, ...]:
    """The features, in LLVM's names, that a machine with these flags does not have."""
    flag_of = X86_FEATURE_FLAGS | ARM_FEATURE_FLAGS
    return tuple(name for name in features if flag_of.get(name, name) not in flags)


def _hwcap() -> dict[int, int]:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {number: int(getauxval(number)) for number in HWCAP}


def hwcap_flags(words: dict[int, int]) -> frozenset[str]:
    """The CPU flags of a 64-bit ARM machine with these entries of the auxiliary vector."""
    return frozenset(
        flag for number, bits in HWCAP.items() for bit, flag in bits.items()
        if words[number] >> bit & 1
    )  # fmt: skip
