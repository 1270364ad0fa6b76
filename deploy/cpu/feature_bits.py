"""Where a CPU says that it has a feature: for programs that ask it themselves.

Of x86 the leaf, subleaf, register (0 to 3: eax, ebx, ecx, edx) and bit of cpuid (Intel's and AMD's
manuals); of 64-bit ARM the entry of the auxiliary vector and its bit (Linux's hwcap.h).
"""

from deploy.host import ARM_FEATURE_FLAGS, HWCAP
from deploy.target import Target

_EBX, _ECX, _EDX = 1, 2, 3
_X86 = {
    "sse3": (1, 0, _ECX, 0), "ssse3": (1, 0, _ECX, 9), "fma": (1, 0, _ECX, 12),
    "sse4.1": (1, 0, _ECX, 19), "sse4.2": (1, 0, _ECX, 20), "movbe": (1, 0, _ECX, 22),
    "popcnt": (1, 0, _ECX, 23), "avx": (1, 0, _ECX, 28), "f16c": (1, 0, _ECX, 29),
    "bmi": (7, 0, _EBX, 3), "avx2": (7, 0, _EBX, 5), "bmi2": (7, 0, _EBX, 8),
    "avx512f": (7, 0, _EBX, 16), "avx512dq": (7, 0, _EBX, 17), "adx": (7, 0, _EBX, 19),
    "avx512ifma": (7, 0, _EBX, 21), "avx512cd": (7, 0, _EBX, 28), "avx512bw": (7, 0, _EBX, 30),
    "avx512vl": (7, 0, _EBX, 31), "avx512vbmi": (7, 0, _ECX, 1),
    "avx512vbmi2": (7, 0, _ECX, 6), "gfni": (7, 0, _ECX, 8), "vaes": (7, 0, _ECX, 9),
    "vpclmulqdq": (7, 0, _ECX, 10), "avx512vnni": (7, 0, _ECX, 11),
    "avx512bitalg": (7, 0, _ECX, 12), "avx512vpopcntdq": (7, 0, _ECX, 14),
    "avx512vp2intersect": (7, 0, _EDX, 8), "amx-bf16": (7, 0, _EDX, 22),
    "avx512fp16": (7, 0, _EDX, 23), "amx-tile": (7, 0, _EDX, 24), "amx-int8": (7, 0, _EDX, 25),
    "avxvnni": (7, 1, 0, 4), "avx512bf16": (7, 1, 0, 5), "lzcnt": (0x80000001, 0, _ECX, 5),
}  # fmt: skip
# Bits of XCR0: the system keeps vectors of 128 and 256 bits, and of 512.
_KEPT = {"avx": 0x6, "avx512f": 0xE6}

Bits = tuple[int, int, int, int]


def feature_bits(target: Target) -> tuple[list[Bits], int]:
    """What to ask for of a CPU that is to run a target's code, and what its system must keep."""
    if target.architecture == "aarch64":
        entries = {
            flag: (word, 0, 0, bit) for word, bits in HWCAP.items() for bit, flag in bits.items()
        }
        flags = [ARM_FEATURE_FLAGS[name] for name in target.features if name in ARM_FEATURE_FLAGS]
        return [entries[flag] for flag in flags if flag in entries], 0
    kept = 0
    for name in target.features:
        kept |= _KEPT.get(name, 0)
    return [_X86[name] for name in target.features if name in _X86], kept
