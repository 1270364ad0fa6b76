"""CPU instruction sets as data, and the register tile that follows from them."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from deploy.cpu.elements import FLOAT32, Bfloat16, Element
from deploy.cpu.int8 import Int8
from lut.ops import DType


@dataclass(frozen=True)
class Isa:
    """What a kernel template needs to know about one vector instruction set.

    `lanes` is the number of float32 in a register and the channel block c of the activation
    layout (N, C/c, H, W, c); `element` is how the numbers of maps and weights are stored. The cache
    sizes are those of the smallest core that the set is usually found on; a target may replace
    them.
    """

    name: str
    lanes: int
    registers: int
    fma_per_cycle: int
    loads_per_cycle: int
    fma_latency: int  # cycles
    l1_bytes: int
    l2_bytes: int
    element: Element = FLOAT32

    def blocks(self, channels: int) -> int:
        """Channel blocks of c that hold `channels`, the last one padded with zeros."""
        return -(-channels // self.lanes)

    @property
    def of_channels(self) -> "Isa":
        """The same with what one value per channel beside a map of this element is made of: it is
        as small as weights are, and float32 where the map is bytes."""
        return self.wide if self.element.integer else self

    @property
    def wide(self) -> "Isa":
        """The same with maps of float32."""
        return replace(self, element=FLOAT32)


AVX2 = Isa("avx2", 8, 16, 2, 2, 4, 32 << 10, 512 << 10)
AVX512 = Isa("avx512", 16, 32, 2, 2, 4, 48 << 10, 1 << 20)
NEON = Isa("neon", 4, 32, 2, 2, 4, 32 << 10, 512 << 10)

ISAS = {isa.name: isa for isa in (AVX2, AVX512, NEON)}

# The elements other than float32 by the name of the instruction set, and by the LLVM feature that
# a target must have. The first that its features allow is the best; the last of each family in int8
# needs no more than its kernels in float32.
_ELEMENTS: dict[DType, dict[str, dict[str, Element]]] = {
    "bfloat16": {
        "avx512": {"avx512bf16": Bfloat16("llvm.x86.avx512bf16.dpbf16ps.512")},
        "neon": {"bf16": Bfloat16("llvm.aarch64.neon.bfdot.v4f32.v8bf16")},
    },
    "int8": {
        "avx512": {"avx512vnni": Int8("vnni"), "avx512bw": Int8("madd")},
        "avx2": {"avxvnni": Int8("vnni"), "avx2": Int8("madd")},
        "neon": {"i8mm": Int8("usdot"), "dotprod": Int8("sdot"), "neon": Int8("mul")},
    },
}


def elements_of(isa: Isa, features: Collection[str]) -> dict[DType, Element]:
    """What maps can be made of on a target with these features, by type."""
    found: dict[DType, Element] = {"float32": FLOAT32}
    for dtype, families in _ELEMENTS.items():
        for feature, element in families.get(isa.name, {}).items():
            if feature in features:
                found.setdefault(dtype, element)
    return found


def _variants(isa: Isa, dtype: DType) -> dict[str, Isa]:
    return {f: replace(isa, element=e) for f, e in _ELEMENTS[dtype][isa.name].items()}


AVX512_BF16 = _variants(AVX512, "bfloat16")["avx512bf16"]
NEON_BF16 = _variants(NEON, "bfloat16")["bf16"]
AVX512_INT8, AVX2_INT8, NEON_INT8 = (_variants(isa, "int8") for isa in (AVX512, AVX2, NEON))


@dataclass(frozen=True)
class Tile:
    """A register tile: `px` pixels times `ob` output channel blocks."""

    px: int
    ob: int


def best_tile(isa: Isa, pixels: int, blocks: int) -> Tile:
    """The tile that needs the fewest cycles for `pixels` x `blocks` outputs (`tile_cycles`)."""
    best, best_cost = Tile(1, 1), float("inf")
    for ob in range(1, min(blocks, 6) + 1):
        found = tile_cycles(isa, pixels, blocks, ob)
        if found is not None and found[1] < best_cost:
            best, best_cost = Tile(found[0], ob), found[1]
    return best


def tile_cycles(isa: Isa, pixels: int, blocks: int, ob: int) -> tuple[int, float] | None:
    """Pixels of a register tile of `ob` blocks, and the cycles of one step of the reduction for
    `pixels` x `blocks` outputs, by port counts; None where the registers are too few.

    One step issues px*ob FMAs and px+ob loads, and cannot be shorter than an FMA's latency; px*ob
    accumulators, ob weights and one broadcast have to fit the registers.
    """
    # With 32 registers two are left free: tiles of 27 to 28 accumulators were 3-10% slower.
    usable = isa.registers - (2 if isa.registers > 16 else 0)
    px_max, run = (usable - isa.element.beside(ob)) // ob, isa.element.run
    if px_max < 1:
        return None
    if px_max > run:
        px_max -= px_max % run
    count = -(-pixels // min(px_max, pixels))
    px, cost = -(-pixels // count), 0.0
    px = min(px + -px % run, px_max, pixels)
    for width, times in ((ob, blocks // ob), (blocks % ob, 1)):
        if width and times:
            loads = (px + width) / isa.loads_per_cycle
            step = max(px * width / isa.fma_per_cycle, loads, float(isa.fma_latency))
            # Half a cycle a step and a little for each load: among tiles that are equal by the
            # counts, larger and squarer ones ride out late loads better (measured).
            cost += times * count * (step + 0.5 + 0.15 * loads)
    return px, cost
