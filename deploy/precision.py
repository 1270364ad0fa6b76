"""What the maps of a network lie in memory as; sums are float32, of int8 int32."""

from dataclasses import dataclass
from typing import Literal

from deploy.noise import UNIT, Deviation
from lut.errors import UserError
from lut.ops import DType

# How much further than float32's own noise a side may lie from the truth: decision 0037.
NOISE_MULTIPLE = Deviation(rms=4, largest=8)


@dataclass(frozen=True)
class Precision:
    """One of them, and how far it may lie from its reference.

    `noise_multiple` is how often the noise that is measured of a network: float32's own, in bf16
    that of its maps' rounding (`deploy.graph.expected`); None where nothing measures the
    precision's. `relative_tolerance`, of the largest score, is what a score may differ by then, and
    where an old artifact does not say what the noise was. `label_tolerance` is the share of the
    pixels in which labels may differ where no score says why.

    Labels may differ where two scores are a tie (`tied`), and in `most_unexplained` of the pixels
    where they are none.
    """

    name: str
    noise_multiple: Deviation | None
    relative_tolerance: float
    label_tolerance: float
    note: str = ""  # for titles
    suffix: str = ""  # of files
    advice: str = ""  # where a network does not match in it
    maps: DType = "float32"  # that a CPU's operations name; a GPU's stay float32 (decision 0022)
    machines: str = ""  # where it is to be had, for who asks elsewhere
    unit: float = UNIT  # the most that one rounding changes a number by, of its size
    most_unexplained: float = 0.0

    def __str__(self) -> str:
        return self.name

    def allowed(self, noise: Deviation | None, peak: float) -> Deviation:
        """What scores whose largest is `peak` may lie off by, in their unit."""
        if self.noise_multiple is None or noise is None:
            return Deviation(self.relative_tolerance * peak, self.relative_tolerance * peak)
        multiple = self.noise_multiple
        return Deviation(noise.rms * multiple.rms, noise.largest * multiple.largest)

    def tied(self, noise: Deviation | None, peak: float) -> float:
        """Within what two expected scores may change places, in their unit: by what each may be off
        by; where labels are judged by themselves, by what each is off by on average."""
        if self.most_unexplained and noise is not None:
            return 2 * noise.rms
        return 2 * self.allowed(noise, peak).largest


FP32 = Precision("fp32", NOISE_MULTIPLE, 1e-4, 1e-4)
# To store a map rounds it by up to u = 2^-11. Some 65 roundings in a row, each independent, add up
# to sqrt(65) u / 2 = 4 u on average, and the largest of a million errors is six times the average:
# 24 u. TinyMRMS and users' networks were measured at 1 to 5 u, MRMS at 9 to 24 u (most on a black
# image, whose pixels all round alike, so that no sum averages it out). Allowed is 64 u. A wrong
# kernel is off by 1000 u, a map beyond half's range by infinity. Labels differ in 0.4% at most.
FP16 = Precision(
    "fp16",
    None,
    2**-5,
    1e-2,
    ", maps in fp16",
    "-fp16",
    "; compile it with --precision fp32",
    machines="--target cuda",
    unit=2**-11,
)
# u = 2^-8, of a rounding to 8 bits. How many roundings add up, and what the network makes of them,
# is measured for each: the same graph in onnxruntime, every map rounded (decision 0068). Two scores
# that are off by its root mean square each, on average, change places within twice that.
BF16 = Precision(
    "bf16",
    Deviation(rms=2, largest=3),
    2**-2,
    5e-2,
    ", maps in bf16",
    "-bf16",
    "; compile it with --precision fp32",
    "bfloat16",
    "CPUs with AVX-512 BF16 or ARM's BF16",
    unit=2**-8,
    most_unexplained=1e-2,
)
# Rounded to grids of 8 bits, as the graph that it is held to says: two that compute it alike but
# for ties of roundings are off by some quanta, which later layers make more of (decision 0066).
INT8 = Precision(
    "int8",
    None,
    2**-2,
    5e-2,
    ", maps in int8",
    "-int8",
    "; compile it with --precision fp32",
    "int8",
    "CPUs",
    most_unexplained=1e-2,
)
PRECISIONS = {precision.name: precision for precision in (FP32, FP16, BF16, INT8)}
PeersPrecision = Literal["fp32", "any"]  # of the sides that a binary is timed beside
AUTO = "auto"  # to compile: the fastest that keeps the labels (`deploy.fastest`)


def parse_precision(text: str) -> Precision:
    """One of `PRECISIONS` by its name; raises UserError for anything else."""
    if text not in PRECISIONS:
        raise UserError(f"unknown precision {text!r}: choose {', '.join(PRECISIONS)}")
    return PRECISIONS[text]


def check_precision_or_auto(text: str) -> None:
    """Raise UserError for what is neither one of `PRECISIONS` nor `AUTO`."""
    known = (*PRECISIONS, AUTO)
    if text not in known:
        raise UserError(f"unknown precision {text!r}: choose {', '.join(known)}")
