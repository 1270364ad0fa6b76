"""What an entry of the table is: every field that changes the kernel, and nothing else."""

import re
from dataclasses import dataclass

from lut.errors import UserError

# One name per kind of entry; the fields that a kind does not have are 0.
OPS = (
    "stem",  # 3x3 convolution at stride 2, from the uint8 image
    "stem_block",  # the stem and the expansion-1 block behind it, one kernel; k is the block's
    "inverted_residual",  # [1x1] depthwise 1x1 [+ input]
    "classifier",  # depthwise and 1x1 to the classes
    "resize",  # bilinear, from size to other size
    "context",  # 1x1 of C5 plus 1x1 of its global average: two kernels that always go together
    "upsample_add",  # 1x1 plus the bilinear upsampling of a map of the other size
    "depthwise",  # k x k
    "gate",  # sigmoid of a 1x1 of the global average
    "local_global",  # (1x1 times gate) plus upsampling, then 1x1 from `hidden` to `cout`
    "labels",  # bilinear upsampling of class scores to the other size, and arg max
)

_TEXT = re.compile(
    r"(?P<op>[a-z_]+) (?P<cin>\d+)-(?P<hidden>\d+)-(?P<cout>\d+) k(?P<kernel>\d+)"
    r" s(?P<stride>\d+) d(?P<dilation>\d+) (?P<height>\d+)x(?P<width>\d+)"
    r"(?: (?P<other_height>\d+)x(?P<other_width>\d+))?",
    re.ASCII,
)


@dataclass(frozen=True, order=True)
class OpKey:
    """One entry. height and width are those of the input; `other` is the size that a map is
    resized to, or that of the smaller map which is upsampled. Sizes in pixels.

    Whether a block adds its input follows from its fields: stride 1 and cin = cout.
    """

    op: str
    cin: int
    hidden: int
    cout: int
    kernel: int
    stride: int
    dilation: int
    height: int
    width: int
    other_height: int = 0
    other_width: int = 0

    def __str__(self) -> str:
        other = f" {self.other_height}x{self.other_width}" if self.other_height else ""
        return (
            f"{self.op} {self.cin}-{self.hidden}-{self.cout} k{self.kernel} s{self.stride}"
            f" d{self.dilation} {self.height}x{self.width}{other}"
        )

    @property
    def out_height(self) -> int:
        """Rows of the output before any resize."""
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        """Columns of the output before any resize."""
        return -(-self.width // self.stride)


def parse_key(text: str) -> OpKey:
    """Read what `str(key)` prints; raises UserError for anything else."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None or match["op"] not in OPS:
        raise UserError(
            f"{text!r} is no key of a latency table, such as "
            "'inverted_residual 16-96-16 k3 s1 d1 64x128'"
        )
    return OpKey(match["op"], *(int(n) for n in match.groups()[1:] if n is not None))
